"""A problem on its search scale: residuals, their exact first derivatives, and how well these tell the unknowns apart.

Axes: n runs, q free unknowns, b problems; the problem index last. An unknown is searched by its logarithm where its
`Parameter.log` says so.
"""

import math

import numpy as np

from lmscale.study.fits.solvers.dual import Dual
from lmscale.study.fits.solvers.problem import Problem


def search_scale(problem: Problem) -> tuple[list[bool], np.ndarray, np.ndarray]:
    chosen = [p for p in problem.form.PARAMETERS if p.name in problem.free]
    logs = [p.log for p in chosen]
    low = np.array([np.log(p.low) if p.log else p.low for p in chosen])
    high = np.array([np.log(p.high) if p.log else p.high for p in chosen])
    return logs, low, high


def to_values(problem: Problem, theta_qb: np.ndarray) -> list[np.ndarray]:
    """Free unknowns (q, b) as the form's parameters in order, the fixed ones filled in."""
    logs, _, _ = search_scale(problem)
    free = iter(np.exp(row) if log else row for row, log in zip(theta_qb, logs))
    fixed = problem.fixed or {}
    return [np.full_like(theta_qb[0], fixed[name]) if name in fixed else next(free) for name in problem.form.names()]


def to_theta(problem: Problem, values_pb: np.ndarray) -> np.ndarray:
    """The inverse of `to_values`: parameters (p, b) as free unknowns (q, b)."""
    rows = [row for row, name in zip(values_pb, problem.form.names()) if name in problem.free]
    with np.errstate(invalid="ignore"):  # the exact solver may leave a parameter's range; the checks then say so
        return np.stack([np.log(row) if log else row for row, log in zip(rows, search_scale(problem)[0])])


def residuals(problem: Problem, theta_qb: np.ndarray) -> np.ndarray:
    law = problem.form(*[value[None] for value in to_values(problem, theta_qb)])
    predicted = law.loss(*[column[:, None] for column in problem.inputs])
    target = problem.target_nb
    return np.asarray(np.log(predicted / target) if problem.residual == "log" else predicted - target)


def derivatives(problem: Problem, theta_qb: np.ndarray) -> np.ndarray:
    """Exact first derivatives of the residuals, (q, n, b)."""
    logs, _, _ = search_scale(problem)
    free = iter(
        Dual(value, {index: value if log else np.ones_like(value)})
        for index, (row, log) in enumerate(zip(theta_qb, logs))
        for value in [(np.exp(row) if log else row)[None]]
    )
    fixed = problem.fixed or {}
    predicted = problem.form(*[fixed[n] if n in fixed else next(free) for n in problem.form.names()]).loss(
        *[column[:, None] for column in problem.inputs]
    )
    out = np.zeros((len(theta_qb), problem.runs, theta_qb.shape[1]))
    for index, tangent in predicted.tangents.items():
        out[index] = tangent / predicted.value if problem.residual == "log" else tangent
    return out


def jacobian(problem: Problem, values_p: np.ndarray) -> np.ndarray:
    """Derivative of the residuals by the free unknowns on their search scale, (n, q)."""
    return derivatives(problem, to_theta(problem, np.asarray(values_p, dtype=float)[:, None]))[:, :, 0].T


def condition(problem: Problem, values_p: np.ndarray) -> float:
    """cond(J), J's columns as they are: near 1e3 for a good design; above 1e6 the terms cannot be told apart.

    Infinite where a derivative is not finite.
    """
    slopes = jacobian(problem, values_p)
    return float(np.linalg.cond(slopes)) if np.isfinite(slopes).all() else math.inf
