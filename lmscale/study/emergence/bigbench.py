"""Breakthroughness and linearity as BIG-bench defines them (Srivastava 2022, arXiv 2206.04615, appendix B).

Baselines to stand beside a class, no tests: they know no noise, so few examples alone make a curve look abrupt, and
they grow with the number of scales.
"""

import numpy as np

FLOOR = 1e-3
"""Steps are taken to be at least this: a median step of 0 would make any curve infinitely abrupt."""


def normalised(score: np.ndarray, chance: float, ceiling: float = 1.0) -> np.ndarray:
    """100 (score - chance) / (ceiling - chance): 0 is guessing, 100 the best possible."""
    return 100 * (np.asarray(score, float) - chance) / (ceiling - chance)


def breakthroughness(score_S: np.ndarray) -> float:
    """Signed range over the root of the median squared step; scores sorted by scale."""
    return _range(score_S) / max(float(np.sqrt(np.median(np.diff(score_S) ** 2))), FLOOR)


def linearity(score_S: np.ndarray) -> float:
    """Signed range over the root of the mean squared step."""
    return _range(score_S) / max(float(np.sqrt(np.mean(np.diff(score_S) ** 2))), FLOOR)


def _range(score_S: np.ndarray) -> float:
    score_S = np.asarray(score_S, float)
    return float(np.sign(score_S.argmax() - score_S.argmin()) * np.ptp(score_S))
