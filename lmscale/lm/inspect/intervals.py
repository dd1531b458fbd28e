"""Bootstrap intervals of means over prompts, for many units at once.

Letters: N prompts, E units, R resamples.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
UNITS_AT_ONCE = 4096
"""Units whose resampled means are held at once."""

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and the bounds of its interval, each [E]."""

    mean: Floats
    low: Floats
    high: Floats


def bootstrap_mean(values_NE: Floats, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> Interval:
    """Means over prompts with percentile intervals (Efron 1979): prompts are drawn with replacement, the same ones for
    all units. With one prompt the interval has no width, which says nothing of other prompts."""
    return bootstrap_ratio(values_NE, np.ones(len(values_NE)), seed, resamples, level)


def bootstrap_ratio(
    above_NE: Floats, below_N: Floats, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """Ratios of two means over the same prompts, with percentile intervals; NaN where the lower mean is 0."""
    above_NE, below_N = np.asarray(above_NE, np.float64), np.asarray(below_N, np.float64)
    count = len(below_N)
    draws_RN = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples) / count
    tails = (1 - level) / 2, (1 + level) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = above_NE.mean(axis=0) / below_N.mean()
        lower_R1 = (draws_RN @ below_N)[:, None]
        bounds = [
            np.quantile((draws_RN @ above_NE[:, first : first + UNITS_AT_ONCE]) / lower_R1, tails, axis=0)
            for first in range(0, above_NE.shape[1], UNITS_AT_ONCE)
        ]
    low, high = np.concatenate(bounds, axis=1)
    return Interval(mean, low, high)
