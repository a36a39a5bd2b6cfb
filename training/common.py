"""Data access, text formats and the evaluation split shared by all training scripts."""
import collections
import io
import json
import random
import re
from pathlib import Path

import zstandard

# Training repositories kept out of training while choosing settings (never the dev repositories).
VALIDATION_REPOS = {
    "dask/dask", "pytest-dev/pytest", "mikro-orm/mikro-orm", "denoland/std", "tokio-rs/tokio", "clap-rs/clap",
    "etcd-io/etcd", "apache/commons-collections", "openlayers/openlayers", "eslint/eslint", "rails/rails",
}
TEXT_LIMIT = 500  # characters of a corpus text in the evaluation protocol
FUNCTIONS_PER_REPO = 300
_FUNCTION_KIND = re.compile("function|method|constructor|arrow")


def read_jsonl_zst(path):
    with open(path, "rb") as raw:
        stream = zstandard.ZstdDecompressor().stream_reader(raw)
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            yield json.loads(line)


def corpus_text(row, limit=TEXT_LIMIT):
    return f"Signature: {row['signature']} | Code: {row['code']}"[:limit]


def evaluation_sets(rows, most=FUNCTIONS_PER_REPO):
    """{repo: up to `most` functions, drawn with a fixed seed}; docs are the queries, corpus_text the corpus."""
    by_repo = collections.OrderedDict()
    for row in rows:
        if _FUNCTION_KIND.search(row["kind"]):
            by_repo.setdefault(row["repo"], []).append(row)
    sets = {}
    for repo, functions in by_repo.items():
        functions = list(functions)
        random.Random(0).shuffle(functions)
        sets[repo] = functions[:most]
    return sets


def data_file(data_dir, split):
    return Path(data_dir) / f"{split}.jsonl.zst"
