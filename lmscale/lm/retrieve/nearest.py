"""The nearest of vectors that come block by block: exact, and never more than a block of them in memory.

Letters: Q queries, N vectors of a block, D numbers of a vector, k neighbours.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmscale.lm.retrieve.embed import Vectors
from lmscale.lm.retrieve.libraries import load_faiss

Integers = NDArray[np.int64]
NOBODY = -1
"""Stands for a neighbour that there is none of, at the end of a row."""


class Neighbours(NamedTuple):
    """The nearest of every query, the nearest first."""

    scores_Qk: Vectors
    """Inner products, or squared distances."""
    labels_Qk: Integers
    """What was given for each, `NOBODY` where there are fewer than k."""


class Nearest:
    """The k nearest vectors of every query among those added so far."""

    def __init__(self, queries_QD: Vectors, k: int, metric: Literal["inner product", "squared distance"]) -> None:
        self._faiss = load_faiss()
        self._queries_QD, self._k = np.ascontiguousarray(queries_QD, np.float32), k
        self._largest = metric == "inner product"
        self._metric = self._faiss.METRIC_INNER_PRODUCT if self._largest else self._faiss.METRIC_L2
        self._heap = self._faiss.ResultHeap(len(queries_QD), k, keep_max=self._largest)
        self.added = 0
        """Vectors so far."""

    def add(self, vectors_ND: Vectors, labels_N: NDArray[np.integer]) -> None:
        """Let further vectors compete, each under a label of 0 or more."""
        self.added += len(vectors_ND)
        if not len(vectors_ND):
            return
        k = min(self._k, len(vectors_ND))
        scores_Qk, rows_Qk = self._faiss.knn(self._queries_QD, vectors_ND, k, self._metric)
        self._heap.add_result(scores_Qk, np.asarray(labels_N, np.int64)[rows_Qk])

    def neighbours(self) -> Neighbours:
        """Those among the vectors so far; more may be added afterwards."""
        scores_Qk, labels_Qk = self._heap.D.copy(), self._heap.I.copy()
        worst = -np.inf if self._largest else np.inf
        scores_Qk[labels_Qk == NOBODY] = worst
        order = np.argsort(-scores_Qk if self._largest else scores_Qk, axis=1, kind="stable")
        return Neighbours(np.take_along_axis(scores_Qk, order, 1), np.take_along_axis(labels_Qk, order, 1))

    @property
    def flops_per_query(self) -> int:
        """What one query has cost so far: a product and a sum for each number of each vector."""
        return 2 * self._queries_QD.shape[1] * self.added
