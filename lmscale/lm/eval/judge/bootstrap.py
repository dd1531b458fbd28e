"""Intervals by the bootstrap: units (texts, prompts, pairs) are drawn again and again, the statistic is taken anew."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
MOST_WITHOUT_VALUE = 0.05
"""Where more draws than this share have no value (one rater is missing, say), there is no interval."""
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, percentiles of the bootstrap; None where there is none."""

    value: float
    low: float | None
    high: float | None
    units: int
    """How many were drawn from."""

    def __str__(self) -> str:
        """ ".43 [.31, .55]" """
        return f"{number(self.value)}{self.interval}"

    @property
    def interval(self) -> str:
        """ " [.31, .55]", or nothing."""
        return "" if self.low is None or self.high is None else f" [{number(self.low)}, {number(self.high)}]"

    def to_json(self) -> dict[str, Any]:
        """NaN is None."""
        return {**vars(self), "value": self.value if np.isfinite(self.value) else None}


def number(value: float) -> str:
    """Two digits behind the point."""
    return "-" if np.isnan(value) else f"{value:.2f}"


def estimate(statistic: Callable[[Indices], float], units: int, resamples: int, seed: int) -> Estimate:
    """The statistic of all units, and where it lies when units are drawn anew.

    `statistic` takes the numbers of units, some of them several times, and gives NaN where they have no value.
    """
    value = statistic(np.arange(units))
    if units < 2 or np.isnan(value):
        return Estimate(value, None, None, units)
    rng = np.random.default_rng(seed)
    draws = np.array([statistic(rng.integers(0, units, units)) for _ in range(resamples)])
    if np.isnan(draws).mean() > MOST_WITHOUT_VALUE:
        return Estimate(value, None, None, units)
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), units)
