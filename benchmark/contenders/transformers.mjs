// transformers.js on its native ONNX Runtime, fed in the slices that a user would cut.

import { env, pipeline } from '@huggingface/transformers';

export async function open({ localModelPath, modelId, settings: { batchSize } }) {
  env.allowRemoteModels = false;
  env.localModelPath = localModelPath;
  const extract = await pipeline('feature-extraction', modelId, {
    dtype: 'fp32',
    device: 'cpu',
    session_options: { intraOpNumThreads: 2 },
  });
  return {
    async embed(texts) {
      const batches = [];
      for (let i = 0; i < texts.length; i += batchSize) {
        const output = await extract(texts.slice(i, i + batchSize), { pooling: 'mean', normalize: true });
        batches.push(output.data);
      }
      return batches;
    },
  };
}
