"""The step of a Newton iteration for many problems at once: small symmetric systems, the problem index last."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


LEAST_PIVOT = 1e-11
"""Pivot of a matrix with ones on its diagonal below which it is taken as singular."""


def solve_positive(
    matrix_ppb: Array, right_pb: Array, least_pivot: float = LEAST_PIVOT
) -> tuple[Array, NDArray[np.bool_]]:
    """Solutions (p, b) of b symmetric systems by Cholesky, and which matrices were safely positive definite.

    The solution of an unsafe system is meaningless and may not be finite.
    """
    with np.errstate(all="ignore"):
        return _cholesky(matrix_ppb, right_pb, least_pivot)


def _cholesky(matrix_ppb: Array, right_pb: Array, least_pivot: float) -> tuple[Array, NDArray[np.bool_]]:
    size = len(right_pb)
    scale = np.sqrt(np.maximum(np.einsum("iib->ib", matrix_ppb), 1e-300))
    lower: dict[tuple[int, int], Array] = {}
    good = np.ones(right_pb.shape[1], dtype=bool)
    solution = right_pb / scale
    for i in range(size):
        for j in range(i):
            value = matrix_ppb[i, j] / (scale[i] * scale[j])
            for k in range(j):
                value = value - lower[i, k] * lower[j, k]
            lower[i, j] = value / lower[j, j]
        pivot = np.where(matrix_ppb[i, i] > 0, 1.0, 0.0)
        for k in range(i):
            pivot = pivot - lower[i, k] ** 2
        good &= pivot > least_pivot
        lower[i, i] = np.sqrt(np.maximum(pivot, least_pivot))
        for k in range(i):
            solution[i] = solution[i] - lower[i, k] * solution[k]
        solution[i] = solution[i] / lower[i, i]
    for i in reversed(range(size)):
        for k in range(i + 1, size):
            solution[i] = solution[i] - lower[k, i] * solution[k]
        solution[i] = solution[i] / lower[i, i]
    return solution / scale, good
