"""Exact minima of `sum_i w_i rho(r_i)` for L = E + A/N^alpha + B/D^beta, many weightings at once.

Two steps, so that the answer is global by construction and exact. For fixed (alpha, beta) the law is linear in
(E, A, B): a grid over the exponents is solved in closed form (variable projection; Golub and Pereyra 1973,
doi 10.1137/0710036). The best cells are then refined by Newton steps with exact first and second derivatives.

Axes: n runs, p = 5 unknowns, b problems solved together (starts, or resamples). The problem index comes last, so
every operation is a long contiguous loop, and a resample is a column of integer weights, never a gather.
The unknowns are theta = (ln E, ln A', ln B', alpha, beta), with A' and B' taken at the table's mean ln N and ln D:
centring takes the near-collinearity of A and alpha out of the Newton system.
"""

import concurrent.futures
import os
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNKNOWNS = 5
CHUNK = 128  # problems refined together: the temporaries of a chunk stay in a core's cache
MAX_STEPS = 150
LAD_DELTA = 1e-8  # least absolute deviations is the Huber loss whose quadratic part is this narrow


@dataclass(frozen=True)
class Points:
    """What is fitted, and how: centred ln N and ln D, losses in nats, residuals of ln L or of L, the loss function.

    `squared` sums r^2; else the Huber loss with threshold `delta` (LAD_DELTA for least absolute deviations).
    """

    x_n: Array
    y_n: Array
    loss_n: Array
    log_residual: bool
    x_mean: float
    y_mean: float
    squared: bool = False
    delta: float = 1e-3

    @classmethod
    def of(
        cls,
        params: Array,
        tokens: Array,
        loss_nats: Array,
        *,
        log_residual: bool = True,
        loss: str = "huber",
        delta: float = 1e-3,
    ) -> "Points":
        x_n, y_n = np.log(params), np.log(tokens)
        x_mean, y_mean = float(x_n.mean()), float(y_n.mean())
        delta = LAD_DELTA if loss == "lad" else delta
        losses = np.asarray(loss_nats, dtype=float)
        return cls(x_n - x_mean, y_n - y_mean, losses, log_residual, x_mean, y_mean, loss == "squared", delta)

    def named(self, theta_pb: Array) -> Array:
        """theta (5, b) as the rows E, A, B, alpha, beta of the law."""
        e, a, b, alpha, beta = theta_pb
        return np.stack([np.exp(e), np.exp(a + alpha * self.x_mean), np.exp(b + beta * self.y_mean), alpha, beta])

    def theta(self, named_pb: Array) -> Array:
        """The inverse of `named`."""
        level, scale_n, scale_d, alpha, beta = named_pb
        return np.stack(
            [np.log(level), np.log(scale_n) - alpha * self.x_mean, np.log(scale_d) - beta * self.y_mean, alpha, beta]
        )


@dataclass
class Solution:
    """theta (5, b), objective (b,), largest component of the gradient (b,), converged or not (b,)."""

    theta_pb: Array
    objective_b: Array
    gradient_b: Array
    converged_b: NDArray[np.bool_]


# ---------------------------------------------------------------------------------------------- the closed-form grid


def exponent_grid(size: int, low: float = 0.02, high: float = 2.0) -> Array:
    """Exponents spaced evenly in ln between `low` and `high`: every published alpha and beta lies well inside."""
    return np.geomspace(low, high, size)


def project(points: Points, weights_nb: Array, alphas: Array, betas: Array) -> tuple[Array, Array]:
    """Least squares for (E, A', B') at every pair of exponents.

    Residuals of L are divided by L where the fit is of ln L, to first order the same residual. Returns the
    coefficients (3, g, b) and the residual sum of squares (g, b), infinite where a coefficient is not positive;
    g runs over the pairs, alphas slowest.
    """
    u_an = np.exp(-np.outer(alphas, points.x_n))
    v_cn = np.exp(-np.outer(betas, points.y_n))
    scale_n = 1 / points.loss_n if points.log_residual else np.ones_like(points.loss_n)
    target_n, one_n = points.loss_n * scale_n, scale_n
    u_an, v_cn = u_an * scale_n, v_cn * scale_n
    pairs, problems = len(alphas) * len(betas), weights_nb.shape[1]

    # Moments of every column with every other, for all problems: one matrix product.
    s11, s1t, stt = np.stack([one_n**2, one_n * target_n, target_n**2]) @ weights_nb
    s1u, suu, sut = (moment @ weights_nb for moment in (u_an * one_n, u_an**2, u_an * target_n))
    s1v, svv, svt = (moment @ weights_nb for moment in (v_cn * one_n, v_cn**2, v_cn * target_n))
    suv = ((u_an[:, None] * v_cn).reshape(pairs, -1) @ weights_nb).reshape(len(alphas), len(betas), problems)

    # Eliminate the constant, then solve the 2 x 2 system by Cramer's rule; centring makes the terms of one size.
    m1u, m1v, mt = s1u / s11, s1v / s11, s1t / s11
    cuu, cvv = (suu - s1u * m1u)[:, None], (svv - s1v * m1v)[None]
    cuv = suv - s1u[:, None] * m1v[None]
    cut, cvt = (sut - s1u * mt)[:, None], (svt - s1v * mt)[None]
    determinant = cuu * cvv - cuv**2
    with np.errstate(divide="ignore", invalid="ignore"):
        scale_a = (cut * cvv - cvt * cuv) / determinant
        scale_b = (cvt * cuu - cut * cuv) / determinant
        level = mt - scale_a * m1u[:, None] - scale_b * m1v[None]
        residual = (stt - s1t * mt) - scale_a * cut - scale_b * cvt
    usable = (determinant > 1e-13 * cuu * cvv) & (scale_a > 0) & (scale_b > 0) & (level > 0)
    residual = np.where(usable, residual, np.inf)
    return np.stack([level, scale_a, scale_b]).reshape(3, pairs, problems), residual.reshape(pairs, problems)


def grid_starts(points: Points, weights_nb: Array, size: int, keep: int) -> Array:
    """theta of the `keep` best grid cells of each problem, (5, keep, b), best first.

    Where no cell has three positive coefficients (the data do not curve), a mild law through the mean loss stands in.
    """
    axis = exponent_grid(size)
    coefficients, residual = project(points, weights_nb, axis, axis)
    best = residual.argmin(axis=0)[None] if keep == 1 else np.argsort(residual, axis=0, kind="stable")[:keep]
    alphas, betas = np.repeat(axis, size)[best], np.tile(axis, size)[best]
    chosen = np.take_along_axis(coefficients, best[None], axis=1)
    found = np.isfinite(np.take_along_axis(residual, best, axis=0))
    mean = float(points.loss_n.mean())
    stand_in = np.array([0.6, 0.2, 0.2])[:, None, None] * mean
    theta = np.concatenate(
        [
            np.log(np.where(found, chosen, stand_in)),
            np.where(found, alphas, 0.3)[None],
            np.where(found, betas, 0.3)[None],
        ]
    )
    return np.asarray(theta)


# ------------------------------------------------------------------------------------------------- exact refinement


def evaluate(points: Points, weights_nb: Array, theta_pb: Array, mix_b: Array) -> tuple[Array, Array, Array]:
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
        residual = np.log(total)
        residual += e - np.log(points.loss_n)[:, None]
        share_1, share_2 = first / total, second / total
        share_0 = 1 / total
    else:
        level = np.exp(e)
        residual = level * total - points.loss_n[:, None]
        share_1, share_2, share_0 = level * first, level * second, np.broadcast_to(level, first.shape)

    if points.squared:
        slope = 2 * residual
        objective = np.einsum("nb,nb->b", weights_nb, residual**2)
        curvature = reweighted = np.full_like(residual, 2.0)
    else:
        size = np.abs(residual)
        delta = points.delta
        slope = np.clip(residual, -delta, delta)
        objective = np.einsum("nb,nb->b", weights_nb, slope * (residual - 0.5 * slope))
        curvature = (size <= delta).astype(float)
        reweighted = delta / np.maximum(size, delta)

    # Second derivatives of a residual: of ln L, Z^T (diag(share) - share share^T) Z; of L, Z^T diag(share) Z.
    exact = curvature - slope if points.log_residual else curvature
    outer = weights_nb * (exact + mix_b * (reweighted - exact))
    slope = weights_nb * slope
    diagonal = (1 - mix_b) * slope

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
    for (i, j), value in upper.items():
        matrix[i, j] = matrix[j, i] = value
    return objective, gradient, matrix


def solve_positive(matrix_ppb: Array, right_pb: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Solutions (p, b) of b symmetric systems by Cholesky, and which matrices were safely positive definite.

    The solution of an unsafe system is meaningless and may not be finite.
    """
    with np.errstate(all="ignore"):
        return _cholesky(matrix_ppb, right_pb)


def _cholesky(matrix_ppb: Array, right_pb: Array) -> tuple[Array, NDArray[np.bool_]]:
    size = len(right_pb)
    scale = np.sqrt(np.maximum(np.einsum("iib->ib", matrix_ppb), 1e-300))
    lower: dict[tuple[int, int], Array] = {}
    good = np.ones(right_pb.shape[1], dtype=bool)
    solution = right_pb / scale
    for i in range(size):
        for j in range(i):
            value = matrix_ppb[i, j] / (scale[i] * scale[j])
            for k in range(j):
                value = value - lower[i, k] * lower[j, k]
            lower[i, j] = value / lower[j, j]
        pivot = np.where(matrix_ppb[i, i] > 0, 1.0, 0.0)
        for k in range(i):
            pivot = pivot - lower[i, k] ** 2
        good &= pivot > 1e-11
        lower[i, i] = np.sqrt(np.maximum(pivot, 1e-11))
        for k in range(i):
            solution[i] = solution[i] - lower[i, k] * solution[k]
        solution[i] = solution[i] / lower[i, i]
    for i in reversed(range(size)):
        for k in range(i + 1, size):
            solution[i] = solution[i] - lower[k, i] * solution[k]
        solution[i] = solution[i] / lower[i, i]
    return solution / scale, good


def refine(points: Points, weights_nb: Array, theta_pb: Array) -> Solution:
    """Descend from theta (5, b) to a stationary point of each problem.

    A very narrow threshold (least absolute deviations) is reached through wider ones: each step then starts with nearly
    the right set of runs inside it.
    """
    if not points.squared:
        for delta in (3e-5, 3e-7):
            if delta > 5 * points.delta and points.delta < 1e-5:
                theta_pb = _descend(replace(points, delta=delta), weights_nb, theta_pb).theta_pb
    return _descend(points, weights_nb, theta_pb)


def _descend(points: Points, weights_nb: Array, theta_pb: Array) -> Solution:
    """`refine` at one threshold; problems that are done leave the batch."""
    theta_pb = np.array(theta_pb)
    problems = theta_pb.shape[1]
    objective_b, gradient_b = np.full(problems, np.inf), np.full(problems, np.inf)
    converged_b = np.zeros(problems, dtype=bool)
    active = np.arange(problems)

    theta, weights = theta_pb.copy(), weights_nb
    best, step, scale = theta.copy(), np.zeros_like(theta), np.ones(problems)
    value, slope = np.full(problems, np.inf), np.zeros(problems)
    mix = np.ones(problems)
    largest = np.full(problems, np.inf)
    floor_b = 1e-30 * weights_nb.sum(axis=0)  # noiseless data: the objective itself is rounding error
    for _ in range(MAX_STEPS):
        mix_used = mix
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            trial, gradient, matrix = evaluate(points, weights, theta, mix_used)
        newton, positive = solve_positive(matrix, -gradient)
        with np.errstate(invalid="ignore", over="ignore"):
            newton_slope = np.einsum("pb,pb->b", newton, gradient)
        flat = positive & (mix_used == 0) & (-newton_slope <= 1e-13 * trial + floor_b)
        done = flat & (trial <= value * (1 + 1e-12) + floor_b)
        accept = done | (trial <= value + 1e-4 * scale * slope + 2e-14 * np.abs(value))
        best = np.where(accept, theta, best)
        fall = value - trial
        value = np.where(accept, trial, value)
        usable = accept & positive & (newton_slope <= 0)
        newton = np.where(positive, newton, 0.0)
        newton = newton * np.minimum(1, 2 / np.maximum(np.abs(newton).max(axis=0), 1e-300))
        step = np.where(usable, newton, step)
        slope = np.where(usable, newton_slope, slope)
        largest = np.where(accept, np.abs(gradient).max(axis=0), largest)
        # A refused step is halved; a refused or indefinite Hessian brings the reweighted matrix back.
        scale = np.where(usable, 1.0, np.where(accept, 0.0, scale * 0.4))
        mix = np.where(
            usable, np.where((mix < 0.02) | (fall < 0), 0.0, mix * 0.4), np.where(accept, 1.0, np.minimum(1, mix + 0.1))
        )
        stuck = ~accept & (scale < 1e-9)
        theta = best + scale * step
        if not (leave := done | stuck).any():
            continue
        left = active[leave]
        # Convergence is quadratic there, so the last step is taken without looking whether rounding lets it be seen.
        theta_pb[:, left] = np.where(done, best + newton, best)[:, leave]
        objective_b[left], gradient_b[left], converged_b[left] = value[leave], largest[leave], done[leave]
        stay = ~leave
        if not stay.any():
            break
        active, weights = active[stay], weights[:, stay]
        theta, best, step = theta[:, stay], best[:, stay], step[:, stay]
        value, slope, scale, mix, largest = value[stay], slope[stay], scale[stay], mix[stay], largest[stay]
        floor_b = floor_b[stay]
    else:
        theta_pb[:, active], objective_b[active], gradient_b[active] = best, value, largest
    return Solution(theta_pb, objective_b, gradient_b, converged_b)


def solve_many(
    points: Points,
    weights_nb: Array,
    grid: int = 16,
    also_p: Array | None = None,
) -> Solution:
    """Each problem from its own best grid cell, or from `also_p` (5,) where that is lower; threads share the chunks."""
    problems = weights_nb.shape[1]
    chunks = [slice(start, start + CHUNK) for start in range(0, problems, CHUNK)]

    def one(chunk: slice) -> Solution:
        weights = np.ascontiguousarray(weights_nb[:, chunk])
        start = grid_starts(points, weights, grid, 1)[:, 0]
        if also_p is not None:
            other = np.repeat(also_p[:, None], weights.shape[1], axis=1)
            zero = np.zeros(weights.shape[1])
            lower = evaluate(points, weights, other, zero)[0] < evaluate(points, weights, start, zero)[0]
            start = np.where(lower, other, start)
        return refine(points, weights, start)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(one, chunks))
    return Solution(
        np.concatenate([p.theta_pb for p in parts], axis=1),
        np.concatenate([p.objective_b for p in parts]),
        np.concatenate([p.gradient_b for p in parts]),
        np.concatenate([p.converged_b for p in parts]),
    )
