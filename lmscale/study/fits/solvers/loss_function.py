"""rho, the loss function of a residual, with its derivatives; Huber's threshold may differ from problem to problem.

Axes: n runs, b problems; the problem index last.
"""

from typing import Any

import numpy as np

from lmscale.study.fits.solvers.chinchilla_points import LAD_DELTA
from lmscale.study.fits.solvers.problem import Problem


def threshold(problem: Problem) -> float:
    """Below it Huber's function is quadratic; absolute deviations have a tiny one."""
    return LAD_DELTA if problem.loss == "lad" else problem.delta


def rho(
    problem: Problem, residual_nb: np.ndarray, delta_b: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """rho, rho', rho'' and rho'(r)/r, each (n, b)."""
    if problem.loss == "squared":
        two = np.full_like(residual_nb, 2.0)
        return residual_nb**2, 2 * residual_nb, two, two
    delta = threshold(problem) if delta_b is None else delta_b
    size, slope = np.abs(residual_nb), np.clip(residual_nb, -delta, delta)
    reweighted = delta / np.maximum(size, delta)
    return slope * (residual_nb - 0.5 * slope), slope, (size <= delta).astype(float), reweighted


def total(problem: Problem, weights_nb: np.ndarray, residual_nb: np.ndarray, delta_b: Any = None) -> np.ndarray:
    """The objective of each problem (b,); infinite where a residual does not exist."""
    value = np.einsum("nb,nb->b", weights_nb, rho(problem, residual_nb, delta_b)[0])
    return np.where(np.isfinite(value), value, np.inf)
