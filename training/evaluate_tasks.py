"""Scores other searches than that for a description, in the manner of CoIR: code to code, name to code, error to code.

    python training/evaluate_tasks.py --data DIR --model DIR [--minilm DIR]

- name to code: the words of a function's name; in the corpus, functions without their names.
- code to code: the first half of a function's body finds its second half (CoIR's "code context retrieval").
- error to code: the message of an error finds the function that raises it; in the corpus, that message is left out.

Per development repository at most 100 functions, shuffled with seed 0; the mean over repositories with 20 or more.
"""
import argparse
import re

import numpy as np

from common import data_file, evaluation_sets, read_jsonl_zst
from evaluate import BOUNDARY, StaticModel, bm25_scores, bm25_stemmed, standardised_sum
from evaluation import measures, ranks
from teacher import MiniLM

MOST, LEAST = 100, 20
# What raises an error in one of the languages, and its message.
RAISED = re.compile(
    r"""(?:raise|throw|panic!?|Error|Exception|Errorf|errors\.New|Status\w*|bail!|expect)\b[^\n"'`]{0,60}(["'`])([^"'`\n]{15,200})\1""")


def name_to_code(row):
    words = BOUNDARY.sub(" ", row["name"]).replace("_", " ").strip().lower()
    if len(words.split()) < 2:
        return None
    return words, re.sub(rf"\b{re.escape(row['name'])}\b", "f", row["code"])


def code_to_code(row):
    lines = row["code"].split("\n")
    if len(lines) < 8:
        return None
    middle = len(lines) // 2
    return "\n".join(lines[:middle]), "\n".join(lines[middle:])


def error_to_code(row):
    found = RAISED.search(row["code"])
    if not found or len(re.findall("[A-Za-z]{2,}", found[2])) < 3:
        return None
    return found[2], row["code"].replace(found[2], "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--minilm")
    args = parser.parse_args()
    rows = list(read_jsonl_zst(data_file(args.data, "dev")))
    ours, minilm = StaticModel(args.model), MiniLM(args.minilm) if args.minilm else None
    for task in (name_to_code, code_to_code, error_to_code):
        found, queries = {}, 0
        for functions in evaluation_sets(rows, None).values():
            pairs = [pair for pair in map(task, functions) if pair][:MOST]
            if len(pairs) < LEAST:
                continue
            asked, code = [query for query, _ in pairs], [text for _, text in pairs]
            texts = [f"Signature: {text.split(chr(10), 1)[0]} | Code: {text}" for text in code]
            systems = {}
            for name, encoder in (("ours", ours), ("MiniLM", minilm)):
                if encoder is not None:
                    systems[name] = encoder.encode(asked) @ encoder.encode(texts if name == "ours" else code).T
            systems["BM25"] = bm25_scores(asked, code, bm25_stemmed)
            systems["ours + BM25"] = standardised_sum(systems["ours"], systems["BM25"])
            for name, score in systems.items():
                found.setdefault(name, []).append(measures(ranks(score))["MRR@10"].mean())
            queries += len(pairs)
        means = ", ".join(f"{name} {np.mean(scores):.3f}" for name, scores in found.items())
        print(f"{task.__name__.replace('_', ' ')}: {means} ({queries} queries of {len(found['ours'])} repositories)", flush=True)


if __name__ == "__main__":
    main()
