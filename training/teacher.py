"""Starting table: every token through MiniLM's encoder alone, reduced by PCA (the Model2Vec recipe)."""
import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer


class MiniLM:
    def __init__(self, folder, threads=1, max_length=256):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(f"{folder}/onnx/model.onnx", options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length)

    def encode(self, texts, token_budget=1024):
        ids = [e.ids for e in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        out = np.zeros((len(ids), 384), np.float32)
        start = 0
        while start < len(order):
            width = len(ids[order[start]])
            batch = order[start:start + max(1, token_budget // width)]
            start += len(batch)
            x = np.zeros((len(batch), width), np.int64)
            mask = np.zeros_like(x)
            for row, i in enumerate(batch):
                x[row, :len(ids[i])] = ids[i]
                mask[row, :len(ids[i])] = 1
            feed = {"input_ids": x, "attention_mask": mask, "token_type_ids": np.zeros_like(x)}
            hidden = self.session.run(None, feed)[0]
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            out[batch] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return out


def initial_table(tokens, minilm, dimensions):
    vectors = minilm.encode([t.removeprefix("##") for t in tokens]).astype(np.float64)
    vectors -= vectors.mean(0)
    _, axes = np.linalg.eigh(vectors.T @ vectors)
    table = vectors @ axes[:, ::-1][:, :dimensions]
    return (table / np.linalg.norm(table, axis=1, keepdims=True).mean()).astype(np.float32)
