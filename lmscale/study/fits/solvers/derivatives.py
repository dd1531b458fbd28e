"""A problem on its search scale: residuals, their exact first derivatives, and how well these tell the unknowns apart.

Axes: n runs, q free unknowns, b problems; the problem index last. An unknown is searched by its logarithm where its
`Parameter.log` says so.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.laws.dual import Dual

COMPLEX_STEP, REAL_STEP = 1e-30, 1e-5


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
    logs, _, _ = search_scale(problem)
    values = [(np.exp(row) if log else row)[None] for row, log in zip(theta_qb, logs)]
    duals = {
        name: Dual(value, {index: value if log else np.ones_like(value)})
        for index, (name, value, log) in enumerate(zip(problem.free, values, logs))
    }
    predicted = loss_at(problem, in_order(problem, duals, problem.fixed or {}))
    if not isinstance(predicted, Dual):
        raise UserError(
            f"the loss of the law {problem.form.NAME!r} does not depend on its parameters, or loses them on the way "
            f"(by float() or np.asarray(), say): there is nothing to fit"
        )
    out = np.zeros((len(theta_qb), problem.runs, theta_qb.shape[1]), dtype=theta_qb.dtype)
    for index, tangent in predicted.tangents.items():
        out[index] = tangent / predicted.value if problem.residual == "log" else tangent
    return out


def second_derivatives(problem: Problem, theta_qb: np.ndarray) -> Iterator[np.ndarray]:
    """d2 residual / d theta_k d theta, (q, n, b), for each k: exact first derivatives by a complex step.

    The imaginary part of f(x + ih) is h f'(x) without cancellation (Squire and Trapp 1998). Where a law's function has
    no complex form, central differences stand in.
    """
    for index in range(len(theta_qb)):
        try:
            ahead = theta_qb.astype(complex)
            ahead[index] += COMPLEX_STEP * 1j
            yield derivatives(problem, ahead).imag / COMPLEX_STEP
        except (UserError, TypeError):
            ahead, behind = theta_qb.copy(), theta_qb.copy()
            ahead[index] += REAL_STEP
            behind[index] -= REAL_STEP
            yield (derivatives(problem, ahead) - derivatives(problem, behind)) / (2 * REAL_STEP)


def loss_at(problem: Problem, parameters: list[Any]) -> Any:
    """The loss of the form at the runs, (n, b), of plain parameters or duals.

    Raises `UserError` where the user's code fails on arrays, has no derivative, or is no loss of each run.
    """
    name = problem.form.NAME
    try:
        loss = problem.form(*parameters).loss(*[column[:, None] for column in problem.inputs])
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        raise UserError(
            f"the loss of the law {name!r} cannot be differentiated ({type(error).__name__}: {error}): "
            f"write it with + - * / **, and NumPy's functions of whole arrays, without if, math or float()"
        ) from error
    except Exception as error:
        raise UserError(f"the loss of the law {name!r} fails: {type(error).__name__}: {error}") from error
    _check_loss(problem, loss, any(np.iscomplexobj(_plain(one)) for one in parameters))
    return loss


def _plain(number: Any) -> Any:
    return number.value if isinstance(number, Dual) else number


def _check_loss(problem: Problem, loss: Any, may_be_complex: bool) -> None:
    """Raises `UserError` unless a law's loss is a real number for every run."""
    value = np.asarray(_plain(loss))
    kinds = "fiuc" if may_be_complex else "fiu"
    if value.dtype.kind in kinds and value.ndim <= 2 and value.shape[:-1] in ((), (1,), (problem.runs,)):
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
