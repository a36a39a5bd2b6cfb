"""Checks an exported model: the graph against an independent NumPy forward pass, and padded batches against texts alone.

    python training/check_export.py --data DIR --model DIR
"""
import argparse

import numpy as np
import onnx
from onnx import numpy_helper

from common import corpus_text, data_file, read_jsonl_zst
from evaluate import StaticModel
from fields import CODE, FIELD_EPSILON, FIELDS, SIGNATURE, START, SUMMARY
from kernels import fields_of
from export import WEIGHT_UNIT


def reference(model_file, vocab, ids):
    constants = {c.name: numpy_helper.to_array(c) for c in onnx.load(model_file).graph.initializer}
    table, weight = constants["table"].astype(np.float64), constants["weight"].astype(np.float64).reshape(-1, FIELDS)
    special = tuple(vocab[t] for t in (START, SIGNATURE, SUMMARY, CODE, "("))
    out = []
    for row in ids:
        row = np.asarray(row, np.int32)
        field = fields_of(row, np.array([0, len(row)]), special)
        total = np.zeros(table.shape[1])
        for f in range(FIELDS):
            tokens, counts = np.unique(row[field == f], return_counts=True)
            pooled = (np.sqrt(counts) * weight[tokens, f]) @ table[tokens]
            total += constants["gain"][0, f] * pooled / np.sqrt(np.linalg.norm(pooled) + FIELD_EPSILON * WEIGHT_UNIT)
        out.append(total / np.linalg.norm(total))
    return np.array(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    rows = list(read_jsonl_zst(data_file(args.data, "dev")))[::12]
    texts = [t for r in rows for t in (r["doc"], corpus_text(r), corpus_text(r, 2000))]
    texts += ["", " ", "日本語", "x", "Signature: ", "| Code: ", f"Signature: f() | Summary: {rows[0]['doc']} | Code: {{ f(f(f())) }}"]
    model = StaticModel(args.model)
    padded, alone = model.encode(texts, batch=64), model.encode(texts, batch=1)
    ids = [e.ids for e in model.tokenizer.encode_batch(texts)]
    expected = reference(f"{args.model}/onnx/model.onnx", model.tokenizer.get_vocab(), ids)
    print(f"{len(texts)} texts")
    print(f"padded batches against alone: largest difference {np.abs(padded - alone).max():.2e}")
    print(f"graph against NumPy: largest difference {np.abs(alone - expected).max():.2e}")
    print(f"lengths: {np.linalg.norm(alone, axis=1).min():.7f} to {np.linalg.norm(alone, axis=1).max():.7f}")
    assert np.abs(padded - alone).max() < 1e-5 and np.abs(alone - expected).max() < 1e-5


if __name__ == "__main__":
    main()
