"""Exact minima of `sum_i w_i rho(r_i)` for L = E + A/N^alpha + B/D^beta, many weightings at once.

Two steps, so that the answer is global by construction and exact. `chinchilla_grid.py` solves a grid of exponents in
closed form. The best cells are then refined here by Newton steps with exact first and second derivatives; least
absolute deviations goes by way of vertices (`chinchilla_vertex.py`).

Axes: n runs, p = 5 unknowns, b problems solved together (starts, or resamples). The problem index comes last, so
every operation is a long contiguous loop, and a resample is a column of weights, never a gather.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmscale.core.host import usable_cores
from lmscale.core.threads import on_all_cores
from lmscale.study.fits.solvers.chinchilla_grid import exponent_grid, grid_starts, powers
from lmscale.study.fits.solvers.chinchilla_objective import evaluate, evaluate_at_one, objective, summands_at_one
from lmscale.study.fits.solvers.chinchilla_points import LOWEST, MANY, Array, ChinchillaPoints
from lmscale.study.fits.solvers.chinchilla_vertex import height, through_runs
from lmscale.study.fits.solvers.newton import solve_positive

CHUNK = 128  # problems that share the products of the grid
PRODUCTS = 2_100_000  # numbers in a temporary of those products: 128 problems of 16,384 runs
REFINED = 32_768  # numbers in a temporary of problems refined together, so that a dozen of them stay in a core's cache
LEAST = 8  # problems refined together where their runs are more
HELD = 400_000  # numbers in a temporary beyond which fewer are: two dozen of them are held at once, in every thread
MAX_STEPS = 150
NEARLY_STILL = 1e-5  # a Newton step this short, in a logarithm or an exponent, has arrived
NARROW = 1e-5  # a Huber loss below this threshold is solved as least absolute deviations first
WIDER = (1e-3, 1e-2)  # and these from the minima at both, since they have several minima of their own
WAY_STEPS = 15  # towards those: a vertex needs only the neighbourhood


@dataclass
class Solution:
    """theta (5, b), objective (b,), largest component of the gradient (b,), converged or not (b,)."""

    theta_pb: Array
    objective_b: Array
    gradient_b: Array
    converged_b: NDArray[np.bool_]


def _at_bound(theta_pb: Array, gradient_pb: Array, matrix_ppb: Array, mix_b: Array) -> NDArray[np.bool_]:
    """Change the Newton systems, in place, of the problems whose ln E rests on its bound; which ones leave it (b,).

    Where the objective falls only beyond the bound, ln E takes no part in the step. Where it falls on this side, it is
    so flat in ln E that the step is one of E itself, in units of E: d2f/dE2 E^2 = d2f/d(ln E)2 - df/d(ln E).
    """
    resting_b = theta_pb[0] <= LOWEST
    leaving_b = resting_b & (gradient_pb[0] < 0)
    matrix_ppb[0, 0] -= np.where(leaving_b, (1 - mix_b) * gradient_pb[0], 0.0)
    resting_b &= ~leaving_b
    gradient_pb[0, resting_b] = 0
    matrix_ppb[0][:, resting_b] = 0
    matrix_ppb[:, 0][:, resting_b] = 0
    matrix_ppb[0, 0, resting_b] = 1
    return leaving_b


def _limited(newton_pb: Array, leaving_b: NDArray[np.bool_]) -> Array:
    """Newton steps of at most 2 in any unknown; that of E from its bound as one of ln E, and as long as it is."""
    level_b = np.where(leaving_b, np.log1p(np.maximum(newton_pb[0], 0.0)), newton_pb[0])
    others_pb = np.concatenate([np.where(leaving_b, 0.0, newton_pb[:1]), newton_pb[1:]])
    limited_pb = newton_pb * np.minimum(1, 2 / np.maximum(np.abs(others_pb).max(axis=0), 1e-300))
    limited_pb[0] = np.where(leaving_b, level_b, limited_pb[0])
    return limited_pb


def _in_range(theta_pb: Array) -> Array:
    """theta with ln E at its bound or above; a rounding error above it is on it."""
    level_1b = theta_pb[:1]
    return np.concatenate([np.where(level_1b > LOWEST + 1e-9, level_1b, LOWEST), theta_pb[1:]])


def problems_together(runs: int) -> int:
    """How many problems of so many runs are refined together."""
    return max(1, min(LEAST, HELD // runs), REFINED // runs)


def refine(points: ChinchillaPoints, weights_nb: Array, theta_pb: Array) -> Solution:
    """Descend from theta (5, b) to a stationary point of each problem."""
    if not _narrow(points):
        return descend(points, weights_nb, theta_pb)
    ends = []
    for delta in WIDER:
        theta_pb = descend(replace(points, delta=delta), weights_nb, theta_pb, steps=WAY_STEPS).theta_pb
        ends.append(through_runs(points, weights_nb, theta_pb))
    heights = [height(points, weights_nb, end) for end in ends]
    lower = np.where(heights[1] < heights[0], ends[1], ends[0])
    return descend(points, weights_nb, lower, near=True)


def _narrow(points: ChinchillaPoints) -> bool:
    return not points.squared and points.delta < NARROW


def _refine_most(
    points: ChinchillaPoints, weights_nb: Array, theta_pb: Array, near: bool | NDArray[np.bool_] = False
) -> Solution:
    """`refine` for one of many chunks; under a narrow loss only the problems that a vertex settles in a few steps.

    Nine in ten do. The others take a hundred steps each, which cost little more for a thousand problems than for ten.
    """
    if not _narrow(points):
        return descend(points, weights_nb, theta_pb, near)
    theta_pb = descend(replace(points, delta=WIDER[0]), weights_nb, theta_pb, steps=WAY_STEPS).theta_pb
    return descend(points, weights_nb, through_runs(points, weights_nb, theta_pb), near=True, steps=3)


def descend(
    points: ChinchillaPoints,
    weights_nb: Array,
    theta_pb: Array,
    near: bool | NDArray[np.bool_] = False,
    steps: int = MAX_STEPS,
    at_start: tuple[Array, ...] | None = None,
) -> Solution:
    """`refine` at one threshold; problems that are done leave the batch. `near`, of all or each, begins with Newton.

    `at_start` is what `evaluate` gives at `theta_pb`, where it is known already.
    """
    theta_pb, whole = _in_range(theta_pb), points
    problems = theta_pb.shape[1]
    objective_b, gradient_b = np.full(problems, np.inf), np.full(problems, np.inf)
    converged_b = np.zeros(problems, dtype=bool)
    active = np.arange(problems)

    theta, weights = theta_pb.copy(), weights_nb
    best, step, scale = theta.copy(), np.zeros_like(theta), np.ones(problems)
    value, slope = np.full(problems, np.inf), np.zeros(problems)
    mix = np.where(np.broadcast_to(near, problems), 0.0, 1.0)
    largest = np.full(problems, np.inf)
    floor_b = 1e-30 * weights_nb.sum(axis=0)  # noiseless data: the objective itself is rounding error
    for number in range(steps):
        mix_used = mix
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            trial, gradient, matrix = (number == 0 and at_start) or evaluate(points, weights, theta, mix_used)
        leaving = _at_bound(theta, gradient, matrix, mix_used)
        newton, positive = solve_positive(matrix, -gradient)
        with np.errstate(invalid="ignore", over="ignore"):
            newton_slope = np.einsum("pb,pb->b", newton, gradient)
        flat = positive & (mix_used == 0) & (-newton_slope <= 1e-13 * trial + floor_b)
        done = flat & (trial <= value * (1 + 1e-12) + floor_b)
        accept = done | (trial <= value + 1e-4 * scale * slope + 2e-14 * np.abs(value) + floor_b)
        best = np.where(accept, theta, best)
        fall = value - trial
        value = np.where(accept, trial, value)
        usable = accept & positive & (newton_slope <= 0)
        newton = np.where(positive, newton, 0.0)
        newton = _limited(newton, leaving)
        step = np.where(usable, newton, step)
        slope = np.where(usable, newton_slope, slope)
        largest = np.where(accept, np.abs(gradient).max(axis=0), largest)
        # A refused step is halved; a refused or indefinite Hessian brings the reweighted matrix back.
        scale = np.where(usable, 1.0, np.where(accept, 0.0, scale * 0.4))
        mix = np.where(
            usable, np.where((mix < 0.02) | (fall < 0), 0.0, mix * 0.4), np.where(accept, 1.0, np.minimum(1, mix + 0.1))
        )
        stuck = ~accept & (scale < 1e-9)
        theta = _in_range(best + scale * step)
        if not (leave := done | stuck).any():
            continue
        left = active[leave]
        # Convergence is quadratic there, so the last step is taken without looking whether rounding lets it be seen.
        theta_pb[:, left] = np.where(done, _in_range(best + newton), best)[:, leave]
        objective_b[left], gradient_b[left], converged_b[left] = value[leave], largest[leave], done[leave]
        stay = ~leave
        if not stay.any():
            break
        active, weights, points = active[stay], weights[:, stay], points.among(stay)
        theta, best, step = theta[:, stay], best[:, stay], step[:, stay]
        value, slope, scale, mix, largest = value[stay], slope[stay], scale[stay], mix[stay], largest[stay]
        floor_b = floor_b[stay]
    else:
        theta_pb[:, active], objective_b[active], gradient_b[active] = best, value, largest
    if steps == MAX_STEPS and len(rest := np.flatnonzero(~converged_b)):
        converged_b[rest] = _stationary(whole.among(rest), weights_nb[:, rest], theta_pb[:, rest])
    return Solution(theta_pb, objective_b, gradient_b, converged_b)


def _stationary(points: ChinchillaPoints, weights_nb: Array, theta_pb: Array) -> NDArray[np.bool_]:
    """Whether theta is a minimum but for rounding (b,): the Hessian is positive, and its Newton step next to nothing.

    Where the objective is so small that rounding hides its fall, a search stops there without having seen that.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        _, gradient, matrix = evaluate(points, weights_nb, theta_pb, np.zeros(theta_pb.shape[1]))
    _at_bound(theta_pb, gradient, matrix, np.zeros(theta_pb.shape[1]))
    newton, positive = solve_positive(matrix, -gradient)
    with np.errstate(invalid="ignore"):
        return positive & (np.abs(newton).max(axis=0) <= NEARLY_STILL)


def solve_many(
    points: ChinchillaPoints,
    weights_nb: Array,
    grid: int = 16,
    also_p: Array | None = None,
) -> Solution:
    """Each problem from its own best grid cell, or from `also_p` (5,) where that is lower; threads share the chunks."""
    problems = weights_nb.shape[1]
    chunk_size = max(LEAST, min(CHUNK, PRODUCTS // len(weights_nb)))
    chunks = [slice(start, start + chunk_size) for start in range(0, problems, chunk_size)]

    also_p = None if also_p is None else _in_range(also_p[:, None])[:, 0]
    together = problems_together(len(weights_nb))
    known = also_p is not None and len(weights_nb) >= MANY and points.loss_n.ndim == 1 and not _narrow(points)
    summands = summands_at_one(points, also_p) if also_p is not None and known else None
    of_grid = powers(points, exponent_grid(grid), exponent_grid(grid))  # not for every chunk of 200,000 runs anew

    def one(chunk: slice) -> Solution:
        weights, those = np.asarray(weights_nb[:, chunk], dtype=float, order="C"), points.among(chunk)
        starts = grid_starts(those, weights, grid, 1, of_grid)[:, 0]
        parts = [slice(start, start + together) for start in range(0, weights.shape[1], together)]
        if also_p is not None and summands is not None:
            at_also = evaluate_at_one(summands, weights)
            return joined(
                [
                    _from_law_of_all(
                        points,
                        np.ascontiguousarray(weights[:, part]),
                        starts[:, part],
                        also_p,
                        tuple(values[..., part] for values in at_also),
                    )
                    for part in parts
                ]
            )
        return joined(
            [
                _from_start(those.among(part), np.ascontiguousarray(weights[:, part]), starts[:, part], also_p)
                for part in parts
            ]
        )

    ends = joined(on_all_cores(one, chunks))
    left = np.flatnonzero(~ends.converged_b)
    if not _narrow(points) or not len(left):
        return ends

    def again(b: NDArray[np.intp]) -> Solution:
        return refine(points.among(b), np.asarray(weights_nb[:, b], dtype=float), ends.theta_pb[:, b])

    rest = joined(on_all_cores(again, [part for part in np.array_split(left, len(usable_cores())) if len(part)]))
    for old, new in zip(vars(ends).values(), vars(rest).values()):
        old[..., left] = new
    return ends


def _from_start(points: ChinchillaPoints, weights_nb: Array, start_pb: Array, also_p: Array | None) -> Solution:
    """Each problem from its start, or from `also_p` (5,) where that is lower."""
    if also_p is None:
        return _refine_most(points, weights_nb, start_pb)
    other = np.repeat(also_p[:, None], weights_nb.shape[1], axis=1)
    lower = objective(points, weights_nb, other) < objective(points, weights_nb, start_pb)
    start_pb = np.where(lower, other, start_pb)
    return _refine_most(points, weights_nb, start_pb, near=lower & (len(weights_nb) >= MANY))


def _from_law_of_all(
    points: ChinchillaPoints, weights_nb: Array, start_pb: Array, also_p: Array, at_also: tuple[Array, ...]
) -> Solution:
    """`_from_start` where `at_also`, objective, gradient and Hessian at `also_p`, are known: the first step is free."""
    lower = at_also[0] < objective(points, weights_nb, start_pb)
    start_pb = np.where(lower, also_p[:, None], start_pb)
    return descend(points, weights_nb, start_pb, near=lower, at_start=at_also if lower.all() else None)


def joined(parts: list[Solution]) -> Solution:
    """The solutions of several sets of problems as one."""
    return Solution(
        np.concatenate([p.theta_pb for p in parts], axis=1),
        np.concatenate([p.objective_b for p in parts]),
        np.concatenate([p.gradient_b for p in parts]),
        np.concatenate([p.converged_b for p in parts]),
    )
