"""How the runs of a fit are drawn anew: every resample is a column of weights, one weight per run.

Two classical bootstraps, equal for many runs. "runs" draws whole runs with replacement (whole-number weights, Efron
1979). "weights" keeps every run and gives it an exponential weight of mean one: the Bayesian bootstrap (Rubin 1981,
doi 10.1214/aos/1176345338), for least absolute deviations and other M-estimates Rao and Zhao 1992 (Sankhya A 54) and
Jin, Ying and Wei 2001 (doi 10.1093/biomet/88.2.381).

With few runs they differ. Drawing whole runs leaves out a third of them, which widens every resample's law. By squares
that makes up for residuals that are smaller than the noise (n runs less p parameters). Absolute deviations need no such
help, since a law through p runs depends on the signs of the others, not on their size: there it only makes intervals
too wide. So "auto" takes weights for few runs under a loss near absolute deviations. Of 400 simulated sweeps, noise
0.003, the 95 % interval of E, alpha, beta, a, N* and L* ten times above the runs held the truth in (least, most):

    runs, design               Huber, delta = 1e-3     squares
    21, IsoFLOP 3 x 7          0.948-0.953             0.938-0.970
    35, IsoFLOP 5 x 7          0.955-0.965             0.930-0.955
    64, grid 8 x 8             0.960-0.980             0.943-0.955
    15, IsoFLOP 3 x 5          0.950-0.975             0.965-0.990: too wide, and a status says so
    21, the other bootstrap    0.970-0.983             0.830-0.873

`python experiments/bench_fits.py --coverage 400` prints this and the same at noise 0.01, where Huber holds 0.960-0.985.

By absolute deviations both stay somewhat too wide at this size: a resample's law goes through p of the runs, so its
spread hangs on the gaps between the few residuals next to zero, and the error of a bootstrap that does not smooth them
falls only as n^-1/4 (De Angelis, Hall and Young 1993, JASA 88, 1310). Of 120 simulated sweeps of the 64-run grid, noise
0.003, 200 resamples each, weights held the truth in 0.967-0.992 (mean of the six 0.974) and whole runs in 0.958-1.000
(0.981), with intervals 1.10 and 1.14 times as wide as those of losses drawn about the law with the true noise, which
held it in 0.900-0.950 (0.932). Smoothed residuals held it in 0.917-0.942, but they take the law for true and the noise
for the same in every run, which runs and weights do not: no interval is narrowed that way unasked.

A third bootstrap, "noise", keeps the runs and draws their losses anew (`seed_noise.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.study.fits.results.common import Status
from lmscale.study.fits.runs import UsableRuns
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.grouping import SCALES, group_values

SMALL = 100  # from here on the two agree, and drawing runs is what the literature prints
MOSTLY_ABSOLUTE = 0.5  # below this share of residuals inside delta, the Huber loss is nearer to absolute deviations
FEW = 4  # runs per parameter below which drawing whole runs widens more than squares need
DRAWN_TOGETHER = 2**22  # random numbers that are held at once
PART = 2**26  # weights of runs that are held at once: 4000 resamples of 16,000 runs are drawn together
THIN = 2  # independent runs per parameter up to which no bootstrap is to be trusted


def resample(
    problem: Problem,
    values_p: np.ndarray,
    runs: UsableRuns,
    resamples: int,
    *,
    method: str,
    seed: int,
    strata: str | None,
    clusters: str | None,
) -> "Resampling":
    """The bootstrap of a fit, whose weights are drawn when they are asked for.

    `values_p` are the fitted parameters; `strata` and `clusters` name columns as in `loss_law`. Raises `UserError` for
    an unknown column.
    """
    assert method in ("auto", "runs", "weights"), method
    strata_n, clusters_n = labels(runs, strata), labels(runs, clusters)
    units = len(runs) if clusters_n is None else len(np.unique(clusters_n))
    if units == 1:
        raise UserError(
            f"all runs have one value of {clusters!r}: a bootstrap of one cluster always draws the same runs"
        )
    inside = share_inside(problem, values_p)
    if method == "auto":
        small = units < SMALL and problem.loss != "squared"
        method = "weights" if small and inside < MOSTLY_ABSOLUTE else "runs"
        status = _chosen(problem, method, units, inside)
    else:
        status = []
    if units <= THIN * len(problem.free):
        sentence = (
            f"{units} independent runs for {len(problem.free)} parameters: the intervals of so few do not cover the "
            f"truth at their stated rate"
        )
        status.append(Status("small table", sentence, "warning"))
    return Resampling(problem, runs, resamples, method, seed, strata_n, clusters_n, tuple(status))


@dataclass(frozen=True)
class Resampling:
    """How runs are weighted: the method ("runs" or "weights"), and what is drawn."""

    problem: Problem
    runs: UsableRuns
    resamples: int
    method: str
    seed: int
    strata_n: Any
    clusters_n: Any
    statuses: tuple[Status, ...]
    """What a reader should know of the choice of method."""

    def weights(self) -> Iterator[np.ndarray]:
        """The weights (n, r) in parts of at most `PART` numbers, so that 200,000 runs need no gigabyte."""
        rng, size = np.random.default_rng(self.seed), max(1, PART // len(self.runs))
        draw = exponential_weights if self.method == "weights" else resample_counts
        for start in range(0, self.resamples, size):
            count = min(size, self.resamples - start)
            yield draw(rng, len(self.runs), count, self.strata_n, self.clusters_n)

    def rich_enough(self, weights_nr: np.ndarray) -> np.ndarray:
        """Which resamples hold as many distinct points as the law has unknowns (r,): the others fix no law."""
        if self.method == "weights":
            return np.ones(weights_nr.shape[1], dtype=bool)
        return _rich_enough(self.problem, self.runs, weights_nr)


def share_inside(problem: Problem, values_p: np.ndarray) -> float:
    """The share of the free residuals (n - p of n) to which the loss is quadratic."""
    if problem.loss == "squared":
        return 1.0
    delta = problem.delta if problem.loss == "huber" else 0.0
    unknowns = len(problem.free)
    inside = int((np.abs(problem.residuals(values_p)) <= delta).sum())
    return max(0, inside - unknowns) / max(1, problem.runs - unknowns)


def _chosen(problem: Problem, method: str, units: int, inside: float) -> list[Status]:
    if problem.loss == "squared" and units < FEW * len(problem.free):
        sentence = (
            f"whole runs are drawn: by squares, {units} runs for {len(problem.free)} parameters make intervals somewhat"
        )
        return [Status("kind of bootstrap", f"{sentence} too wide", "note")]
    if problem.loss == "squared" or units >= SMALL:
        return []
    share = (
        f"{inside:.0%} of the free residuals lie within delta = {problem.delta:g}" if problem.loss == "huber" else ""
    )
    why = f"fewer than {SMALL} independent runs, and {share or 'absolute deviations'}"
    if method == "weights":
        sentence = f"every run keeps an exponential weight: {why}, where drawing whole runs gives too wide intervals"
    else:
        sentence = f"whole runs are drawn: {why}, where the loss is nearer to squares"
    return [Status("kind of bootstrap", sentence)]


def resample_counts(
    rng: np.random.Generator, runs: int, resamples: int, strata: Any = None, clusters: Any = None
) -> np.ndarray:
    """How often each run enters each resample, (n, R), in a byte each: of 255 runs or more none is drawn 256 times.

    `clusters` (n,) labels runs that share their noise (branches of one trunk, seeds of one cell) and are drawn
    together; `strata` (n,) labels groups whose size every resample keeps (a compute budget).
    """
    cluster, stratum = _groups(runs, strata, clusters)
    counts = np.zeros((runs, resamples), dtype=np.uint8)
    for value in np.unique(stratum):
        inside = stratum == value
        members, of = np.unique(cluster[inside], return_inverse=True)
        together = max(1, DRAWN_TOGETHER // len(members))
        for start in range(0, resamples, together):
            block = slice(start, min(start + together, resamples))
            drawn = _drawn(rng, len(members), block.stop - start)
            if strata is None and clusters is None:  # each run is drawn for itself: nothing is gathered
                counts[:, block] = drawn
            else:
                counts[inside, block] = drawn[of]
    return counts


def _drawn(rng: np.random.Generator, units: int, resamples: int) -> np.ndarray:
    """How often each of so many units is drawn, (units, R), where every resample draws that many."""
    drawn = rng.integers(0, units, size=(resamples, units)) + units * np.arange(resamples)[:, None]
    counts_ru = np.bincount(drawn.reshape(-1), minlength=resamples * units).reshape(resamples, -1)
    return counts_ru.astype(np.uint8).T


def exponential_weights(
    rng: np.random.Generator, runs: int, resamples: int, strata: Any = None, clusters: Any = None
) -> np.ndarray:
    """Exponential weights (n, R): the runs of a cluster share theirs, and the clusters of a stratum sum to their count.

    Labels as in `resample_counts`.
    """
    cluster, stratum = _groups(runs, strata, clusters)
    weights = np.zeros((runs, resamples))
    for value in np.unique(stratum):
        inside = stratum == value
        _, of = np.unique(cluster[inside], return_inverse=True)
        drawn = rng.exponential(size=(int(of.max()) + 1, resamples))
        weights[inside] = (drawn * (len(drawn) / drawn.sum(axis=0)))[of]
    return weights


def _groups(runs: int, strata: Any, clusters: Any) -> tuple[np.ndarray, np.ndarray]:
    cluster = np.arange(runs) if clusters is None else _codes(clusters)
    return cluster, np.zeros(runs, dtype=int) if strata is None else _codes(strata)


def _codes(of: Any) -> np.ndarray:
    return np.unique(np.asarray(of).astype(str), return_inverse=True)[1].reshape(-1)


def labels(runs: UsableRuns, column: str | None) -> Any:
    """The values of a grouping column as text, None for None; a run without a value is a group of its own.

    Budgets, sizes and token counts are grouped first (`grouping.py`). Raises `UserError` that names the nearest column.
    """
    import pandas as pd

    if column is None:
        return None
    if column == "budget":
        column = "flops_budget"
    if column not in runs.table:
        raise UserError(
            f"the table has no column {column!r} to group the bootstrap by"
            f"{nearest(column, map(str, runs.table.columns))}"
        )
    named = runs.table[column]
    if column in SCALES:
        named = pd.Series(group_values(named), index=named.index)
    return np.where(named.notna(), named.astype(str), [f"row {index}" for index in range(len(runs))])


def _rich_enough(problem: Problem, runs: UsableRuns, counts: np.ndarray) -> np.ndarray:
    unknowns = len(problem.free)
    point = runs.table.groupby(list(problem.form.INPUTS), sort=False).ngroup().to_numpy()
    order = np.argsort(point, kind="stable")
    first = np.searchsorted(point[order], np.arange(point.max() + 1))
    together = max(1, DRAWN_TOGETHER // len(point))
    blocks = (counts[:, start : start + together] for start in range(0, counts.shape[1], together))
    present = [(np.maximum.reduceat(block[order], first, axis=0) > 0).sum(axis=0) for block in blocks]
    return np.asarray(np.concatenate(present) >= unknowns)


def thin(good_r: np.ndarray, unknowns: int) -> list[Status]:
    """A warning where some resamples fix no law. Raises `UserError` where all of them do not."""
    if good_r.all():
        return []
    sentence = (
        f"{int((~good_r).sum())} of {len(good_r)} resamples hold fewer than {unknowns} distinct points and are left out"
    )
    if not good_r.any():
        raise UserError(f"{sentence}: the table is too small for a bootstrap; fit with `resamples=0`")
    return [Status("thin resamples", f"{sentence}: intervals are too narrow", "warning")]
