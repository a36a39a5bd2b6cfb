"""Turns rows into flat token arrays that the trainer can cut batches from."""
import numpy as np

from build_tokenizer import TEXT_CHARS


def encode_all(tok, texts, special=False):
    ids, offsets = [], [0]
    for start in range(0, len(texts), 5000):
        for e in tok.encode_batch_fast(texts[start:start + 5000], add_special_tokens=special):
            ids.append(np.asarray(e.ids, np.int32))
            offsets.append(offsets[-1] + len(e.ids))
    return np.concatenate(ids), np.asarray(offsets, np.int64)


def prepare(tok, rows):
    """Arrays of the three fields: the doc, the signature, and the code as far as the corpus text reaches."""
    code = [r["code"][:max(0, TEXT_CHARS - len(r["signature"]) - 20)] for r in rows]
    out = {}
    for name, texts in (("doc", [r["doc"] for r in rows]), ("signature", [r["signature"] for r in rows]), ("code", code)):
        out[name], out[name + "_offsets"] = encode_all(tok, texts)
    repos = {}
    out["repo"] = np.asarray([repos.setdefault(r["repo"], len(repos)) for r in rows], np.int32)
    groups = {}
    out["doc_key"] = np.asarray([groups.setdefault(r["doc"].lower(), len(groups)) for r in rows], np.int64)
    groups = {}
    out["code_key"] = np.asarray([groups.setdefault(r["signature"] + r["code"], len(groups)) for r in rows], np.int64)
    return out
