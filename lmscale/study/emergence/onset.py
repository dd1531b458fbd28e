"""The scale at which an ability appears: the foot of the rise, with an interval that a parametric bootstrap calibrates.

The onset is the *foot*: the last scale at which the score still has its floor. It is not the scale where a score is
half way up, nor the first model that is significantly above chance: that one comes later, and the later the fewer the
examples.

The foot is profiled over a rise that goes on as a line to the largest scale, over a line that ends half way there, over
one that is steepest at its foot (a root), and over S-shaped ones that end at the largest scale or before; each but the
first costs what BIC takes for one more parameter. The threshold is the median of the normalised
profile, which errs less than its maximum. The interval holds every foot whose log likelihood is within a cut of the
best. With a knot the cut of chi^2 is too low (Feder 1975, doi 10.1214/aos/1176342999), so scores are simulated from the
best curves with their foot at the threshold and at both ends of the chi^2 interval; the cut is the largest of the three
95 % quantiles of the ratio at the foot that they were simulated with.
"""

from dataclasses import dataclass

import numpy as np

from lmscale.study.emergence.likelihood import EDGE, NoiseKind
from lmscale.study.emergence.rise_fit import fit_rises

FEET = np.linspace(0.015, 0.975, 33)
HALF = float(FEET[1] - FEET[0]) / 2
WIDTHS = (1.0, 0.5, 1.0, 1.0, 0.6)
"""Share of the way from the foot to the largest scale that the rise takes: two lines, a root, two S-shapes."""
SHORT_LINE = 1
"""Place in `WIDTHS` of the line that ends half way: the interval knows it, the threshold does not (with it, the median
error is 0.18 decades rather than 0.16 on the synthetic curves, 0.15 rather than 0.20 where rises do end half way)."""
LEVEL = 0.95
CHI2_CUT = 1.9207
"""Half the 95 % quantile of chi^2 with one degree of freedom: no calibrated cut is lower."""


@dataclass(frozen=True)
class Onset:
    """The foot of a rise on u in [0, 1] of the measured range."""

    foot: float
    interval: tuple[float, float]
    cut: float
    """Log likelihood ratio up to which a foot lies in the interval."""
    rise: tuple[np.ndarray, np.ndarray]
    """The best curve: u and score."""


def rises(u_S: np.ndarray) -> np.ndarray:
    """How far each rise has come at u (C, S): 0 at the floor, 1 at the top; C counts widths, then feet."""
    foot_F1 = FEET[:, None]
    line, ramp, root, *shapes = (np.clip((u_S - foot_F1) / (width * (1 - foot_F1)), 0, 1) for width in WIDTHS)
    return np.concatenate([line, ramp, np.sqrt(root), *(share * share * (3 - 2 * share) for share in shapes)])


def find_onset(
    u_S: np.ndarray,
    score_S: np.ndarray,
    weight_S: np.ndarray,
    n_S: np.ndarray,
    noise: NoiseKind,
    resamples: int,
    rng: np.random.Generator,
) -> Onset:
    """The onset of one curve.

    `weight_S` is n_eff (binomial) or 1/variance (Gaussian); `n_S` the examples asked, worth n_eff independent ones.
    With no resamples the cut is that of chi^2.
    """
    share_CS = rises(u_S)
    levels_C2, ratio_C = (values[:, 0] for values in fit_rises(share_CS, score_S[None], weight_S, noise))
    profile_WF = _penalised(ratio_C, len(u_S))
    profile_F = profile_WF.max(0)
    passed_F = np.cumsum(np.exp(np.delete(profile_WF, SHORT_LINE, 0) - profile_F.max()).sum(0))
    foot = float(np.interp(0.5, passed_F / passed_F[-1], FEET + HALF))
    inside = np.flatnonzero(profile_F >= profile_F.max() - CHI2_CUT)
    cut = CHI2_CUT
    if resamples:
        for at in {int(inside[0]), int(np.abs(FEET - foot).argmin()), int(inside[-1])}:
            best_C = int(profile_WF[:, at].argmax()) * len(FEET) + at
            low, high = levels_C2[best_C]
            drawn_RS = draw_scores(low + (high - low) * share_CS[best_C], weight_S, n_S, noise, resamples, rng)
            _, ratio_CR = fit_rises(share_CS, drawn_RS, weight_S, noise, start=(low, high))
            profile_FR = _penalised(ratio_CR, len(u_S)).max(0)
            cut = max(cut, float(np.quantile(profile_FR.max(0) - profile_FR[at], LEVEL)))
        inside = np.flatnonzero(profile_F >= profile_F.max() - cut)
    ends = max(0.0, float(FEET[inside[0]]) - HALF), min(1.0, float(FEET[inside[-1]]) + HALF)
    return Onset(foot, (min(ends[0], foot), max(ends[1], foot)), cut, _curve(profile_WF, levels_C2))


def _curve(profile_WF: np.ndarray, levels_C2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best of all rises, drawn on a fine grid."""
    best_C = int(profile_WF.argmax())
    u, (low, high) = np.linspace(0, 1, 101), levels_C2[best_C]
    return u, low + (high - low) * rises(u)[best_C]


def draw_scores(
    mean_S: np.ndarray,
    weight_S: np.ndarray,
    n_S: np.ndarray,
    noise: NoiseKind,
    resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Scores (R, S) as `mean_S` would give them: beta-binomial of n_S examples worth `weight_S`, or Gaussian."""
    size = (resamples, len(mean_S))
    if noise == "gaussian":
        return rng.normal(mean_S, weight_S**-0.5, size)
    n_S = np.maximum(np.rint(n_S).astype(int), 1)
    rho_S = ((n_S / weight_S - 1) / np.maximum(n_S - 1, 1)).clip(1e-6, 0.95)
    mean_S = mean_S.clip(EDGE, 1 - EDGE)
    strength_S = (1 - rho_S) / rho_S
    return rng.binomial(n_S, rng.beta(mean_S * strength_S, (1 - mean_S) * strength_S, size)) / n_S


def _penalised(ratio: np.ndarray, scales: int) -> np.ndarray:
    """(C, ...) as (W, F, ...), less what BIC takes for a rise that is no line to the end."""
    ratio = ratio.reshape(len(WIDTHS), len(FEET), *ratio.shape[1:]).copy()
    ratio[1:] -= 0.5 * np.log(scales)
    return ratio
