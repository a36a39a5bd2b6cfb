// @xenova/transformers 2, the older generation, one text per call.
//
// Under Node it always imports onnxruntime-node and prefers it ('cpu'), whatever is set under env.backends.onnx.wasm. A
// user gets WASM where the native binary is missing or refused; here the choice is made in the package's own list.

import { executionProviders } from '@xenova/transformers/src/backends/onnx.js';
import { env, pipeline } from '@xenova/transformers';

export async function open({ localModelPath, modelId, settings: { executionProvider } }) {
  executionProviders.splice(0, executionProviders.length, executionProvider);
  env.backends.onnx.wasm.numThreads = 1;
  env.allowRemoteModels = false;
  env.localModelPath = localModelPath;
  const extract = await pipeline('feature-extraction', modelId, { quantized: false });
  return {
    async embed(texts) {
      const rows = [];
      for (const text of texts) rows.push((await extract(text, { pooling: 'mean', normalize: true })).data);
      return rows;
    },
  };
}
