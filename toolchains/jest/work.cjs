// The common program, which is an ES module, as a CommonJS one.
const { readFileSync } = require('node:fs');
const { join } = require('node:path');

const source = readFileSync(join(__dirname, 'work.mjs'), 'utf8');
const body = source.replace(/^import \{(.*)\} from '(.*)';$/gm, "const {$1} = require('$2');").replace(/^export (async )?(const|function)/gm, '$1$2');
module.exports = new Function('require', `${body}; return { check, leaveWork };`)(require);
