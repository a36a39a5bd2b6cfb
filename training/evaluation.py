"""Ranking measures. Row i of a score matrix is query i, and its right answer is column i."""
import numpy as np


def ranks(scores):
    """0-based rank of the right answer; ties count half."""
    right = np.diagonal(scores)[:, None]
    return (scores > right).sum(1) + ((scores == right).sum(1) - 1) / 2


def measures(rank):
    inside = rank < 10
    return {
        "MRR@10": np.where(inside, 1 / (rank + 1), 0.0),
        "recall@1": (rank < 1).astype(float),
        "recall@10": inside.astype(float),
        "nDCG@10": np.where(inside, 1 / np.log2(rank + 2), 0.0),
    }


def mrr_at_10(scores):
    return measures(ranks(scores))["MRR@10"].mean()
