// fastembed's npm package, given a local model. It has no setting for threads, and takes the vector of the first token
// for every model; the cosine column shows what that does to a mean-pooled one.

import { EmbeddingModel, FlagEmbedding } from 'fastembed';

export async function open({ modelDir, settings: { batchSize, maxLength } }) {
  const model = await FlagEmbedding.init({
    model: EmbeddingModel.CUSTOM,
    modelAbsoluteDirPath: modelDir,
    modelName: 'onnx/model.onnx',
    maxLength,
  });
  return {
    async embed(texts) {
      const rows = [];
      for await (const batch of model.embed(texts, batchSize)) rows.push(...batch);
      return rows;
    },
  };
}
