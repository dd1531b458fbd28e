"""Training curves and their lower envelope, by bins of compute or by a convex hull.

Axes: n runs, r resamples; the resample index last.
"""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.fits.runs import UsableRuns
from lmscale.study.grouping import group_count

NEAR_FLOPS = math.log(1.3)  # runs whose compute differs by less compete
TOGETHER = 32  # runs of one bin that are looked at together
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
        if len(of) > 1 and group_count(np.exp(of)) > 1:
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
    shape = (len(grid), counts_nr.shape[1])
    loss, who = np.full(shape, np.inf), np.zeros(shape, dtype=int)
    bins, runs, heights = _heights(curves, grid)
    order = np.lexsort((runs, heights, bins))
    ends = np.searchsorted(bins[order], np.arange(len(grid) + 1))
    for row, (begin, end) in enumerate(itertools.pairwise(ends)):
        if begin < end:
            ranked = order[begin:end]
            lowest, present = _lowest_present(runs[ranked], counts_nr)
            who[row] = runs[ranked][lowest]
            loss[row] = np.where(present, heights[ranked][lowest], np.inf)
    best_before = np.minimum.accumulate(np.vstack([np.full((1, loss.shape[1]), np.inf), loss[:-1]]), axis=0)
    on = np.isfinite(loss) & (loss < best_before)
    return Envelope(np.repeat(grid[:, None], loss.shape[1], axis=1), loss, who, on)


def _heights(curves: Curves, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bin, run and loss wherever a curve passes a bin, in the order of runs; a run of one row is in its own bin."""
    step = grid[1] - grid[0]
    bins, heights = [], []
    for x, y in zip(curves.log_flops, curves.loss):
        if len(x) == 1:
            bins.append(np.rint((x - grid[0]) / step).astype(int))
            heights.append(y)
        else:
            inside = np.arange(np.searchsorted(grid, x[0]), np.searchsorted(grid, x[-1], side="right"))
            bins.append(inside)
            heights.append(np.interp(grid[inside], x, y))
    return np.concatenate(bins), np.repeat(np.arange(len(bins)), list(map(len, bins))), np.concatenate(heights)


def _lowest_present(ranked: np.ndarray, counts_nr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of the `ranked` runs that each resample holds, as a place among them, and whether there is one (r,).

    `TOGETHER` at a time: a resample lacks so many runs in a row next to never.
    """
    place_r, present_r = np.zeros(counts_nr.shape[1], dtype=int), np.zeros(counts_nr.shape[1], dtype=bool)
    for begin in range(0, len(ranked), TOGETHER):
        left = np.flatnonzero(~present_r)
        if not len(left):
            break
        drawn_kr = counts_nr[np.ix_(ranked[begin : begin + TOGETHER], left)] > 0
        present_r[left] = drawn_kr.any(axis=0)
        place_r[left] = np.where(present_r[left], begin + drawn_kr.argmax(axis=0), 0)
    return place_r, present_r


def bracketed(curves: Curves, log_flops: np.ndarray, log_params: np.ndarray) -> np.ndarray:
    """Whether sizes well below and well above `log_params` were run near each point's compute; shapes as given."""
    low, high = (np.array([x[end] for x in curves.log_flops]) for end in (0, -1))
    points, where = np.unique(log_flops, return_inverse=True)
    sizes = np.array(
        [_sizes_near(curves.log_params[(p >= low - NEAR_FLOPS) & (p <= high + NEAR_FLOPS)]) for p in points]
    )
    smallest, largest = (end[where].reshape(log_flops.shape) for end in sizes.T)
    return (smallest + MARGIN <= log_params) & (log_params <= largest - MARGIN)


def _sizes_near(log_params: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest; an empty range where there is none."""
    return (float(log_params.min()), float(log_params.max())) if len(log_params) else (math.inf, -math.inf)


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
