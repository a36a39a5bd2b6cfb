"""Trains the built-in static code-embedding model and writes its folder.

    python training/train.py --data DIR --minilm DIR --out DIR

DIR/train.jsonl.zst holds the pairs. With --validate, eleven training repositories are held out and scored after each
epoch (this is how the settings were chosen); without it, all of them are trained on.
"""
import argparse
import json
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "2")

import numpy as np
import Stemmer
from tokenizers import Tokenizer

import build_tokenizer
from common import VALIDATION_REPOS, corpus_text, data_file, evaluation_sets, read_jsonl_zst
from export import write_model
from fields import CODE, FIELDS, SIGNATURE, START, SUMMARY
from prepare import encode_all, prepare
from teacher import MiniLM, initial_table
from trainer import Trainer

CONFIG = {
    "seed": 1, "runs": 2, "dimensions": 256, "epochs": 3, "batch": 2048, "group": 512, "scale": 20.0,
    "rate": 5e-3, "weight_rate": 5e-3, "warmup": 100,
    "matryoshka": [[256, 1.0], [128, 0.3], [64, 0.15]],
    # Shares of tokens dropped, and of documents seen without code, with half a summary, without field
    # markers, or with the code's body only.
    "query_drop": 0.2, "text_drop": 0.2, "signature_only": 0.1, "with_summary": 0.1, "plain": 0.05, "body_only": 0.1,
    "sif": 1e-3,
}


def stem_groups(tokens):
    stemmer, groups = Stemmer.Stemmer("english"), {}
    return np.asarray([groups.setdefault(stemmer.stemWord(t) if t.isalpha() else t, len(groups)) for t in tokens], np.int64)


def evaluation_set(tok, rows):
    repos, start = [], 0
    queries, texts = [], []
    for functions in evaluation_sets(rows).values():
        repos.append(slice(start, start + len(functions)))
        start += len(functions)
        queries += [r["doc"] for r in functions]
        texts += [corpus_text(r) for r in functions]
    return {"queries": encode_all(tok, queries, True), "texts": encode_all(tok, texts, True), "repos": repos}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.jsonl.zst")
    parser.add_argument("--minilm", required=True, help="all-MiniLM-L6-v2 folder (onnx/model.onnx, tokenizer.json)")
    parser.add_argument("--out", required=True, help="model folder to write")
    parser.add_argument("--validate", action="store_true", help="hold the validation repositories out")
    for name, value in CONFIG.items():
        if not isinstance(value, list):
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    args = parser.parse_args()
    config = {**CONFIG, **{k: getattr(args, k) for k in CONFIG if hasattr(args, k)}}
    print(json.dumps(config))

    rows = list(read_jsonl_zst(data_file(args.data, "train")))
    held_out = [r for r in rows if r["repo"] in VALIDATION_REPOS] if args.validate else []
    if held_out:
        rows = [r for r in rows if r["repo"] not in VALIDATION_REPOS]
    base = Tokenizer.from_file(f"{args.minilm}/tokenizer.json").get_vocab()
    tok, frequency = build_tokenizer.build(rows, sorted(base, key=base.get))
    vocab = tok.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    print(f"{len(rows)} pairs, {len(tokens)} tokens", flush=True)

    data = prepare(tok, rows)
    table = initial_table(tokens, MiniLM(args.minilm), config["dimensions"])
    counts = np.bincount(np.concatenate([data["doc"], data["signature"], data["code"]]), minlength=len(tokens))
    log_weight = np.log(config["sif"] / (config["sif"] + counts / counts.sum())).astype(np.float32)
    marks = [vocab[t] for t in (START, SIGNATURE, SUMMARY, CODE)]
    table[marks] *= 0.1
    checks = {"validation": evaluation_set(tok, held_out)} if held_out else {}
    # Runs that differ only in their seed start from the same table, so that their tables can be averaged.
    runs = []
    for seed in range(config["seed"], config["seed"] + config["runs"]):
        trainer = Trainer(
            data, table.copy(), np.repeat(log_weight, FIELDS), stem_groups(tokens), (*marks, vocab["("]),
            {**config, "seed": seed})
        trainer.run(checks)
        runs.append((trainer.table, trainer.log_weight, trainer.gain.param))
    trainer.table, trainer.log_weight, trainer.gain.param = (np.mean(parts, axis=0) for parts in zip(*runs))
    for name, s in checks.items():
        print(name, {width: round(float(trainer.check(s, width)), 4) for width in (256, 128, 64)})
    write_model(args.out, tok, trainer.table, trainer.log_weight, trainer.gain.param)


if __name__ == "__main__":
    main()
