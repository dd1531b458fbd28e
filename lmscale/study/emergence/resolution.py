"""Rare successes: how small a rate a number of samples shows, and the law it follows before accuracy leaves zero.

At greedy decoding a task of 100 items shows nothing below one in a hundred. Sampled until it passes (PASSUNTIL, Hu
2023, arXiv 2310.03262), an item shows a success rate as small as the samples that one can pay for, and the rate of a
task then follows a law long before its accuracy leaves zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lmscale.core.errors import UserError

LEVEL = 0.95


@dataclass(frozen=True)
class Rate:
    """A success rate with its 95 % interval."""

    value: float
    interval: tuple[float, float]


def pass_at_k(samples: Sequence[int], correct: Sequence[int], k: int) -> np.ndarray:
    """The chance that one of k samples is right (items,), unbiased from n samples of which c are.

    The formula is that of Chen 2021 (arXiv 2107.03374).
    Raises `UserError` where an item has fewer than k samples, or more correct ones than samples.
    """
    n, c = np.asarray(samples, float), np.asarray(correct, float)
    if k < 1 or (n < k).any():
        raise UserError(f"pass@{k} needs {k} samples of every item and at least one; the fewest are {n.min():.0f}")
    if (c < 0).any() or (c > n).any():
        raise UserError("an item has between none and all of its samples correct")
    from scipy.special import gammaln

    left = n - c
    with np.errstate(invalid="ignore"):
        none_log = gammaln(left + 1) - gammaln(left - k + 1) - gammaln(n + 1) + gammaln(n - k + 1)
    return np.where(left < k, 1.0, 1 - np.exp(np.where(left < k, 0.0, none_log)))


def pass_until(successes: int, samples: int) -> Rate:
    """The rate of an item that was sampled until its `successes`-th success, which took `samples`.

    Unbiased for two successes or more, (r - 1)/(K - 1) (Girshick 1946); 1/K for one. The interval is exact (negative
    binomial). Raises `UserError` for impossible counts.
    """
    if not 1 <= successes <= samples:
        raise UserError(
            f"{successes} successes in {samples} samples: sampling until a success has one of both at least"
        )
    tail = (1 - LEVEL) / 2
    low = float(stats.beta.ppf(tail, successes, samples - successes + 1))
    high = 1.0 if samples == successes else float(stats.beta.ppf(1 - tail, successes, samples - successes))
    value = 1.0 if samples == successes else (successes - 1) / (samples - 1) if successes > 1 else 1 / samples
    return Rate(value, (low, high))


def resolution(samples: int, level: float = LEVEL) -> float:
    """The smallest rate that shows a success among `samples` with probability `level`: about 3/n at 95 %."""
    if samples < 1 or not 0 < level < 1:
        raise UserError(f"{samples} samples at level {level:g}: give one sample or more and a level between 0 and 1")
    return float(-math.expm1(math.log1p(-level) / samples))


@dataclass(frozen=True)
class RateLaw:
    """-ln(rate) = c N^-alpha (Hu 2023): a rate that comes from nothing without a foot."""

    c: float
    alpha: float
    covariance: np.ndarray
    """Of (ln c, alpha)."""

    def at(self, params: float) -> Rate:
        """The rate at a size, with the 95 % interval of the law."""
        row = np.array([1.0, -math.log(params)])
        centre = math.log(self.c) - self.alpha * math.log(params)
        half = 1.96 * math.sqrt(float(row @ self.covariance @ row))
        low, high = (math.exp(-math.exp(centre + half)), math.exp(-math.exp(centre - half)))
        return Rate(math.exp(-math.exp(centre)), (low, high))


def rate_law(params: Sequence[float], rates: Sequence[float], stderr: Sequence[float]) -> RateLaw:
    """The law through rates (with standard errors) of several sizes: a weighted line of ln(-ln rate) on ln N.

    Raises `UserError` for fewer than three sizes or a rate that is not inside (0, 1): sample on until it passes.
    """
    n, p, error = (np.asarray(values, float) for values in (params, rates, stderr))
    if len(np.unique(n)) < 3:
        raise UserError(f"a law of rates has {len(np.unique(n))} sizes: it needs three or more to have an interval")
    if ((p <= 0) | (p >= 1) | (error <= 0)).any():
        raise UserError("a rate of the law lies inside (0, 1) and has a positive error: sample items until they pass")
    y = np.log(-np.log(p))
    sigma = error / np.abs(p * np.log(p))
    design = np.stack([np.ones_like(n), -np.log(n)], axis=1) / sigma[:, None]
    covariance = np.linalg.inv(design.T @ design)
    log_c, alpha = covariance @ design.T @ (y / sigma)
    chi2 = float(((y - np.stack([np.ones_like(n), -np.log(n)], axis=1) @ (log_c, alpha)) ** 2 / sigma**2).sum())
    widened = max(1.0, chi2 / (len(n) - 2))
    return RateLaw(float(np.exp(log_c)), float(alpha), widened * covariance)
