"""The step of a Newton iteration for many problems at once: small symmetric systems, the problem index last."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


LEAST_PIVOT = 1e-11
"""Pivot of a matrix with ones on its diagonal below which it is taken as singular."""


def solve_positive(
    matrix_ppb: Array, right_pb: Array, least_pivot: float = LEAST_PIVOT
) -> tuple[Array, NDArray[np.bool_]]:
    """Solutions (p, b) of b symmetric systems and which matrices were safely positive definite.

    The solution of an unsafe system is meaningless and may not be finite.
    """
    with np.errstate(all="ignore"):
        return _eliminated(matrix_ppb, right_pb, least_pivot)


def _eliminated(matrix_ppb: Array, right_pb: Array, least_pivot: float) -> tuple[Array, NDArray[np.bool_]]:
    """Gauss's elimination, a row of all problems at a time; its pivots are the squares of Cholesky's diagonal."""
    size = len(right_pb)
    scale = np.sqrt(np.maximum(np.einsum("iib->ib", matrix_ppb), 1e-300))
    rows = np.concatenate([matrix_ppb / (scale[:, None] * scale), (right_pb / scale)[:, None]], axis=1)
    good = np.ones(right_pb.shape[1], dtype=bool)
    for i in range(size):
        good &= rows[i, i] > least_pivot
        rows[i, i:] /= np.maximum(rows[i, i], least_pivot)
        rows[i + 1 :, i + 1 :] -= rows[i + 1 :, i, None] * rows[i, i + 1 :]
    solution = rows[:, size]
    for i in reversed(range(1, size)):
        solution[:i] -= rows[:i, i] * solution[i]
    return solution / scale, good
