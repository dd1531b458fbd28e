"""The best levels of rises whose course is given, and their likelihood, for many candidates and resamples at once.

This is where a table's time goes, so `likelihood.fit_knots` is written out: two unknowns have a closed solution, sums
over scales are matrix products, and the scales at which every candidate of a part still has its floor, or has its top
already, enter by their sums alone. Axes: C candidates, R resamples, S scales.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from lmscale.study.emergence.likelihood import EDGE, NoiseKind

STEPS = 5
CHUNK = 400_000
"""Candidates times resamples times scales that are fitted at once: three arrays of 3 MB each."""
NEVER = -1e9
"""Log likelihood of a rise that falls."""


def fit_rises(
    share_CS: np.ndarray,
    score_RS: np.ndarray,
    weight_S: np.ndarray,
    noise: NoiseKind,
    start: tuple[float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Levels (C, R, 2) and log likelihoods (C, R) of rises that follow share_CS, from `start` or the mean score.

    Shares grow along the scales from 0, the floor, to 1, the top.
    """
    average = float((score_RS * weight_S).mean() / weight_S.mean())
    at = np.array(start or (average, average))
    at = np.clip(at, 0.02, 0.98) if noise == "binomial" else np.full(2, average)
    size = max(1, CHUNK // score_RS.size)
    parts = [share_CS[begin : begin + size] for begin in range(0, len(share_CS), size)]
    fits = [_fit_part(part_CS, score_RS, weight_S, noise == "binomial", at) for part_CS in parts]
    levels_CR2, ratio_CR = (np.concatenate(part) for part in zip(*fits))
    if noise == "binomial":
        ratio_CR -= (weight_S * (xlogy(score_RS, score_RS) + xlogy(1 - score_RS, 1 - score_RS))).sum(-1)
    return levels_CR2, np.where(levels_CR2[..., 1] > levels_CR2[..., 0], ratio_CR, NEVER)


@dataclass(frozen=True)
class _Plateau:
    """Scales at which all candidates have one of their levels: sums over them serve for any level."""

    weight: float
    score_R: np.ndarray
    """Sums of weight times score."""
    scatter_R: np.ndarray
    """Weighted squares about the mean score."""

    @classmethod
    def of(cls, score_RS: np.ndarray, weight_S: np.ndarray) -> "_Plateau":
        weight, score_R = float(weight_S.sum()), score_RS @ weight_S
        mean_R = score_R / max(weight, 1e-300)
        return cls(weight, score_R, (score_RS - mean_R[:, None]) ** 2 @ weight_S)

    def add(self, level_CR: np.ndarray, curvature_CR: np.ndarray, slope_CR: np.ndarray, binomial: bool) -> None:
        """Add, in place, the plateau's share of curvature and slope in its level."""
        variance_CR = level_CR * (1 - level_CR) if binomial else 1.0
        curvature_CR += self.weight / variance_CR
        slope_CR += (self.score_R - self.weight * level_CR) / variance_CR

    def log_likelihood(self, level_CR: np.ndarray, binomial: bool) -> np.ndarray:
        """The plateau's share of the likelihood (C, R), for counts without the entropy of the scores."""
        if binomial:
            return np.asarray(self.score_R * np.log(level_CR) + (self.weight - self.score_R) * np.log1p(-level_CR))
        mean_R = self.score_R / max(self.weight, 1e-300)
        return np.asarray(-0.5 * (self.scatter_R + self.weight * (level_CR - mean_R) ** 2))


def _fit_part(
    share_CS: np.ndarray, score_RS: np.ndarray, weight_S: np.ndarray, binomial: bool, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`fit_rises` of candidates whose arrays fit into the processor's cache.

    Three arrays of all candidates are written over and over: making new ones took ten times as long as filling them.
    """
    begin, end = _rising(share_CS)
    floor = _Plateau.of(score_RS[:, :begin], weight_S[:begin])
    top = _Plateau.of(score_RS[:, end:], weight_S[end:])
    share_CS, score_RS, weight_S = share_CS[:, begin:end], score_RS[:, begin:end], weight_S[begin:end]
    basis_CS2 = np.stack([1 - share_CS, share_CS], axis=-1)
    basis_C2S = np.ascontiguousarray(basis_CS2.transpose(0, 2, 1))
    products_CS3 = np.stack([(1 - share_CS) ** 2, (1 - share_CS) * share_CS, share_CS**2], axis=-1)
    low, high = (EDGE, 1 - EDGE) if binomial else (-np.inf, np.inf)
    levels_CR2 = np.empty((len(share_CS), len(score_RS), 2))
    levels_CR2[:] = start
    mean_CRS, information_CRS, pull_CRS = np.empty((3, len(share_CS), *score_RS.shape))
    information_CRS[:] = weight_S
    for _ in range(STEPS if binomial else 1):
        np.matmul(levels_CR2, basis_C2S, out=mean_CRS)
        np.subtract(score_RS, mean_CRS, out=pull_CRS)
        if binomial:
            np.subtract(1, mean_CRS, out=information_CRS)
            np.multiply(information_CRS, mean_CRS, out=information_CRS)
            np.divide(weight_S, information_CRS, out=information_CRS)
        np.multiply(pull_CRS, information_CRS, out=pull_CRS)
        curvature_CR3, slope_CR2 = information_CRS @ products_CS3, pull_CRS @ basis_CS2
        floor.add(levels_CR2[..., 0], curvature_CR3[..., 0], slope_CR2[..., 0], binomial)
        top.add(levels_CR2[..., 1], curvature_CR3[..., 2], slope_CR2[..., 1], binomial)
        _step(levels_CR2, curvature_CR3, slope_CR2, low, high)
    np.matmul(levels_CR2, basis_C2S, out=mean_CRS)
    ratio_CR = floor.log_likelihood(levels_CR2[..., 0], binomial) + top.log_likelihood(levels_CR2[..., 1], binomial)
    if binomial:
        ratio_CR += np.einsum("crs,rs->cr", np.log(mean_CRS, out=pull_CRS), weight_S * score_RS)
        np.negative(mean_CRS, out=mean_CRS)
        ratio_CR += np.einsum("crs,rs->cr", np.log1p(mean_CRS, out=pull_CRS), weight_S * (1 - score_RS))
    else:
        np.subtract(score_RS, mean_CRS, out=pull_CRS)
        ratio_CR += -0.5 * np.einsum("crs,crs,s->cr", pull_CRS, pull_CRS, weight_S)
    return levels_CR2, ratio_CR


def _rising(share_CS: np.ndarray) -> tuple[int, int]:
    """The first scale at which some candidate has left its floor, and the first from which on all have their top."""
    left_S, arrived_S = np.any(share_CS > 0, axis=0), np.all(share_CS == 1, axis=0)
    begin = int(left_S.argmax()) if left_S.any() else len(left_S)
    return begin, max(begin, len(arrived_S) - int(arrived_S[::-1].cumprod().sum()))


def _step(levels_CR2: np.ndarray, curvature_CR3: np.ndarray, slope_CR2: np.ndarray, low: float, high: float) -> None:
    """One step of Fisher scoring, in place; a level that is held at a bound stays there."""
    at_bound_CR2 = ((levels_CR2 <= low) & (slope_CR2 < 0)) | ((levels_CR2 >= high) & (slope_CR2 > 0))
    slope_CR2[at_bound_CR2] = 0
    a, b, c = curvature_CR3.transpose(2, 0, 1)
    b = np.where(at_bound_CR2[..., 0] | at_bound_CR2[..., 1], 0, b)
    ridge = 1e-9 * (a + c) + 1e-12
    a, c = a + ridge, c + ridge
    down, up = slope_CR2.transpose(2, 0, 1)
    determinant = a * c - b * b
    levels_CR2[..., 0] += (c * down - b * up) / determinant
    levels_CR2[..., 1] += (a * up - b * down) / determinant
    np.clip(levels_CR2, low, high, out=levels_CR2)
