// Our ONNX Runtime and the user's own, of another version, in one process, in either order.
const [first, modelPath] = process.argv.slice(2);

async function ours() {
  const { OptimizedEmbeddingGenerator } = require('../..');
  const generator = new OptimizedEmbeddingGenerator({ modelPath });
  await generator.initialize();
  return Array.from((await generator.embed(['reads a file'])).row(0));
}

async function theirs() {
  const { InferenceSession, Tensor } = require('onnxruntime-node');
  const session = await InferenceSession.create(`${modelPath}/onnx/model.onnx`);
  const ids = () => new Tensor('int64', BigInt64Array.from([0n, 1n]), [1, 2]);
  const feeds = Object.fromEntries(session.inputNames.map((name) => [name, ids()]));
  const { last_hidden_state: output } = await session.run(feeds);
  return output.dims;
}

(async () => {
  const order = first === 'ours' ? [ours, theirs, ours] : [theirs, ours, theirs];
  const results = [];
  for (const run of order) results.push(await run());
  console.log(JSON.stringify(results));
})();
