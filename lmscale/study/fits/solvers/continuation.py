"""Minima under Huber's loss or absolute deviations, reached from those under squares by narrowing the threshold.

Where most residuals exceed Huber's threshold the objective is nearly that of absolute deviations: its corners stop
Newton's method far from the minimum. So the threshold begins at the size of the residuals, where the objective is
smooth, and falls by `NARROWER` whenever Newton's method has nearly settled; each minimum starts the next search
(Madsen and Nielsen 1993, doi 10.1137/0803010).

Axes: n runs, q free unknowns, b problems; the problem index last.
"""

import numpy as np

from lmscale.study.fits.solvers.derivatives import curvature, derivatives, residuals, search_scale
from lmscale.study.fits.solvers.levenberg import (
    RENEW,
    Ends,
    hessian,
    newton_step,
    path_curvature,
    pinned_at,
    shortened,
    with_acceleration,
)
from lmscale.study.fits.solvers.loss_function import rho, threshold, total
from lmscale.study.fits.solvers.problem import Problem

NARROWER = 0.3
SETTLED = 0.1  # share of the objective below which the next step's promise ends a level
MAX_STEPS = 60
SMALLEST_RIDGE = 1e-9
LEAST_RAISED, LEAST_CONVEX = 1e-6, 1e-3
"""Ridges after a refused step at least: of one that rose, and of one whose matrix was not positive."""


def narrow(
    problem: Problem,
    weights_nb: np.ndarray,
    theta_qb: np.ndarray,
    second_qqn: np.ndarray | None = None,
    max_steps: int = MAX_STEPS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """theta (q, b), objective (b,), largest gradient component (b,) and converged (b,), from minima nearby.

    `second_qqn` are second derivatives of the residuals that serve for all problems, those at a minimum which all are
    near to; None takes every problem's own.
    """
    _, low, high = (np.asarray(item)[:, None] for item in search_scale(problem))
    theta, count = np.clip(theta_qb, low, high), theta_qb.shape[1]
    ends, weights = Ends(theta), weights_nb
    ridge, age = np.full(count, SMALLEST_RIDGE), np.zeros(count)
    bend, last = np.zeros((len(theta), len(theta), count)), threshold(problem)
    with np.errstate(all="ignore"):
        residual = residuals(problem, theta)
        widest = last if problem.loss == "squared" else 1.5 * np.median(np.abs(residual), axis=0)
        delta = np.maximum(last, np.broadcast_to(widest, (count,)))
        value = total(problem, weights, residual, delta)
        for number in range(max_steps):
            (_, first, second, reweighted), slopes = rho(problem, residual, delta), derivatives(problem, theta)
            gradient = np.einsum("nb,qnb->qb", weights * first, slopes)
            pinned = pinned_at(theta, gradient, low, high)
            gradient = np.where(pinned, 0, gradient)
            if second_qqn is not None:
                bend = np.einsum("ijn,nb->ijb", second_qqn, weights * first, optimize=True)
            elif (which := np.flatnonzero(age <= 0)).size:
                bend[:, :, which] = curvature(problem.among(which), theta[:, which], (weights * first)[:, which])
            age = np.where(age <= 0, RENEW, age - 1)
            matrix = hessian(weights * second, slopes, bend)
            safe = np.einsum("nb,qnb->qb", weights * reweighted, slopes**2)
            step, positive = newton_step(matrix, gradient, pinned, ridge * safe)
            promised = -np.einsum("qb,qb->b", step, gradient)
            if second_qqn is None:
                path = weights * second * path_curvature(problem, theta, residual, slopes, step)
                force = np.where(pinned, 0.0, np.einsum("nb,qnb->qb", path, slopes))
                step = with_acceleration(step, newton_step(matrix, force, pinned, ridge * safe)[0], np.sqrt(safe))
            trial = np.clip(theta + shortened(step), low, high)
            tried_residual = residuals(problem, trial)
            tried = total(problem, weights, tried_residual, delta)
            accept = positive & (tried <= value * (1 + 2e-14))
            flat = positive & (promised <= 1e-14 * value + 1e-28 * weights.sum(axis=0)) & (ridge < 1e-3)
            theta, value = np.where(accept, trial, theta), np.where(accept, tried, value)
            residual = np.where(accept, tried_residual, residual)
            age = np.where(accept, age, 0.0)
            ridge = np.where(accept, np.maximum(ridge * 0.1, SMALLEST_RIDGE), _raised(ridge, positive))
            done = flat & (delta <= last)
            settled = (flat | (accept & (promised <= SETTLED * value))) & (delta > last)
            delta = np.where(settled, np.maximum(delta * NARROWER, last), delta)
            value = np.where(settled, total(problem, weights, residual, delta), value)
            leave = done | (ridge > 1e8) | ~np.isfinite(value) | (number == max_steps - 1)
            if not leave.any():
                continue
            stay = ends.record(leave, theta, total(problem, weights, residual), gradient, done)
            if not stay.any():
                break
            weights, problem = weights[:, stay], problem.among(stay)
            theta, bend, residual, delta = theta[:, stay], bend[:, :, stay], residual[:, stay], delta[stay]
            value, ridge, age = value[stay], ridge[stay], age[stay]
    return ends.every()


def _raised(ridge_b: np.ndarray, positive_b: np.ndarray) -> np.ndarray:
    """Ridges (b,) after steps were refused: for their heights, or because their matrices were not positive."""
    return np.maximum(ridge_b * 10, np.where(positive_b, LEAST_RAISED, LEAST_CONVEX))
