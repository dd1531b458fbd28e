"""How well a ranking finds the one right key of a query: recall@k and the mean reciprocal rank; BM25 as the baseline.

Letters: Q queries, N keys.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmscale.lm.retrieve.libraries import load_bm25s

Scores = NDArray[np.float64]
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
"""Words of prose and of names: parse_header and parseHeader are two words each."""


def ranks(scores_QN: NDArray[np.floating], key_Q: NDArray[np.int64]) -> NDArray[np.int64]:
    """[Q]: the place of the right key of every query, counted from 1. Keys with the same score come before it, so that
    a ranking that tells nothing apart is worth nothing."""
    own_Q1 = np.take_along_axis(scores_QN, key_Q[:, None], axis=1)
    return np.asarray((scores_QN >= own_Q1).sum(axis=1), np.int64)


def within(ranks_Q: NDArray[np.int64], k: int) -> Scores:
    """[Q]: 1 where the right key is among the first k, whose mean is recall@k."""
    return (ranks_Q <= k).astype(np.float64)


def reciprocal(ranks_Q: NDArray[np.int64]) -> Scores:
    """[Q]: 1 / rank, whose mean is the MRR."""
    return 1 / ranks_Q.astype(np.float64)


def chance_within(keys: int, k: int) -> float:
    """recall@k of a random order."""
    return min(1.0, k / keys)


def chance_reciprocal(keys: int) -> float:
    """MRR of a random order: the harmonic number over the keys."""
    return float((1 / np.arange(1, keys + 1)).sum() / keys)


def words(text: str) -> list[str]:
    """The words that BM25 counts."""
    return [word.lower() for word in WORD.findall(text)]


def bm25_scores(queries: Sequence[str], keys: Sequence[str]) -> Scores:
    """[Q, N]: BM25 of every key (Robertson 1994), with k1 = 1.5 and b = 0.75 as the library has them."""
    ranking = load_bm25s().BM25()
    ranking.index([words(key) for key in keys], show_progress=False)
    scores_QN = np.zeros((len(queries), len(keys)))
    for row, query in zip(scores_QN, queries):
        if tokens := words(query):
            row[:] = ranking.get_scores(tokens)
    return scores_QN
