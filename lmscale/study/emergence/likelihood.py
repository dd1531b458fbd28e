"""Piecewise linear curves through noisy scores: the best knot values and their likelihood, for many curves at once.

Axes of arrays: T curves, S scales, G candidate curves (places of a knot), K knot values, R resamples.

A count of correct answers is beta-binomial: models of one size differ by more than the draw of examples, and a rho of
.003 (`curves.RHO`) is what is assumed where no seeds say more. Its quasi-likelihood is the binomial one with
n_eff = n / (1 + (n - 1) rho) examples (Wedderburn 1974, doi 10.1093/biomet/61.3.439; Williams 1982,
doi 10.2307/2347977): the same mean and variance, concave in the knot values, and no special functions. Graded scores
are Gaussian with a known relative weight.
"""

from typing import Literal

import numpy as np

NoiseKind = Literal["binomial", "gaussian"]

EDGE = 1e-4
"""Fitted rates stay this far from 0 and 1, where a single answer would have an infinite weight."""
STEPS = 8
ENOUGH = 1e-4
"""Newton steps end when no knot value moves more than this: the next step would move it by about its square."""


def fit_knots(
    basis_TGSK: np.ndarray, score_TS: np.ndarray, weight_TS: np.ndarray, noise: NoiseKind, steps: int = STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Knot values (T, G, K) and log likelihoods (T, G) of the best curves `basis @ values`.

    `weight_TS` is n_eff (binomial) or 1/variance (Gaussian), 0 where a curve has no such scale. Rates are kept in
    [0, 1] at every knot by projected Newton steps: a line that is clipped at chance would imitate a hinge.
    """
    basis_TGSK = np.broadcast_to(basis_TGSK, (len(score_TS), *basis_TGSK.shape[1:]))
    score_TGS, weight_TGS = score_TS[:, None, :], weight_TS[:, None, :]
    low, high = (EDGE, 1 - EDGE) if noise == "binomial" else (-np.inf, np.inf)
    mean_T = (score_TS * weight_TS).sum(-1) / weight_TS.sum(-1)
    if noise == "binomial":
        mean_T = mean_T.clip(0.02, 0.98)
    values_TGK = np.repeat(np.repeat(mean_T[:, None, None], basis_TGSK.shape[1], 1), basis_TGSK.shape[-1], 2)
    for _ in range(steps if noise == "binomial" else 1):
        mean_TGS = (basis_TGSK @ values_TGK[..., None])[..., 0]
        information_TGS = weight_TGS / (mean_TGS * (1 - mean_TGS)) if noise == "binomial" else weight_TGS
        weighted_TGSK = basis_TGSK * np.broadcast_to(information_TGS, mean_TGS.shape)[..., None]
        slope_TGK = ((score_TGS - mean_TGS)[..., None, :] @ weighted_TGSK)[..., 0, :]
        at_bound_TGK = ((values_TGK <= low) & (slope_TGK < 0)) | ((values_TGK >= high) & (slope_TGK > 0))
        next_TGK = (values_TGK + _newton(basis_TGSK, weighted_TGSK, slope_TGK, at_bound_TGK)).clip(low, high)
        change = float(np.abs(next_TGK - values_TGK).max(initial=0))
        values_TGK = next_TGK
        if change < ENOUGH:
            break
    return values_TGK, log_likelihood((basis_TGSK @ values_TGK[..., None])[..., 0], score_TGS, weight_TGS, noise)


def log_likelihood(mean: np.ndarray, score: np.ndarray, weight: np.ndarray, noise: NoiseKind) -> np.ndarray:
    """The quasi-likelihood of `mean` (..., S), summed over scales; 0 for a curve through every score."""
    if noise == "gaussian":
        return -0.5 * (weight * (score - mean) ** 2).sum(-1)
    from scipy.special import xlogy

    best = xlogy(score, score) + xlogy(1 - score, 1 - score)
    mean = mean.clip(EDGE, 1 - EDGE)
    return (weight * (score * np.log(mean) + (1 - score) * np.log1p(-mean) - best)).sum(-1)


def pearson(mean: np.ndarray, score: np.ndarray, weight: np.ndarray, noise: NoiseKind) -> np.ndarray:
    """Pearson's X^2 of `mean` (..., S): its expectation is the number of scales less the number of parameters."""
    if noise == "gaussian":
        return (weight * (score - mean) ** 2).sum(-1)
    # One answer more or less bounds the variance from below: at a rate of 0 a single success is no miracle.
    inside = mean.clip(EDGE, 1 - EDGE)
    variance = np.maximum(inside * (1 - inside), 0.5 / np.maximum(weight, 1.0))
    return (weight * (score - mean) ** 2 / variance).sum(-1)


def _newton(basis: np.ndarray, weighted: np.ndarray, slope: np.ndarray, at_bound: np.ndarray) -> np.ndarray:
    """Fisher scoring step (T, G, K) in the knot values that are not `at_bound`."""
    curvature = weighted.swapaxes(-1, -2) @ basis
    free = ~at_bound
    knots = slope.shape[-1]
    ridge = 1e-9 * np.trace(curvature, axis1=-2, axis2=-1)[..., None, None] + 1e-12
    curvature = curvature * (free[..., None] & free[..., None, :]) + np.eye(knots) * (at_bound[..., None] + ridge)
    return np.linalg.solve(curvature, (slope * free)[..., None])[..., 0]
