"""Global minima for any law: many starts for one weighting, and thousands of weightings near one minimum.

Axes: n runs, q free unknowns, b problems; the problem index last. Unknowns are logarithms where the form says so.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from lmscale.core.errors import UserError
from lmscale.core.threads import on_all_cores
from lmscale.study.fits.solvers import absolute
from lmscale.study.fits.solvers.continuation import narrow
from lmscale.study.fits.solvers.derivatives import (
    residuals,
    search_scale,
    second_derivatives,
    to_theta,
    to_values,
)
from lmscale.study.fits.solvers.levenberg import refine
from lmscale.study.fits.solvers.loss_function import rho
from lmscale.study.fits.solvers.problem import GlobalMinimum, Problem

MAX_STARTS = 4096
LEAST_STARTS = 16
"""A form that gives fewer starts is searched from others near them too."""
KEEP = 24
TOGETHER, FEWEST, MOST = 2**15, 16, 500
"""Residuals of the problems that are solved at once, which a core's cache then holds; the fewest and most problems."""
CONTROL = 32
"""Problems of many that are also searched from the start grid: where none ends lower, the others are not."""
FEW_STEPS = 30
"""Steps of a search from the start grid before its threshold narrows."""
LOWER = 1e-7
"""Share of the objective by which another minimum is lower, and not the same one less well solved."""


def starts(problem: Problem) -> np.ndarray:
    """The form's start grid (q, s), thinned evenly where it has more than `MAX_STARTS` points."""
    chosen = [p for p in problem.parameters if p.name in problem.free]
    axes = [p.search_from for p in chosen]
    grid = np.array(list(itertools.product(*axes)), dtype=float)
    if len(grid) > MAX_STARTS:
        grid = grid[np.linspace(0, len(grid) - 1, MAX_STARTS).astype(int)]
    if problem.straightened:
        theta = to_theta(problem, grid.T)
    else:
        theta = np.stack([np.log(column) if p.log else column for column, p in zip(grid.T, chosen)])
    return theta if theta.shape[1] >= LEAST_STARTS else _with_others(problem, theta)


def _with_others(problem: Problem, theta_qs: np.ndarray) -> np.ndarray:
    """The starts and `LEAST_STARTS` more near them: a factor e, or a tenth of the bounds, away in each unknown."""
    logs, low, high = search_scale(problem)
    rng = np.random.default_rng(0)
    width = np.where(logs, 1.0, 0.1 * (high - low))[:, None]
    near = theta_qs[:, np.arange(LEAST_STARTS) % theta_qs.shape[1]]
    others = np.clip(near + width * rng.standard_normal(near.shape), low[:, None], high[:, None])
    return np.concatenate([theta_qs, others], axis=1)


def best(problem: Problem, weights_n: np.ndarray) -> GlobalMinimum:
    """The lowest of the start grid's best points, each refined: a few safe steps for all, exact ones for the best."""
    theta = starts(problem)
    with np.errstate(all="ignore"):
        values = np.einsum("n,nb->b", weights_n, rho(problem, residuals(problem, theta))[0])
    if not np.isfinite(values).any():
        # ln L of no start exists (the law is negative somewhere): least squares on L itself leads to where it does.
        easier = problem.using(residual="raw", loss="squared")
        theta, _, _, _ = refine(easier, np.repeat(weights_n[:, None], theta.shape[1], axis=1), theta, max_steps=60)
        with np.errstate(all="ignore"):
            values = np.einsum("n,nb->b", weights_n, rho(problem, residuals(problem, theta))[0])
        if not np.isfinite(values).any():
            raise UserError(
                f"no start of the law {problem.form.NAME!r} gives a positive loss at every run: "
                f"add starts to its parameters, or fit with residual 'raw'"
            )
    order = np.argsort(np.where(np.isfinite(values), values, np.inf), kind="stable")[: 8 * KEEP]
    some = theta[:, order]
    some, values, _, _ = refine(problem, np.repeat(weights_n[:, None], some.shape[1], axis=1), some, max_steps=12)
    order = np.argsort(values, kind="stable")[:KEEP]
    some, values, sizes, good = refine(problem, np.repeat(weights_n[:, None], len(order), axis=1), some[:, order])
    if problem.loss != "squared" and not good[values.argmin()]:
        some, values, sizes = _by_squares(problem, weights_n, some, values, sizes)
    index = int(values.argmin())
    best_values, gradient = np.array([float(value[0]) for value in to_values(problem, some[:, [index]])]), sizes[index]
    agreeing = int((values <= values[index] * (1 + 1e-6) + 1e-25).sum())
    if absolute.serves(problem):
        best_values, gradient = absolute.exact(problem, best_values, weights_n)
    if problem.straightened and not problem.within_bounds(best_values[:, None])[0]:
        return best(problem.using(plain=True), weights_n)
    return GlobalMinimum(best_values, problem.objective(best_values, weights_n), float(gradient), len(order), agreeing)


def near_by_programs(problem: Problem, around_p: np.ndarray) -> np.ndarray | None:
    """The parameters (p,) of the minimum of absolute deviations near `around_p`, or near the best point of the start
    grid where that is lower; None where the lower one has not converged."""
    weights = np.ones((problem.runs, 1))
    around_q1 = to_theta(problem, np.asarray(around_p, dtype=float)[:, None])
    starting = around_q1, _first(problem, weights)
    lower = min((absolute.descend(problem, each[:, 0], weights[:, 0]) for each in starting), key=lambda end: end.value)
    values_p = np.concatenate(to_values(problem, lower.theta_q[:, None]))
    inside = not problem.straightened or bool(problem.within_bounds(values_p[:, None])[0])
    return values_p if lower.converged and inside else None


def _first(problem: Problem, weights_nb: np.ndarray) -> np.ndarray:
    """Each problem's best point of the start grid (q, b).

    Objectives of the whole grid under every weighting are one matrix product. Where every problem has targets of its
    own, they choose among the `KEEP` points that are best for the mean targets.
    """
    theta, own = starts(problem), problem.target_n.ndim == 2
    central = problem.using(target_n=problem.target_n.mean(axis=1)) if own else problem
    with np.errstate(all="ignore"):
        heights = rho(problem, residuals(central, theta))[0]
        heights = np.where(np.isfinite(heights), heights, 1e30)
        if not own:
            return theta[:, (heights.T @ weights_nb).argmin(axis=0)]
        theta = theta[:, np.argsort(heights.T @ weights_nb.mean(axis=1), kind="stable")[:KEEP]]
        values = [
            np.einsum("nb,nb->b", weights_nb, rho(problem, residuals(problem, theta[:, [index]]))[0])
            for index in range(theta.shape[1])
        ]
    return theta[:, np.argmin(np.where(np.isfinite(values), values, np.inf), axis=0)]


def _by_squares(
    problem: Problem, weights_n: np.ndarray, theta_qb: np.ndarray, values_b: np.ndarray, sizes_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The minima with those that are reached from least squares by narrowing the threshold, where these are lower."""
    weights = np.repeat(weights_n[:, None], theta_qb.shape[1], axis=1)
    squares, *_ = refine(problem.using(loss="squared"), weights, theta_qb)
    theta, values, sizes, _ = narrow(problem, weights, squares, max_steps=3 * CONTROL)
    lower = values < values_b
    return (
        np.where(lower, theta, theta_qb),
        np.where(lower, values, values_b),
        np.where(lower, sizes, sizes_b),
    )


def many(problem: Problem, weights_nb: np.ndarray, around_p: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Minima (p, b) of b weightings and whether each converged (b,).

    All are searched near `around_p`, the minimum for equal weights; those that do not settle, and without `around_p`
    all, also from the point of the start grid that is best for their own weights. A sample of the others is searched
    from there too: where it finds a lower minimum, all are.
    """
    count = weights_nb.shape[1]
    if around_p is None:
        theta, value, good = np.zeros((len(problem.free), count)), np.full(count, np.inf), np.zeros(count, dtype=bool)
    else:
        theta, value, good = _near(problem, weights_nb, to_theta(problem, np.asarray(around_p, dtype=float)[:, None]))
    settled = np.flatnonzero(good)
    control = settled[np.unique(np.linspace(0, len(settled) - 1, CONTROL).astype(int))] if len(settled) else settled
    before = value[control]
    from_grid = np.union1d(np.flatnonzero(~good), control)
    ends = _from_grid(problem, weights_nb, from_grid)
    _keep_lower(theta, value, good, from_grid, ends)
    if (value[control] < before * (1 - LOWER)).any():
        rest = np.setdiff1d(settled, control)
        _keep_lower(theta, value, good, rest, _from_grid(problem, weights_nb, rest))
    _again(theta, value, good, problem, weights_nb, refine, theta)
    values_pb = np.stack(to_values(problem, theta))
    if problem.straightened and (outside := np.flatnonzero(~problem.within_bounds(values_pb))).size:
        values_pb[:, outside], good[outside] = many(
            problem.using(plain=True).among(outside), weights_nb[:, outside], around_p
        )
    return values_pb, good


Ends = tuple[np.ndarray, np.ndarray, np.ndarray]
"""theta (q, b), objective (b,), converged (b,)."""
Search = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
"""Problem, weights and starts -> theta (q, b), objective (b,), largest gradient component (b,), converged (b,)."""


def _near(problem: Problem, weights_nb: np.ndarray, around_q1: np.ndarray) -> Ends:
    """Minima near a common one: with the law's second derivatives there, those left over with their own.

    These go on from where the first search stopped, and begin anew where that was a bad place.
    """
    count = weights_nb.shape[1]
    start = np.repeat(around_q1, count, axis=1)
    if count == 1:
        return _one_after_another((narrow,), problem, weights_nb, start)
    shared = functools.partial(narrow, second_qqn=second_derivatives(problem, around_q1)[..., 0])
    theta, value, good = _one_after_another((shared, narrow), problem, weights_nb, start)
    _again(theta, value, good, problem, weights_nb, narrow, start)
    return theta, value, good


def _again(
    theta: np.ndarray,
    value: np.ndarray,
    good: np.ndarray,
    problem: Problem,
    weights_nb: np.ndarray,
    search: Search,
    start: np.ndarray,
) -> None:
    """Search the problems that have not converged once more, from `start`, and put lower ends in their places."""
    if (left := np.flatnonzero(~good)).size:
        ends = _in_chunks(search, problem.among(left), weights_nb[:, left], start[:, left])
        _keep_lower(theta, value, good, left, ends)


def _from_grid(problem: Problem, weights_nb: np.ndarray, which: np.ndarray) -> Ends:
    """Minima of some of the problems from the best point of the start grid of each.

    Those that a few steps do not settle go on under a threshold that narrows, and to the end where that does not.
    """
    weights_nb, problem = weights_nb[:, which], problem.among(which)
    first = _first(problem, weights_nb) if len(which) else np.zeros((len(problem.free), 0))
    if problem.loss == "squared":
        return _one_after_another((refine,), problem, weights_nb, first)
    few = functools.partial(refine, max_steps=FEW_STEPS)
    return _one_after_another((few, narrow, refine), problem, weights_nb, first)


def _one_after_another(
    searches: Sequence[Search], problem: Problem, weights_nb: np.ndarray, theta_qb: np.ndarray
) -> Ends:
    """The ends of all problems; each search begins where the one before left a problem that has not converged."""
    count = theta_qb.shape[1]
    theta, value, good = theta_qb.copy(), np.full(count, np.inf), np.zeros(count, dtype=bool)
    for search in searches:
        _again(theta, value, good, problem, weights_nb, search, theta)
    return theta, value, good


def _in_chunks(search: Search, problem: Problem, weights_nb: np.ndarray, theta_qb: np.ndarray) -> Ends:
    """The ends of a search for all problems, by as many at once as fit a core's cache, on every core."""

    def one(part: slice) -> Ends:
        theta, value, _, good = search(problem.among(part), weights_nb[:, part], theta_qb[:, part])
        return theta, value, good

    count = theta_qb.shape[1]
    together = int(np.clip(TOGETHER // problem.runs, FEWEST, MOST))
    parts = on_all_cores(one, [slice(begin, begin + together) for begin in range(0, count, together)])
    theta, value, good = (np.concatenate([part[k] for part in parts], axis=-1) for k in range(3))
    return theta, value, good


def _keep_lower(theta: np.ndarray, value: np.ndarray, good: np.ndarray, which: np.ndarray, ends: Ends) -> None:
    """Put the ends of the problems `which` in the place of higher ones."""
    for place, index in enumerate(which):
        if ends[1][place] < value[index] or (ends[2][place] and not good[index]):
            theta[:, index], value[index], good[index] = ends[0][:, place], ends[1][place], ends[2][place]
