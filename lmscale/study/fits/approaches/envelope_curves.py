"""Training curves and their lower envelope, by bins of compute or by a convex hull.

Axes: n runs, r resamples; the resample index last.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.fits.runs import UsableRuns
from lmscale.study.grouping import group_count

NEAR_FLOPS = math.log(1.3)  # runs whose compute differs by less compete
MARGIN = math.log(2)  # a best size nearer to the smallest or largest size run may be the design's, not the optimum


@dataclass(frozen=True)
class Curves:
    """Every run's curve: ln C ascending, ln D, loss; one ln N per run."""

    names: tuple[str, ...]
    log_params: np.ndarray
    log_flops: tuple[np.ndarray, ...]
    loss: tuple[np.ndarray, ...]


def curves_of(runs: UsableRuns) -> Curves:
    """One curve per name, in the order of names. Raises `UserError` for a name with several model sizes."""
    names, run = np.unique(np.array(runs.names), return_inverse=True)
    log_params, log_flops, loss = np.log(runs.column("params")), np.log(runs.column("flops")), runs.column("loss_nats")
    order = np.lexsort((log_flops, run))
    first = np.searchsorted(run[order], np.arange(1, len(names)))
    sizes, flops, losses = (np.split(values[order], first) for values in (log_params, log_flops, loss))
    for name, of in zip(names, sizes):
        if group_count(np.exp(of)) > 1:
            raise UserError(
                f"run {str(name)!r} has several model sizes: Approach 1 takes rows with the same run as one training "
                f"curve; give each run its own name with `columns='run=...'`"
            )
    return Curves(tuple(map(str, names)), np.array([of[0] for of in sizes]), tuple(flops), tuple(losses))


@dataclass(frozen=True)
class Envelope:
    """Points of r lower envelopes, one per column, (k, r): ln C, loss, index of the run, and whether each is on it."""

    log_flops: np.ndarray
    loss: np.ndarray
    run: np.ndarray
    on: np.ndarray

    def where(self, inside: np.ndarray) -> "Envelope":
        """With only those points on it that are `inside`."""
        return replace(self, on=self.on & inside)

    def sizes(self, curves: Curves) -> int:
        """How many model sizes are on it (the first column)."""
        return group_count(np.exp(curves.log_params[self.run[:, 0][self.on[:, 0]]]))


def by_bins(curves: Curves, grid: np.ndarray, counts_nr: np.ndarray) -> Envelope:
    """At each ln C of `grid` the lowest curve of a run that the resample holds."""
    step = grid[1] - grid[0]
    heights = np.full((len(curves.names), len(grid)), np.inf)
    for index, (x, y) in enumerate(zip(curves.log_flops, curves.loss)):
        if len(x) == 1:
            heights[index, round(float((x[0] - grid[0]) / step))] = y[0]
        else:
            heights[index] = np.interp(grid, x, y, left=np.inf, right=np.inf)
    loss, who = np.empty((2, len(grid), counts_nr.shape[1]))
    order = np.argsort(heights, axis=0, kind="stable")
    ranked = np.take_along_axis(heights, order, axis=0)
    for column in range(counts_nr.shape[1]):
        first = (counts_nr[order, column] > 0).argmax(axis=0)  # the lowest run that this resample holds
        rows = np.arange(len(grid))
        absent = counts_nr[order[first, rows], column] <= 0
        loss[:, column] = np.where(absent, np.inf, ranked[first, rows])
        who[:, column] = order[first, rows]
    best_before = np.minimum.accumulate(np.vstack([np.full((1, loss.shape[1]), np.inf), loss[:-1]]), axis=0)
    on = np.isfinite(loss) & (loss < best_before)
    return Envelope(np.repeat(grid[:, None], loss.shape[1], axis=1), loss, who.astype(int), on)


def bracketed(curves: Curves, log_flops: np.ndarray, log_params: np.ndarray) -> np.ndarray:
    """Whether sizes well below and well above `log_params` were run near each point's compute; shapes as given."""
    low, high = (np.array([end(x) for x in curves.log_flops]) for end in (np.min, np.max))
    points, where = np.unique(log_flops, return_inverse=True)
    there = (points[:, None] >= low - NEAR_FLOPS) & (points[:, None] <= high + NEAR_FLOPS)
    smallest = np.where(there, curves.log_params, np.inf).min(axis=1)[where].reshape(log_flops.shape)
    largest = np.where(there, curves.log_params, -np.inf).max(axis=1)[where].reshape(log_flops.shape)
    return (smallest + MARGIN <= log_params) & (log_params <= largest - MARGIN)


def _lower_hull(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Indices of the falling part of the lower convex hull (Andrew's monotone chain)."""
    hull: list[int] = []
    for i in np.lexsort((y, x)):
        while len(hull) >= 2 and (
            (x[hull[-1]] - x[hull[-2]]) * (y[i] - y[hull[-2]]) <= (y[hull[-1]] - y[hull[-2]]) * (x[i] - x[hull[-2]])
        ):
            hull.pop()
        hull.append(int(i))
    end = int(np.argmin(y[hull])) + 1
    return hull[:end]


def by_hull(curves: Curves, counts_nr: np.ndarray) -> Envelope:
    """The corners of the convex hull in the shape of `by_bins`, padded to the longest hull."""
    # The hull of all points is the hull of the runs' own hulls: few points are left to resample.
    own = [_lower_hull(x, np.log(y)) for x, y in zip(curves.log_flops, curves.loss)]
    x = np.concatenate([curves.log_flops[i][corners] for i, corners in enumerate(own)])
    y = np.concatenate([curves.loss[i][corners] for i, corners in enumerate(own)])
    whose = np.repeat(np.arange(len(own)), [len(corners) for corners in own])
    hulls = []
    for column in range(counts_nr.shape[1]):
        inside = np.flatnonzero(counts_nr[whose, column] > 0)
        hulls.append(inside[_lower_hull(x[inside], np.log(y[inside]))])
    size = max(map(len, hulls))
    picked = np.stack([np.pad(h, (0, size - len(h)), mode="edge") for h in hulls], axis=1)
    on = np.arange(size)[:, None] < np.array([len(h) for h in hulls])[None]
    return Envelope(x[picked], y[picked], whose[picked], on)
