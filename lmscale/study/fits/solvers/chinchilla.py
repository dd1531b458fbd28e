"""Exact minima of `sum_i w_i rho(r_i)` for L = E + A/N^alpha + B/D^beta, many weightings at once.

Two steps, so that the answer is global by construction and exact. `chinchilla_grid.py` solves a grid of exponents in
closed form. The best cells are then refined here by Newton steps with exact first and second derivatives; least
absolute deviations goes by way of vertices (`chinchilla_vertex.py`).

Axes: n runs, p = 5 unknowns, b problems solved together (starts, or resamples). The problem index comes last, so
every operation is a long contiguous loop, and a resample is a column of weights, never a gather.
"""

import concurrent.futures
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmscale.core.host import usable_cores
from lmscale.study.fits.solvers.chinchilla_grid import grid_starts
from lmscale.study.fits.solvers.chinchilla_points import LOWEST, UNKNOWNS, Array, ChinchillaPoints
from lmscale.study.fits.solvers.chinchilla_vertex import height, residual, through_runs
from lmscale.study.fits.solvers.newton import solve_positive

CHUNK = 128  # problems that share the products of the grid
REFINED = 32_768  # numbers in a temporary of problems refined together, so that a dozen of them stay in a core's cache
LEAST = 8  # problems refined together, however many runs they have
MANY = 1_000  # runs from which on the law of all lies so near to that of a resample that Newton steps lead there
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


def evaluate(points: ChinchillaPoints, weights_nb: Array, theta_pb: Array, mix_b: Array) -> tuple[Array, Array, Array]:
    """Objective (b,), gradient (5, b) and the matrix of the next step (5, 5, b).

    The matrix is `(1 - mix) * Hessian + mix * M`, where M is the positive semidefinite matrix of iteratively
    reweighted least squares (each residual weighted by rho'(r)/r). Where M alone steps, the objective falls for any
    nearly linear law; where the Hessian alone steps, convergence is quadratic once the set |r| <= delta is right.
    """
    e, a, b, alpha, beta = theta_pb
    x, y = points.x_n[:, None], points.y_n[:, None]
    first = np.exp((a - e) - alpha * x)
    second = np.exp((b - e) - beta * y)
    total = 1 + first + second
    if points.log_residual:
        misfit = np.log(total)
        misfit += e - np.log(points.loss_nb)
        share_1, share_2 = first / total, second / total
        share_0 = 1 / total
    else:
        level = np.exp(e)
        misfit = level * total - points.loss_nb
        share_1, share_2, share_0 = level * first, level * second, np.broadcast_to(level, first.shape)

    if points.squared:
        slope = 2 * misfit
        value = np.einsum("nb,nb->b", weights_nb, misfit**2)
        curvature = reweighted = np.full_like(misfit, 2.0)
    else:
        size = np.abs(misfit)
        delta = points.delta
        slope = np.clip(misfit, -delta, delta)
        value = np.einsum("nb,nb->b", weights_nb, slope * (misfit - 0.5 * slope))
        curvature = (size <= delta).astype(float)
        reweighted = delta / np.maximum(size, delta) if mix_b.any() else curvature

    # Second derivatives of a residual: of ln L, Z^T (diag(share) - share share^T) Z; of L, Z^T diag(share) Z.
    exact = curvature - slope if points.log_residual else curvature
    outer = weights_nb * (exact + mix_b * (reweighted - exact) if mix_b.any() else exact)
    slope = weights_nb * slope
    diagonal = (1 - mix_b) * slope if mix_b.any() else slope

    design = np.stack(
        [np.ones_like(points.x_n), points.x_n, points.y_n, points.x_n**2, points.y_n**2, points.x_n * points.y_n]
    )
    gradient_1, gradient_2 = slope * share_1, slope * share_2
    q00 = outer * share_0
    q01, q02 = q00 * share_1, q00 * share_2
    outer_1 = outer * share_1
    q12 = outer_1 * share_2
    q11 = outer_1 * share_1 + diagonal * share_1
    q22 = outer * share_2**2 + diagonal * share_2
    q00 = q00 * share_0 + diagonal * share_0

    g0 = np.einsum("nb,nb->b", slope, share_0)
    g1 = design[:2] @ gradient_1
    g2 = design[[0, 2]] @ gradient_2
    gradient = np.stack([g0, g1[0], g2[0], -g1[1], -g2[1]])
    m00 = q00.sum(axis=0)
    m01, m02 = design[:2] @ q01, design[[0, 2]] @ q02
    m11, m22 = design[[0, 1, 3]] @ q11, design[[0, 2, 4]] @ q22
    m12 = design[[0, 1, 2, 5]] @ q12
    matrix = np.empty((UNKNOWNS, UNKNOWNS, theta_pb.shape[1]))
    upper = {
        (0, 0): m00,
        (0, 1): m01[0],
        (0, 2): m02[0],
        (0, 3): -m01[1],
        (0, 4): -m02[1],
        (1, 1): m11[0],
        (1, 2): m12[0],
        (1, 3): -m11[1],
        (1, 4): -m12[2],
        (2, 2): m22[0],
        (2, 3): -m12[1],
        (2, 4): -m22[1],
        (3, 3): m11[2],
        (3, 4): m12[3],
        (4, 4): m22[2],
    }
    for (i, j), entry in upper.items():
        matrix[i, j] = matrix[j, i] = entry
    return value, gradient, matrix


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


def objective(points: ChinchillaPoints, weights_nb: Array, theta_pb: Array) -> Array:
    """The objective of `evaluate` alone, (b,)."""
    size = residual(points, theta_pb)
    if points.squared:
        return np.asarray(np.einsum("nb,nb->b", weights_nb, size**2))
    np.abs(size, out=size)
    inside = np.minimum(size, points.delta)
    size -= 0.5 * inside
    size *= inside
    return np.asarray(np.einsum("nb,nb->b", weights_nb, size))


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
) -> Solution:
    """`refine` at one threshold; problems that are done leave the batch. `near`, of all or each, begins with Newton."""
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
    for _ in range(steps):
        mix_used = mix
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            trial, gradient, matrix = evaluate(points, weights, theta, mix_used)
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
    chunks = [slice(start, start + CHUNK) for start in range(0, problems, CHUNK)]

    together = max(LEAST, REFINED // len(weights_nb))

    def one(chunk: slice) -> Solution:
        weights, those = np.asarray(weights_nb[:, chunk], dtype=float, order="C"), points.among(chunk)
        starts = grid_starts(those, weights, grid, 1)[:, 0]
        parts = [slice(start, start + together) for start in range(0, weights.shape[1], together)]
        return _joined(
            [
                _from_start(those.among(part), np.ascontiguousarray(weights[:, part]), starts[:, part], also_p)
                for part in parts
            ]
        )

    with concurrent.futures.ThreadPoolExecutor(len(usable_cores())) as pool:
        ends = _joined(list(pool.map(one, chunks)))
        left = np.flatnonzero(~ends.converged_b)
        if _narrow(points) and len(left):
            parts = [part for part in np.array_split(left, len(usable_cores())) if len(part)]
            again = _joined(
                list(
                    pool.map(
                        lambda b: refine(
                            points.among(b), np.asarray(weights_nb[:, b], dtype=float), ends.theta_pb[:, b]
                        ),
                        parts,
                    )
                )
            )
            for old, new in zip(vars(ends).values(), vars(again).values()):
                old[..., left] = new
    return ends


def _from_start(points: ChinchillaPoints, weights_nb: Array, start_pb: Array, also_p: Array | None) -> Solution:
    """Each problem from its start, or from `also_p` (5,) where that is lower."""
    if also_p is not None:
        other = np.repeat(also_p[:, None], weights_nb.shape[1], axis=1)
        lower = objective(points, weights_nb, other) < objective(points, weights_nb, start_pb)
        start_pb = np.where(lower, other, start_pb)
        return _refine_most(points, weights_nb, start_pb, near=lower & (len(weights_nb) >= MANY))
    return _refine_most(points, weights_nb, start_pb)


def _joined(parts: list[Solution]) -> Solution:
    return Solution(
        np.concatenate([p.theta_pb for p in parts], axis=1),
        np.concatenate([p.objective_b for p in parts]),
        np.concatenate([p.gradient_b for p in parts]),
        np.concatenate([p.converged_b for p in parts]),
    )
