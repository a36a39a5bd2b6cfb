"""Numba kernels: batch assembly, weighted bags of tokens forwards and backwards, row-sparse Adam.

A feature is a token in a field: feature = token * FIELDS + field.
"""
import numba as nb
import numpy as np

from fields import FIELDS, HEAD

jit = nb.njit(fastmath=True, cache=False)


@nb.njit
def assemble(rows, doc, doc_at, sig, sig_at, code, code_at, seed, options, special):
    """Tokens of the batch's queries followed by those of its documents, with random views and dropout."""
    query_drop, text_drop, signature_only, with_summary, plain, body_only = options
    start, signature, summary, code_mark, paren = special
    np.random.seed(seed)
    count = len(rows)
    room = 0
    for r in rows:
        room += 2 * (doc_at[r + 1] - doc_at[r]) + sig_at[r + 1] - sig_at[r] + code_at[r + 1] - code_at[r] + 8
    token = np.empty(room, np.int32)
    at = np.zeros(2 * count + 1, np.int64)
    n = 0
    for i in range(count):
        r = rows[i]
        token[n] = start
        n += 1
        for j in range(doc_at[r], doc_at[r + 1]):
            if np.random.random() >= query_drop:
                token[n] = doc[j]
                n += 1
        at[i + 1] = n
    for i in range(count):
        r = rows[i]
        view = np.random.random()
        marked = np.random.random() >= plain
        drop = text_drop * np.random.random() * 2
        token[n] = start
        n += 1
        if marked:
            token[n] = signature
            n += 1
        for j in range(sig_at[r], sig_at[r + 1]):
            if np.random.random() >= drop:
                token[n] = sig[j]
                n += 1
        if view < with_summary and marked:
            token[n] = summary
            n += 1
            for j in range(doc_at[r], doc_at[r + 1]):
                if np.random.random() >= 0.5:
                    token[n] = doc[j]
                    n += 1
        if view < 1 - signature_only:
            if marked:
                token[n] = code_mark
                n += 1
            first = code_at[r]
            if np.random.random() < body_only:
                first = min(first + sig_at[r + 1] - sig_at[r], code_at[r + 1])
            for j in range(first, code_at[r + 1]):
                if np.random.random() >= drop:
                    token[n] = code[j]
                    n += 1
        at[count + i + 1] = n
    return token[:n].copy(), at


@jit
def to_features(token, field, at, size):
    """Per text: its distinct features and sqrt(count) of each."""
    counts = np.zeros(size, np.float32)
    feature = np.empty(len(token), np.int32)
    value = np.empty(len(token), np.float32)
    feature_at = np.zeros(len(at), np.int64)
    n = 0
    for r in range(len(at) - 1):
        first = n
        for j in range(at[r], at[r + 1]):
            f = token[j] * FIELDS + field[j]
            if counts[f] == 0:
                feature[n] = f
                n += 1
            counts[f] += 1
        for k in range(first, n):
            value[k] = np.sqrt(counts[feature[k]])
            counts[feature[k]] = 0
        feature_at[r + 1] = n
    return feature[:n].copy(), value[:n].copy(), feature_at


@jit
def pool(feature, value, at, table, log_weight, out):
    """out[text, field]: weighted sum of the field's token vectors."""
    out[:] = 0
    for r in range(len(at) - 1):
        for k in range(at[r], at[r + 1]):
            w = value[k] * np.exp(log_weight[feature[k]])
            row = table[feature[k] // FIELDS]
            target = out[r, feature[k] % FIELDS]
            for d in range(table.shape[1]):
                target[d] += w * row[d]


@jit
def pool_backward(feature, value, at, table, log_weight, grad, table_grad, weight_grad, touched, mark):
    """Adds up the gradients of the rows in use; returns how many rows, listed in touched."""
    width = table.shape[1]
    n = 0
    for r in range(len(at) - 1):
        for k in range(at[r], at[r + 1]):
            f = feature[k]
            t = f // FIELDS
            g = grad[r, f % FIELDS]
            if mark[t] == 0:
                mark[t] = 1
                touched[n] = t
                n += 1
                for d in range(width):
                    table_grad[t, d] = 0
                for q in range(FIELDS):
                    weight_grad[t, q] = 0
            w = value[k] * np.exp(log_weight[f])
            row = table[t]
            target = table_grad[t]
            dot = np.float32(0)
            for d in range(width):
                dot += row[d] * g[d]
                target[d] += w * g[d]
            weight_grad[t, f % FIELDS] += w * dot
    for i in range(n):
        mark[touched[i]] = 0
    return n


@jit
def sum_by_stem(table_grad, weight_grad, touched, n, stem, stem_grad, stem_weight_grad, stems, mark):
    k = 0
    for i in range(n):
        t = touched[i]
        s = stem[t]
        if mark[s] == 0:
            mark[s] = 1
            stems[k] = s
            k += 1
            stem_grad[s] = 0
            stem_weight_grad[s] = 0
        for d in range(table_grad.shape[1]):
            stem_grad[s, d] += table_grad[t, d]
        for q in range(FIELDS):
            stem_weight_grad[s, q] += weight_grad[t, q]
    for i in range(k):
        mark[stems[i]] = 0
    return k


@jit
def adam(param, grad, mean, square, rows, n, rate, step):
    """Adam on the listed rows only."""
    fix_mean = 1 - 0.9 ** step
    fix_square = 1 - 0.999 ** step
    for i in range(n):
        t = rows[i]
        for d in range(param.shape[1]):
            g = grad[t, d]
            mean[t, d] = 0.9 * mean[t, d] + 0.1 * g
            square[t, d] = 0.999 * square[t, d] + 0.001 * g * g
            param[t, d] -= rate * (mean[t, d] / fix_mean) / (np.sqrt(square[t, d] / fix_square) + 1e-8)


@jit
def refresh(table, log_weight, own, own_weight, shared, shared_weight, stems, k, members, members_at):
    """table = own + shared[stem], for every token of the stems that moved."""
    for i in range(k):
        s = stems[i]
        for j in range(members_at[s], members_at[s + 1]):
            t = members[j]
            for d in range(table.shape[1]):
                table[t, d] = own[t, d] + shared[s, d]
            for q in range(FIELDS):
                log_weight[t * FIELDS + q] = own_weight[t, q] + shared_weight[s, q]


@nb.njit
def fields_of(token, at, special):
    """The field of every token, by the same rules as the ONNX graph."""
    start, signature, summary, code_mark, paren = special
    out = np.zeros(len(token), np.uint8)
    for r in range(len(at) - 1):
        base = 0
        parameters = body = False
        place = 0
        for j in range(at[r], at[r + 1]):
            t = token[j]
            if t == signature:
                base = max(base, 1)
            elif t == summary:
                base = max(base, 2)
            elif t == code_mark:
                base = 3
            if base == 1:
                parameters |= t == paren
                out[j] = 4 if parameters else 1
            elif base == 3:
                body |= t == paren
                place += 1
                out[j] = 3 if body or place > HEAD else 5
            else:
                out[j] = base
    return out
