"""The global minimum of a problem, for one weighting of its runs or for thousands.

Chinchilla's form has its own exact solver (`chinchilla.py`); any other form, or a fixed parameter, goes through
`general.py`. Both answer alike, so that fits, intervals and checks do not care which law they have.
"""

import numpy as np

from lmscale.core.threads import on_all_cores
from lmscale.study.fits.solvers import absolute, chinchilla, general
from lmscale.study.fits.solvers.chinchilla_grid import grid_starts
from lmscale.study.fits.solvers.chinchilla_points import MANY, ChinchillaPoints
from lmscale.study.fits.solvers.problem import GlobalMinimum, Problem
from lmscale.study.laws import Chinchilla

STARTS = 24
GRID, FINE_GRID, COARSE_GRID = 16, 40, 8
"""Exponents per axis of the grid of starts: for many weightings, for one, and where nearly the same law is refitted."""


def minimise(problem: Problem, weights_n: np.ndarray | None = None) -> GlobalMinimum:
    """The global minimum: the best cells of a fine grid, each refined to a stationary point."""
    weights = np.ones(problem.runs) if weights_n is None else weights_n
    if not _is_chinchilla(problem):
        return general.best(problem, weights)
    points = _points(problem)
    starts = grid_starts(points, weights[:, None], FINE_GRID, STARTS)[:, :, 0]
    size = STARTS if problem.runs < MANY else chinchilla.problems_together(problem.runs)
    parts = np.split(starts, range(size, STARTS, size), axis=1)

    def ends_of(part: np.ndarray) -> chinchilla.Solution:
        return chinchilla.refine(points, np.repeat(weights[:, None], part.shape[1], axis=1), part)

    ends = chinchilla.joined(on_all_cores(ends_of, parts) if len(parts) > 1 else [ends_of(starts)])
    index = int(ends.objective_b.argmin())
    lowest = float(ends.objective_b[index])
    agreeing = int((ends.objective_b <= lowest * (1 + 1e-6) + 1e-25).sum())
    values = points.named(ends.theta_pb[:, [index]])[:, 0]
    gradient = float(ends.gradient_b[index])
    if absolute.serves(problem):
        values, gradient = absolute.exact(problem, values, weights)
    return GlobalMinimum(values, problem.objective(values, weights), gradient, STARTS, agreeing)


def minimise_many(
    problem: Problem, weights_nb: np.ndarray, around_p: np.ndarray | None = None, thorough: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Minima of b weightings: values (p, b), and whether each converged (b,). `around_p` is one more start."""
    if not _is_chinchilla(problem):
        return general.many(problem, weights_nb, around_p)
    points = _points(problem)
    also = None if around_p is None else points.theta(around_p[:, None])[:, 0]
    ends = chinchilla.solve_many(points, weights_nb, also_p=also, grid=GRID if thorough else COARSE_GRID)
    return points.named(ends.theta_pb), ends.converged_b


def minimise_near(problem: Problem, around_p: np.ndarray) -> np.ndarray:
    """The parameters (p,) of a problem that hardly differs from one whose minimum is `around_p`.

    Searched from there and from the best point of the start grid alone; from everywhere where neither settles, and
    where few runs make that cheap. Raises `UserError` as `minimise` does.
    """
    if not _is_chinchilla(problem) and absolute.serves(problem):
        if (values_p := general.near_by_programs(problem, around_p)) is not None:
            return values_p
    elif not _is_chinchilla(problem) or problem.runs >= MANY:
        values_pb, converged_b = minimise_many(problem, np.ones((problem.runs, 1)), around_p)
        if converged_b[0]:
            return np.asarray(values_pb[:, 0])
    return minimise(problem).values_p


def _is_chinchilla(problem: Problem) -> bool:
    return problem.form is Chinchilla and not problem.constrained


def _points(problem: Problem) -> ChinchillaPoints:
    params, tokens = problem.inputs
    log = problem.residual == "log"
    return ChinchillaPoints.of(
        params, tokens, problem.target_n, log_residual=log, loss=problem.loss, delta=problem.delta
    )
