"""A power law through points, by closed forms: a weighted straight line in logarithms, and a loss that levels off.

Axes: k points, r draws; the draw index last.
"""

import math
from typing import Any

import numpy as np


def regress(log_flops: np.ndarray, y_kr: np.ndarray, weights_kr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes (r,) and intercepts (r,) of weighted straight lines; weights (k, 1) or (k, r), zero leaves a point out."""
    total = weights_kr.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN where fewer than two points have a weight
        middle = (weights_kr * log_flops[:, None]).sum(axis=0) / total
        centred = weights_kr * (log_flops[:, None] - middle)
        slope = (centred * y_kr).sum(axis=0) / (centred * (log_flops[:, None] - middle)).sum(axis=0)
        return slope, (weights_kr * y_kr).sum(axis=0) / total - slope * middle


def loss_through(flops: np.ndarray, loss_kr: np.ndarray, weights_kr: np.ndarray | None = None) -> tuple[Any, Any, Any]:
    """(E, A, gamma), each (r,), of L* = E + A (C/1e18)^-gamma by least squares through k points.

    For fixed gamma the law is linear, so 200 values of gamma in 0.01-1 are scanned; E is not negative. Two budgets fix
    fix only a pure power law (E = 0), none fixes nothing (NaN).
    """
    if not len(flops):
        return tuple(np.full(loss_kr.shape[1], math.nan) for _ in range(3))  # type: ignore[return-value]
    weights = np.ones_like(loss_kr) if weights_kr is None else np.broadcast_to(weights_kr, loss_kr.shape)
    centre = float(np.log(flops).mean())
    gammas = np.geomspace(0.01, 1.0, 200)
    terms = np.exp(-gammas[:, None] * (np.log(flops) - centre))
    count, x, xx = weights.sum(axis=0), terms @ weights, terms**2 @ weights
    y, xy = (weights * loss_kr).sum(axis=0), terms @ (weights * loss_kr)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (xy - x * y / count) / (xx - x * x / count)
        level = (y - slope * x) / count
        pure = (level < 0) | (len(flops) < 3)
        slope, level = np.where(pure, xy / xx, slope), np.where(pure, 0.0, level)
        error = slope**2 * xx + level**2 * count - 2 * slope * xy - 2 * level * y + 2 * slope * level * x
    error = np.where(np.isfinite(error) & (slope > 0), error, math.inf)
    best, columns = error.argmin(axis=0), np.arange(loss_kr.shape[1])
    gamma = gammas[best]
    return level[best, columns], slope[best, columns] * np.exp(gamma * (centre - math.log(1e18))), gamma
