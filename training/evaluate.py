"""Scores code search on the development repositories: ours, MiniLM, BM25 and the fusions.

    python training/evaluate.py --data DIR --model DIR [--minilm DIR] [--split dev]

Protocol: per repository, functions and methods only, shuffled with seed 0, at most 300. Their doc comments are the
queries; the corpus is "Signature: ... | Code: ..." cut at 500 characters. Measures are taken per repository and
averaged over repositories (per language: over all queries of the language). Ties count half a rank each.
"""
import argparse
import collections
import json
import re
import time

import bm25s
import numpy as np
import onnxruntime as ort
import Stemmer
from tokenizers import Tokenizer

from common import VALIDATION_REPOS, corpus_text, data_file, evaluation_sets, read_jsonl_zst
from evaluation import measures, ranks
from teacher import MiniLM

BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
STOP = frozenset("a an the of to in for and or is are be this that it by with on as from at if not".split())
# Chosen on the validation repositories.
STANDARD_SHARE, BM25_WEIGHT = 0.8, 0.02


class StaticModel:
    """The exported model, as any consumer would run it."""

    def __init__(self, folder, threads=1):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(f"{folder}/onnx/model.onnx", options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.tokenizer.enable_truncation(json.load(open(f"{folder}/sentence_bert_config.json"))["max_seq_length"])

    def encode(self, texts, batch=32):
        out = []
        for start in range(0, len(texts), batch):
            encoded = self.tokenizer.encode_batch(list(texts[start:start + batch]))
            width = max(len(e.ids) for e in encoded)
            ids = np.zeros((len(encoded), width), np.int64)
            mask = np.zeros_like(ids)
            for row, e in enumerate(encoded):
                ids[row, :len(e.ids)] = e.ids
                mask[row, :len(e.ids)] = 1
            out.append(self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0])
        return np.concatenate(out)


def bm25_plain(text):
    """Split identifiers, nothing else: the baseline."""
    return re.findall(r"[a-z]+|[0-9]+", BOUNDARY.sub(" ", text).lower())


def bm25_stemmed(text, stemmer=Stemmer.Stemmer("english")):
    return [stemmer.stemWord(w) for w in bm25_plain(text) if w not in STOP]


def bm25_scores(queries, texts, words):
    index = bm25s.BM25(k1=1.5, b=0.75)
    index.index([words(t) or ["\0"] for t in texts], show_progress=False)
    return np.array([index.get_scores(words(q)) if words(q) else np.zeros(len(texts)) for q in queries])


def reciprocal_rank(*score_matrices, k=10):
    """Reciprocal-rank fusion; among equal sums the first matrix (the vectors) decides."""
    place = [(-s).argsort(1, kind="stable").argsort(1) for s in score_matrices]
    return sum(1 / (k + 1 + p) for p in place) + 1e-9 * score_matrices[0]


def standardised(score):
    return (score - score.mean(1, keepdims=True)) / (score.std(1, keepdims=True) + 1e-9)


def standardised_sum(vectors, words):
    """Weighted sum of scores, each standardised over the corpus per query."""
    return STANDARD_SHARE * standardised(vectors) + (1 - STANDARD_SHARE) * standardised(words)


def weighted(vectors, words):
    """Cosine plus a small multiple of the BM25 score: needs no statistics of the corpus."""
    return vectors + BM25_WEIGHT * words


# As `src/index/rank.rs` has them.
WORDS_SHARE, NAME_SHARE, K1, B, USUAL_LENGTH, FIRST_WORDS, FREQUENT, FEW_DECLARATIONS = 0.22, 0.08, 0.5, 0.75, 60, 4, 20, 300


def as_indexed(vectors, queries, texts, names):
    """The scores by which the index ranks: cosine, the share of the query's words that are there, and of its first ones in the name."""
    bags = [collections.Counter(bm25_stemmed(f"{name} {text}")) for name, text in zip(names, texts)]
    named = [set(bm25_stemmed(name)) for name in names]
    holds = collections.Counter(word for bag in bags for word in bag)
    lengths = np.array([sum(bag.values()) for bag in bags])
    damping = K1 * (1 - B + B * lengths / USUAL_LENGTH)
    total = max(len(texts), FEW_DECLARATIONS) + FREQUENT
    score = (1 - WORDS_SHARE - NAME_SHARE) * np.maximum(vectors, 0)
    for row, query in enumerate(queries):
        words = list(dict.fromkeys(bm25_stemmed(query[:500])))
        weights = [1 / (1 + FREQUENT * holds[word] / total) for word in words]
        for place, (word, weight) in enumerate(zip(words, weights)):
            counts = np.array([bag[word] for bag in bags])
            score[row] += WORDS_SHARE * weight / sum(weights) * counts / (counts + damping)
            if place < FIRST_WORDS:
                score[row] += NAME_SHARE * weight / sum(weights[:FIRST_WORDS]) * np.array([word in own for own in named])
    return score


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--minilm")
    parser.add_argument("--split", default="dev", choices=("dev", "validation"))
    parser.add_argument("--json", help="also write all figures to this file")
    args = parser.parse_args()
    rows = list(read_jsonl_zst(data_file(args.data, "dev" if args.split == "dev" else "train")))
    if args.split == "validation":
        rows = [r for r in rows if r["repo"] in VALIDATION_REPOS]
    ours, minilm = StaticModel(args.model), MiniLM(args.minilm) if args.minilm else None

    found = {}  # system -> list of (repo, langs, ranks)
    seconds = {}
    for repo, functions in evaluation_sets(rows).items():
        queries, texts = [r["doc"] for r in functions], [corpus_text(r) for r in functions]
        systems = {}
        for name, encoder in (("ours", ours), ("MiniLM", minilm)):
            if encoder is None:
                continue
            began = time.perf_counter()
            q, t = encoder.encode(queries), encoder.encode(texts)
            seconds[name] = seconds.get(name, 0) + time.perf_counter() - began
            systems[name] = q @ t.T
            if name == "ours":
                for width in (128, 64):
                    systems[f"ours, {width} dimensions"] = unit(q[:, :width]) @ unit(t[:, :width]).T
        plain, stemmed = bm25_scores(queries, texts, bm25_plain), bm25_scores(queries, texts, bm25_stemmed)
        systems["BM25, split words"] = plain
        systems["BM25, stop list + stemming"] = stemmed
        for name in [n for n in ("ours", "MiniLM") if n in systems]:
            systems[f"{name} + BM25 split, reciprocal rank"] = reciprocal_rank(systems[name], plain)
            systems[f"{name} + BM25 split, weighted"] = weighted(systems[name], plain)
            systems[f"{name} + BM25 stemmed, reciprocal rank"] = reciprocal_rank(systems[name], stemmed)
            systems[f"{name} + BM25 stemmed, standardised"] = standardised_sum(systems[name], stemmed)
            systems[f"{name} + BM25 stemmed, weighted"] = weighted(systems[name], stemmed)
            systems[f"{name}, as the index ranks"] = as_indexed(systems[name], queries, texts, [r["name"] for r in functions])
        for name, score in systems.items():
            found.setdefault(name, []).append((repo, np.array([r["lang"] for r in functions], object), ranks(score)))

    report = {}
    for name, per_repo in found.items():
        langs = np.concatenate([p[1] for p in per_repo])
        rank = np.concatenate([p[2] for p in per_repo])
        each = [measures(p[2]) for p in per_repo]
        report[name] = {
            "mean over repositories": {m: float(np.mean([e[m].mean() for e in each])) for m in each[0]},
            "languages": {
                lang: {m: float(v[langs == lang].mean()) for m, v in measures(rank).items()} for lang in sorted(set(langs))},
            "repositories": {p[0]: {m: float(v.mean()) for m, v in e.items()} for p, e in zip(per_repo, each)},
        }
    languages = {l: int((langs == l).sum()) for l in sorted(set(langs))}
    print(f"{len(rank)} queries, {len(report['ours']['repositories'])} repositories, queries by language: {languages}\n")
    names = list(next(iter(report.values()))["mean over repositories"])
    print(f"{'':44}" + "".join(f"{m:>11}" for m in names))
    for name, r in report.items():
        print(f"{name:44}" + "".join(f"{r['mean over repositories'][m]:11.4f}" for m in names))
    for part in ("languages", "repositories"):
        for measure in names:
            keys = list(report["ours"][part])
            print(f"\n{measure} by {part}\n{'':44}" + "".join(f"{k.split('/')[-1][:12]:>13}" for k in keys))
            for name, r in report.items():
                print(f"{name:44}" + "".join(f"{r[part][k][measure]:13.4f}" for k in keys))
    print("\nseconds to embed, one thread: " + ", ".join(f"{k} {v:.1f}" for k, v in seconds.items()))
    if args.json:
        with open(args.json, "w") as out:
            json.dump(report, out, indent=1)


if __name__ == "__main__":
    main()
