"""The closed-form grid: for fixed (alpha, beta) the law L = E + A/N^alpha + B/D^beta is linear in (E, A, B).

Variable projection (Golub and Pereyra 1973, doi 10.1137/0710036): every pair of exponents of a grid is solved by least
squares, for many weightings at once, so that the best cells are starts from which the minimum is global.
Axes: n runs, b problems (weightings), the problem index last.
"""

import numpy as np

from lmscale.study.fits.solvers.chinchilla_points import LOWEST, Array, ChinchillaPoints


def exponent_grid(size: int, low: float = 0.02, high: float = 2.0) -> Array:
    """Exponents spaced evenly in ln between `low` and `high`: every published alpha and beta lies well inside."""
    return np.geomspace(low, high, size)


def powers(points: ChinchillaPoints, alphas: Array, betas: Array) -> tuple[Array, Array]:
    """N^-alpha and D^-beta of every run or cell, (a, m) and (c, m)."""
    return np.exp(-np.outer(alphas, points.x_m)), np.exp(-np.outer(betas, points.y_m))


def project(
    points: ChinchillaPoints, weights_nb: Array, alphas: Array, betas: Array, known: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Least squares for (E, A', B') at every pair of exponents.

    Residuals of L are divided by L where the fit is of ln L, to first order the same residual. Returns the
    coefficients (3, g, b) and the residual sum of squares (g, b), infinite where A' or B' is not positive;
    g runs over the pairs, alphas slowest. `known` are the `powers`, where they are.
    """
    u_an, v_cn = known or powers(points, alphas, betas)
    loss_nb = points.loss_nb
    scaled_nb = weights_nb / loss_nb**2 if points.log_residual else weights_nb
    target_nb = scaled_nb * loss_nb
    pairs, problems = len(alphas) * len(betas), weights_nb.shape[1]

    # Moments of every column with every other, for all problems: one matrix product.
    s11, s1t, stt = (moment.sum(axis=0) for moment in (scaled_nb, target_nb, target_nb * loss_nb))
    scaled_nb, target_nb = points.sums(scaled_nb), points.sums(target_nb)
    s1u, suu, sut = u_an @ scaled_nb, u_an**2 @ scaled_nb, u_an @ target_nb
    s1v, svv, svt = v_cn @ scaled_nb, v_cn**2 @ scaled_nb, v_cn @ target_nb
    suv = np.stack([(u_n * v_cn) @ scaled_nb for u_n in u_an])  # never every pair of every run at once

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
    # Where the constant comes out negative it is 0, and the other two are solved without it.
    suu, svv, sut, svt = suu[:, None], svv[None], sut[:, None], svt[None]
    determinant = suu * svv - suv**2
    with np.errstate(divide="ignore", invalid="ignore"):
        alone_a = (sut * svv - svt * suv) / determinant
        alone_b = (svt * suu - sut * suv) / determinant
        remainder = stt - alone_a * sut - alone_b * svt
    usable = (level <= 0) & (determinant > 1e-13 * suu * svv) & (alone_a > 0) & (alone_b > 0)
    residual = np.where(usable, remainder, residual)
    scale_a, scale_b = np.where(usable, alone_a, scale_a), np.where(usable, alone_b, scale_b)
    level = np.where(usable, np.exp(LOWEST), level)
    return np.stack([level, scale_a, scale_b]).reshape(3, pairs, problems), residual.reshape(pairs, problems)


def grid_starts(
    points: ChinchillaPoints, weights_nb: Array, size: int, keep: int, known: tuple[Array, Array] | None = None
) -> Array:
    """theta of the `keep` best grid cells of each problem, (5, keep, b), best first; `known` as `project` takes them.

    Where no cell has three positive coefficients (the data do not curve), a mild law through the mean loss stands in.
    """
    axis = exponent_grid(size)
    coefficients, residual = project(points, weights_nb, axis, axis, known)
    best = residual.argmin(axis=0)[None] if keep == 1 else np.argsort(residual, axis=0, kind="stable")[:keep]
    alphas, betas = np.repeat(axis, size)[best], np.tile(axis, size)[best]
    chosen = np.take_along_axis(coefficients, best[None], axis=1)
    solved = np.isfinite(np.take_along_axis(residual, best, axis=0))
    stand_in = np.array([0.6, 0.2, 0.2])[:, None, None] * points.loss_nb.mean(axis=0)
    theta = np.concatenate(
        [
            np.log(np.where(solved, chosen, stand_in)),
            np.where(solved, alphas, 0.3)[None],
            np.where(solved, betas, 0.3)[None],
        ]
    )
    return np.asarray(theta)
