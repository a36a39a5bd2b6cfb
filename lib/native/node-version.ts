// Written for any Node.js: what fails below must not be the syntax of this file.
const oldest = 20;
const found = process.versions.node;

if (Number(found.split('.')[0]) < oldest) {
  const error = new Error(
    'embedcore needs Node.js ' + oldest + ' or later; this is ' + found + ' (' + process.execPath + '). ' +
      'Install a newer one, from https://nodejs.org or with the version manager that you use.',
  );
  throw Object.assign(error, { code: 'BACKEND_UNAVAILABLE' });
}

export {};
