// What does an install cost, and how soon is the first vector there? embedcore's tarballs, transformers.js and fastembed,
// each installed into an empty project; then, in turns, fresh processes that import it, and that embed one text.
//
//   node benchmark/install.mjs [--rounds 7] [--model DIR] [--only embedcore]

import { execFileSync, spawnSync } from 'node:child_process';
import { lstatSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { PlainError, count, here, layOutModel, main, median, readJson, repoRoot, temporaryDirectory } from './lib.mjs';

const MB = 1024 * 1024;
const { rounds, model, only } = parseArgs({
  options: { rounds: { type: 'string', default: '7' }, model: { type: 'string' }, only: { type: 'string' } },
}).values;

/** Versions are those of benchmark/package.json. */
const { dependencies } = readJson(join(here, 'package.json'));

/** Who is measured: what to install, how to import it, and what embeds one text, `text`, with which model. */
const contenders = [
  {
    name: 'embedcore',
    install: packOurs,
    module: 'embedcore',
    models: {
      'built-in': () => `
        const generator = new OptimizedEmbeddingGenerator();
        await generator.initialize();
        const vector = (await generator.embed([text])).data;`,
      MiniLM: ({ modelDir }) => `
        const generator = new OptimizedEmbeddingGenerator({ modelPath: ${JSON.stringify(modelDir)} });
        await generator.initialize();
        const vector = (await generator.embed([text])).data;`,
    },
    names: 'OptimizedEmbeddingGenerator',
  },
  {
    name: 'transformers.js',
    install: () => [`@huggingface/transformers@${dependencies['@huggingface/transformers']}`],
    module: '@huggingface/transformers',
    models: {
      MiniLM: ({ localModelPath, modelId }) => `
        env.allowRemoteModels = false;
        env.localModelPath = ${JSON.stringify(localModelPath)};
        const extract = await pipeline('feature-extraction', ${JSON.stringify(modelId)}, { dtype: 'fp32', device: 'cpu' });
        const vector = (await extract([text], { pooling: 'mean', normalize: true })).data;`,
    },
    names: 'env, pipeline',
  },
  {
    name: 'fastembed',
    install: () => [`fastembed@${dependencies.fastembed}`],
    module: 'fastembed',
    models: {
      MiniLM: ({ modelDir }) => `
        const model = await FlagEmbedding.init({
          model: EmbeddingModel.CUSTOM, modelAbsoluteDirPath: ${JSON.stringify(modelDir)}, modelName: 'onnx/model.onnx', maxLength: 256,
        });
        let vector;
        for await (const [first] of model.embed([text], 1)) vector = first;`,
    },
    names: 'EmbeddingModel, FlagEmbedding',
  },
];

await main(() => {
  const times = count(rounds, '--rounds');
  const directory = resolve(model ?? join(repoRoot, '..', 'shared', 'models', 'minilm'));
  const workshop = temporaryDirectory();
  const where = { modelDir: directory, ...layOutModel(directory, join(workshop, 'models')) };
  const chosen = contenders.filter(({ name }) => !only || name === only);

  const runs = [];
  for (const contender of chosen) {
    const project = join(workshop, contender.name);
    mkdirSync(project);
    writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }\n');
    const packages = contender.install(workshop);
    const started = performance.now();
    npm(['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', ...packages], project);
    const seconds = (performance.now() - started) / 1000;
    const modules = join(project, 'node_modules');
    const packagesCount = Object.keys(readJson(join(modules, '.package-lock.json')).packages).length;
    console.log(`${contender.name.padEnd(16)} ${(weight(modules) / MB).toFixed(1).padStart(7)} MB  ${String(packagesCount).padStart(3)} packages  installed in ${seconds.toFixed(1)} s`);

    const load = `import { ${contender.names} } from '${contender.module}';`;
    writeFileSync(join(project, 'import.mjs'), timed(`await import('${contender.module}');`));
    runs.push({ label: `${contender.name}: import`, project, file: 'import.mjs', ms: [] });
    for (const [name, code] of Object.entries(contender.models)) {
      const file = `first-${name}.mjs`;
      // Whole processes: from the start of Node.js to the vector.
      writeFileSync(join(project, file), `${load}\nconst text = 'open a file';${code(where)}\nif (!(vector.length > 100)) throw new Error('no vector');\nconsole.log(performance.now());\nprocess.exit(0);\n`);
      runs.push({ label: `${contender.name}: first vector, ${name}`, project, file, ms: [] });
    }
  }

  // The first round fills the caches of the file system and is not counted.
  for (let round = 0; round <= times; round++) {
    for (const run of runs) {
      const ms = measured(run);
      if (round > 0) run.ms.push(ms);
    }
  }
  console.log('');
  for (const { label, ms } of runs) {
    console.log(`${label.padEnd(40)} ${median(ms).toFixed(0).padStart(6)} ms  (${Math.min(...ms).toFixed(0)} to ${Math.max(...ms).toFixed(0)})`);
  }
});

/** A program that says how long `code` takes in it. */
function timed(code) {
  return `const started = performance.now();\n${code}\nconsole.log(performance.now() - started);\nprocess.exit(0);\n`;
}

function measured({ label, project, file }) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [file], { cwd: project, encoding: 'utf8' });
  const ms = Number(stdout.trim().split('\n').at(-1));
  if (status !== 0 || !Number.isFinite(ms)) throw new PlainError(`${label} failed: ${stderr.trim().split('\n').slice(-8).join('\n') || stdout}`);
  return ms;
}

/** The tarballs that would be published, for this machine. */
function packOurs(workshop) {
  const out = execFileSync(process.execPath, [join(repoRoot, 'scripts', 'release.mjs'), 'pack', '--out', join(workshop, 'packages')], { encoding: 'utf8' });
  return out.trim().split('\n');
}

/** Runs npm and gives what it printed; a failure carries npm's own words. */
function npm(args, cwd) {
  try {
    return execFileSync('npm', args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], shell: process.platform === 'win32' });
  } catch (error) {
    const words = String(error.stderr || error.message).split('\n').filter((line) => line && !line.startsWith('npm warn')).slice(0, 5);
    throw new PlainError(`npm ${args[0]} failed in ${cwd}:\n${words.join('\n')}`);
  }
}

/** Bytes of all files; links are not followed. */
function weight(path) {
  const entry = lstatSync(path);
  return entry.isDirectory() ? readdirSync(path).reduce((sum, name) => sum + weight(join(path, name)), 0) : entry.size;
}
