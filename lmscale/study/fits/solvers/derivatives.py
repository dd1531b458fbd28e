"""A problem on its search scale: residuals, their exact first derivatives, and how well these tell the unknowns apart.

Axes: n runs, q free unknowns, b problems; the problem index last. An unknown is searched by its logarithm where its
`Parameter.log` says so.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.core.user_code import place_of, sentence
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.laws.dual import Dual

CACHED = 2**12
"""Numbers in one array at most, where arrays are many: so many stay in a core's first cache."""


def search_scale(problem: Problem) -> tuple[list[bool], np.ndarray, np.ndarray]:
    """Which unknowns are logarithms, and their lowest and highest values (q,)."""
    chosen = [p for p in problem.parameters if p.name in problem.free]
    logs = [p.log for p in chosen]
    low = np.array([np.log(p.low) if p.log else p.low for p in chosen])
    high = np.array([np.log(p.high) if p.log else p.high for p in chosen])
    if problem.straightened:
        bent = np.array([p.name in problem.form.BENT for p in chosen])
        low, high = np.where(bent, -np.inf, low), np.where(bent, np.inf, high)
    return logs, low, high


def to_values(problem: Problem, theta_qb: np.ndarray) -> list[np.ndarray]:
    """Free unknowns (q, b) as the form's parameters in order, the fixed ones filled in."""
    logs, _, _ = search_scale(problem)
    values = {name: np.exp(row) if log else row for name, row, log in zip(problem.free, theta_qb, logs)}
    return in_order(problem, values, {name: np.full_like(theta_qb[0], v) for name, v in (problem.fixed or {}).items()})


def in_order(problem: Problem, free: Mapping[str, Any], fixed: Mapping[str, Any]) -> list[Any]:
    """All parameters in the form's order: free ones, fixed ones, and those tied to one of them."""
    every = {**free, **fixed}
    if problem.straightened:
        every = problem.form.from_search(every)
    return [every[(problem.tied or {}).get(name, name)] for name in problem.form.names()]


def to_theta(problem: Problem, values_pb: np.ndarray) -> np.ndarray:
    """The inverse of `to_values`: parameters (p, b) as free unknowns (q, b)."""
    values = dict(zip(problem.form.names(), values_pb))
    if problem.straightened:
        values = problem.form.to_search(values)
    rows = [values[name] for name in problem.free]
    with np.errstate(invalid="ignore"):  # the exact solver may leave a parameter's range; the checks then say so
        return np.stack([np.log(row) if log else row for row, log in zip(rows, search_scale(problem)[0])])


def residuals(problem: Problem, theta_qb: np.ndarray) -> np.ndarray:
    """Predicted minus measured, of ln L or of L, (n, b)."""
    predicted = loss_at(problem, [value[None] for value in to_values(problem, theta_qb)])
    target = problem.target_nb
    return np.asarray(np.log(predicted / target) if problem.residual == "log" else predicted - target)


def derivatives(problem: Problem, theta_qb: np.ndarray) -> np.ndarray:
    """Exact first derivatives of the residuals, (q, n, b)."""
    tangents = _tangents(problem, [row[None] for row in theta_qb])
    out = np.zeros((len(theta_qb), problem.runs, theta_qb.shape[1]))
    for index, tangent in tangents.items():
        out[index] = tangent
    return out


def second_derivatives(problem: Problem, theta_qb: np.ndarray) -> np.ndarray:
    """d2 residual / d theta_k d theta_l, (k, l, n, b), exact."""
    out = np.zeros((len(theta_qb), *theta_qb.shape[:1], problem.runs, theta_qb.shape[1]))
    for (one, other), bend in _second_tangents(problem, theta_qb).items():
        out[one, other] = out[other, one] = bend
    return out


def curvature(problem: Problem, theta_qb: np.ndarray, slope_nb: np.ndarray) -> np.ndarray:
    """sum_i slope_i d2 r_i / d theta2, (q, q, b), by as many problems at a time as stay in a core's cache."""
    out = np.zeros((len(theta_qb), *theta_qb.shape))
    together = max(1, CACHED // problem.runs)
    for part in (slice(begin, begin + together) for begin in range(0, theta_qb.shape[1], together)):
        for (one, other), bend in _second_tangents(problem.among(part), theta_qb[:, part]).items():
            out[one, other, part] = out[other, one, part] = (slope_nb[:, part] * bend).sum(axis=0)
    return out


def _second_tangents(problem: Problem, theta_qb: np.ndarray) -> dict[tuple[int, int], Any]:
    """The second derivatives of the residuals that are not zero by themselves, each broadcasting to (n, b).

    By two unknowns k <= l: the duals' values and tangents are duals themselves.
    """
    tangents = _tangents(problem, [Dual(row[None], {index: 1.0}) for index, row in enumerate(theta_qb)])
    return {
        (one, other): bend
        for one, tangent in tangents.items()
        if isinstance(tangent, Dual)
        for other, bend in tangent.tangents.items()
        if one <= other
    }


def _tangents(problem: Problem, rows: list[Any]) -> dict[int, Any]:
    """The derivative of the residuals (n, b) by every unknown on which they depend, at unknowns (1, b) or their duals.

    Raises `UserError` where the law depends on none.
    """
    logs, _, _ = search_scale(problem)
    values = [np.exp(row) if log else row for row, log in zip(rows, logs)]
    duals = {
        name: Dual(value, {index: value if log else 1.0})
        for index, (name, value, log) in enumerate(zip(problem.free, values, logs))
    }
    predicted = loss_at(problem, in_order(problem, duals, problem.fixed or {}))
    if not isinstance(predicted, Dual):
        raise UserError(
            f"the loss of the law {problem.form.NAME!r} does not depend on its parameters, or loses them on the way "
            f"(by float() or np.asarray(), say): there is nothing to fit"
        )
    if problem.residual == "raw":
        return predicted.tangents
    return {index: tangent / predicted.value for index, tangent in predicted.tangents.items()}


def loss_at(problem: Problem, parameters: list[Any]) -> Any:
    """The loss of the form at the runs, (n, b), of plain parameters or duals.

    Raises `UserError` where the user's code fails on arrays, has no derivative, or is no loss of each run.
    """
    name = problem.form.NAME
    try:
        loss = problem.form(*parameters).loss(*[column[:, None] for column in problem.inputs])
    except UserError as error:
        cause = error.__cause__
        if not isinstance(cause, TypeError | ValueError | AttributeError | IndexError | KeyError):
            raise
        raise UserError(
            f"the loss of the law {name!r} cannot be differentiated at {place_of(cause)} ({sentence(cause)}): "
            f"write it with + - * / **, and NumPy's functions of whole arrays, without if, math or float()"
        ) from error
    _check_loss(problem, loss)
    return loss


def _check_loss(problem: Problem, loss: Any) -> None:
    """Raises `UserError` unless a law's loss is a real number for every run."""
    while isinstance(loss, Dual):
        loss = loss.value
    value = np.asarray(loss)
    if value.dtype.kind in "fiu" and value.ndim <= 2 and value.shape[:-1] in ((), (1,), (problem.runs,)):
        return
    what = "None" if loss is None else f"an array of shape {value.shape} of {value.dtype}"
    raise UserError(
        f"the loss of the law {problem.form.NAME!r} gives {what} for {problem.runs} runs: it returns a real number for "
        f"each run, computed from whole arrays of inputs"
    )


def jacobian(problem: Problem, values_p: np.ndarray) -> np.ndarray:
    """Derivative of the residuals by the free parameters, or by their logarithms where these are searched, (n, q)."""
    problem = problem.using(plain=True) if problem.straightened else problem
    return derivatives(problem, to_theta(problem, np.asarray(values_p, dtype=float)[:, None]))[:, :, 0].T


def condition(problem: Problem, values_p: np.ndarray) -> float:
    """cond(J), J's columns as they are: near 1e3 for a good design; above 1e6 the terms cannot be told apart.

    Infinite where a derivative is not finite.
    """
    slopes = jacobian(problem, values_p)
    return float(np.linalg.cond(slopes)) if np.isfinite(slopes).all() else math.inf
