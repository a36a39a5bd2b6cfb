"""Contrastive training of the token table: doc comment <-> code text, negatives from the same repositories."""
import time

import numpy as np
from numpy.random import default_rng

import kernels
from evaluation import mrr_at_10
from fields import FIELD_EPSILON, FIELDS


class SparseAdam:
    def __init__(self, param):
        self.param, self.mean, self.square = param, np.zeros_like(param), np.zeros_like(param)

    def step(self, grad, rows, n, rate, step):
        kernels.adam(self.param, grad, self.mean, self.square, rows, n, rate, step)


def normalise(x):
    length = np.sqrt((x * x).sum(1, keepdims=True)) + 1e-6
    return x / length, length


def contrastive(query, text, scale, same):
    """Symmetric cross-entropy over the batch and its gradients; pairs marked in `same` are no negatives."""
    count = len(query)
    diagonal = np.arange(count)
    score = scale * (query @ text.T)
    score[same] = -1e4
    right = score[diagonal, diagonal].copy()
    peak = score.max(1, keepdims=True)
    by_row = np.exp(score - peak)
    total = by_row.sum(1, keepdims=True)
    loss = (np.log(total) + peak)[:, 0] - right
    by_row /= total
    peak = score.max(0, keepdims=True)
    score -= peak
    np.exp(score, out=score)
    total = score.sum(0, keepdims=True)
    loss += (np.log(total) + peak)[0] - right
    score /= total
    by_row += score
    by_row *= 0.5
    by_row[diagonal, diagonal] -= 1
    by_row *= scale / count
    return 0.5 * loss.mean(), by_row @ text, by_row.T @ query


def join_fields(pooled, gain):
    """Sum of the fields' vectors, each divided by the square root of its length, so that long fields don't drown short ones."""
    length = np.sqrt((pooled * pooled).sum(2, keepdims=True)) + FIELD_EPSILON
    scale = np.exp(gain)[None, :, None] / np.sqrt(length)
    return (pooled * scale).sum(1), length, scale


def join_fields_backward(pooled, length, scale, grad):
    along = (pooled * grad[:, None]).sum(2, keepdims=True)
    return scale * (grad[:, None] - 0.5 * pooled * (along / length ** 2)), (along * scale).sum((0, 2))


class Trainer:
    def __init__(self, data, table, log_weight, stem, special, config):
        self.data, self.config, self.special = data, config, special
        self.table, self.log_weight = table, log_weight.reshape(-1)
        tokens = len(table)
        # table[t] = own[t] + shared[stem[t]]: inflections of a word learn from each other; folded when saved.
        self.own, self.own_weight = SparseAdam(table.copy()), SparseAdam(log_weight.reshape(-1, FIELDS).copy())
        self.stem = stem
        self.members = np.argsort(stem, kind="stable").astype(np.int32)
        stems = int(stem.max()) + 1
        self.members_at = np.searchsorted(stem[self.members], np.arange(stems + 1))
        self.shared = SparseAdam(np.zeros((stems, table.shape[1]), np.float32))
        self.shared_weight = SparseAdam(np.zeros((stems, FIELDS), np.float32))
        self.grads = [np.zeros_like(p.param) for p in (self.own, self.own_weight, self.shared, self.shared_weight)]
        self.touched, self.stems = np.empty(tokens, np.int32), np.empty(stems, np.int32)
        self.mark, self.stem_mark = np.zeros(tokens, np.uint8), np.zeros(stems, np.uint8)
        self.gain = SparseAdam(np.zeros((1, FIELDS), np.float32))

    def batches(self, rng):
        """Batches made of groups of rows from one repository each, so that most negatives are hard ones."""
        repo, group, size = self.data["repo"], self.config["group"], self.config["batch"]
        order = rng.permutation(len(repo))
        order = order[np.argsort(repo[order], kind="stable")]
        groups = []
        for part in np.split(order, np.flatnonzero(np.diff(repo[order])) + 1):
            groups += [part[i:i + group] for i in range(0, len(part), group)]
        rng.shuffle(groups)
        order = np.concatenate(groups)
        for start in range(0, len(order) - size // 2, size):
            yield order[start:start + size]

    def encode(self, ids, offsets):
        """Vectors of plain token lists (start token included), fields found by the markers."""
        field = kernels.fields_of(ids, offsets, self.special)
        bags = kernels.to_features(ids, field, offsets, len(self.log_weight))
        out = np.zeros((len(offsets) - 1, FIELDS, self.table.shape[1]), np.float32)
        kernels.pool(*bags, self.table, self.log_weight, out)
        return join_fields(out, self.gain.param[0])[0]

    def step(self, rows, seed, rate, step):
        d, c = self.data, self.config
        token, at = kernels.assemble(
            rows, d["doc"], d["doc_offsets"], d["signature"], d["signature_offsets"], d["code"], d["code_offsets"], seed,
            (c["query_drop"], c["text_drop"], c["signature_only"], c["with_summary"], c["plain"], c["body_only"]),
            self.special,
        )
        field = kernels.fields_of(token, at, self.special)
        bags = kernels.to_features(token, field, at, len(self.log_weight))
        by_field = np.zeros((2 * len(rows), FIELDS, self.table.shape[1]), np.float32)
        kernels.pool(*bags, self.table, self.log_weight, by_field)
        pooled, field_length, field_scale = join_fields(by_field, self.gain.param[0])
        same = d["doc_key"][rows][:, None] == d["doc_key"][rows]
        same |= d["code_key"][rows][:, None] == d["code_key"][rows]
        np.fill_diagonal(same, False)
        grad = np.zeros_like(pooled)
        full_loss = 0.0
        for width, share in c["matryoshka"]:
            unit, length = normalise(pooled[:, :width])
            loss, *sides = contrastive(unit[:len(rows)], unit[len(rows):], c["scale"], same)
            side = np.concatenate(sides) * share
            grad[:, :width] += (side - unit * (side * unit).sum(1, keepdims=True)) / length
            full_loss = loss if width == pooled.shape[1] else full_loss
        grad, gain_grad = join_fields_backward(by_field, field_length, field_scale, grad)
        own_grad, weight_grad, shared_grad, shared_weight_grad = self.grads
        n = kernels.pool_backward(
            *bags, self.table, self.log_weight, grad, own_grad, weight_grad, self.touched, self.mark)
        k = kernels.sum_by_stem(
            own_grad, weight_grad, self.touched, n, self.stem, shared_grad, shared_weight_grad, self.stems, self.stem_mark)
        weight_rate = rate * c["weight_rate"] / c["rate"]
        self.gain.step(gain_grad[None], np.zeros(1, np.int32), 1, weight_rate, step)
        self.own.step(own_grad, self.touched, n, rate, step)
        self.own_weight.step(weight_grad, self.touched, n, weight_rate, step)
        self.shared.step(shared_grad, self.stems, k, rate, step)
        self.shared_weight.step(shared_weight_grad, self.stems, k, weight_rate, step)
        kernels.refresh(
            self.table, self.log_weight, self.own.param, self.own_weight.param, self.shared.param,
            self.shared_weight.param, self.stems, k, self.members, self.members_at)
        return full_loss

    def run(self, checks):
        """checks: {name: evaluation set}; prints MRR@10 after every epoch."""
        c = self.config
        rng = default_rng(c["seed"])
        total = c["epochs"] * (len(self.data["repo"]) // c["batch"])
        step, began = 0, time.time()
        for epoch in range(c["epochs"]):
            losses = []
            for rows in self.batches(rng):
                step += 1
                rate = c["rate"] * min(1.0, step / c["warmup"]) * max(0.02, 1 - step / (total + 1))
                losses.append(self.step(rows, int(rng.integers(1 << 30)), rate, step))
            scores = {name: round(float(self.check(s)), 4) for name, s in checks.items()}
            print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {time.time() - began:.0f} s, MRR@10 {scores}", flush=True)

    def check(self, s, width=None):
        queries, _ = normalise(self.encode(*s["queries"])[:, :width])
        texts, _ = normalise(self.encode(*s["texts"])[:, :width])
        return np.mean([mrr_at_10(queries[i] @ texts[i].T) for i in s["repos"]])
