"""Approach 1: the lower envelope of all training curves, and whose size is on it (Hoffmann 2022, section 3.1)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmscale.errors import UserError, nearest
from lmscale.fits import checks
from lmscale.fits.powerfit import PowerFit, loss_through, regress
from lmscale.fits.result import Status, allocation_lines, clean, dropped_lines, status_lines
from lmscale.fits.runs import Runs, compute_model, resample_counts, usable

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("bins", "hull")
BINS = 200


@dataclass(frozen=True)
class Point:
    """One point of the envelope: FLOPs, params, tokens, loss in nats, and the run that reached it."""

    flops: float
    params: float
    tokens: float
    loss_nats: float
    run: str

    def to_json(self) -> dict[str, Any]:
        return clean({**self.__dict__, "tokens_per_param": self.tokens / self.params})


@dataclass(frozen=True, kw_only=True)
class Frontier(PowerFit):
    """N* = G C^a through the envelope; the draws resample whole runs."""

    frontier: tuple[Point, ...]

    approach: ClassVar[str] = "1"
    SOURCE: ClassVar[str] = "Hoffmann 2022, arXiv 2203.15556, section 3.1"
    LOSS_FUNCTION: ClassVar[str] = "squares of ln N*"

    def to_json(self, samples: bool = False) -> dict[str, Any]:
        """As every fit's, with `frontier`."""
        return {**super().to_json(samples), "frontier": [point.to_json() for point in self.frontier]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Frontier":
        """The fit again; new intervals need saved samples."""
        points = tuple(
            Point(*[p[name] for name in ("flops", "params", "tokens", "loss_nats", "run")]) for p in value["frontier"]
        )
        return cls(frontier=points, **cls._fields(value))

    def __str__(self) -> str:
        names = {point.run for point in self.frontier}
        lines = [
            f"Approach 1{': ' + self.name if self.name else ''}: N* = G C^a through {len(self.frontier)} points of the "
            f"envelope "
            f"({self.method}) of {self.n_runs} runs, {len(names)} of which are on it",
            *self._exponent_lines(),
        ]
        if rows := self.allocations():
            lines += allocation_lines(rows, str(self.compute))
        lines += [f"  {note}" for note in self.notes]
        return "\n".join([*lines, *dropped_lines(self.dropped), *status_lines(self.status)])


@dataclass(frozen=True)
class _Curves:
    """Every run's curve: ln C ascending, ln D, loss; one ln N per run."""

    names: tuple[str, ...]
    log_params: np.ndarray
    log_flops: tuple[np.ndarray, ...]
    loss: tuple[np.ndarray, ...]


def frontier(
    table: "pd.DataFrame",
    *,
    method: str = "bins",
    resamples: int = 1000,
    seed: int = 0,
    at: Sequence[float] | None = None,
    bins: int = BINS,
    check: bool = True,
) -> Frontier:
    """The envelope of all runs' curves and its power law. Rows with the same `run` are points of one training curve.

    "bins": at each of `bins` log-spaced budgets the run whose curve, straight in ln C between its points, is lowest; a
    run of one row counts in its own bin; budgets at which a smaller one had a lower loss are not on the envelope.
    "hull": the lower convex hull of all points in (ln C, ln L). The bootstrap draws whole runs.

    Only valid for curves whose schedule ended at each point, or is constant. Raises `UserError` where fewer than three
    points or two model sizes are on the envelope.
    """
    if method not in METHODS:
        raise UserError(f"no envelope is called {method!r}{nearest(method, METHODS)}")
    runs = usable(table, ("params", "flops"))
    curves = _curves(runs)
    edges = np.concatenate(
        [np.concatenate(curves.log_flops).min(keepdims=True), np.concatenate(curves.log_flops).max(keepdims=True)]
    )
    grid = np.linspace(edges[0], edges[1], bins)
    everyone = np.ones((len(curves.names), 1))
    found = _by_bins(curves, grid, everyone) if method == "bins" else _by_hull(curves, everyone)
    log_flops, loss, who, on = (item[:, 0] for item in found)
    on = on.astype(bool)
    if on.sum() < 3 or len(np.unique(curves.log_params[who[on]])) < 2:
        raise UserError(
            f"Approach 1 found {int(on.sum())} points of {len(np.unique(curves.log_params[who[on]]))} model sizes "
            f"on the envelope; "
            f"it needs 3 points and 2 sizes: give the runs' training curves, or fit with --approach 3"
        )
    compute, compute_status = compute_model(runs.table)
    a, shift, curve, objective = _fit(curves, log_flops[:, None], loss[:, None], who[:, None], on[:, None])
    samples = None
    if resamples:
        counts = resample_counts(np.random.default_rng(seed), len(curves.names), resamples)
        drawn = _by_bins(curves, grid, counts) if method == "bins" else _by_hull(curves, counts)
        a_r, shift_r, curve_r, _ = _fit(curves, *drawn)
        good = np.isfinite(a_r)
        samples = {
            "G": np.exp(shift_r[good]),
            "a": a_r[good],
            **{n: v[good] for n, v in zip(("E", "A", "gamma"), curve_r)},
        }
    params = np.exp(curves.log_params[who])
    points = tuple(
        Point(float(c), float(n), float(compute.tokens(c, n)), float(y), curves.names[w])
        for c, n, y, w in zip(np.exp(log_flops[on]), params[on], loss[on], who[on])
    )
    largest = float(np.exp(edges[1]))
    wanted = (
        tuple(at)
        if at is not None
        else tuple(10.0**p for p in range(math.ceil(edges[0] / math.log(10)), math.ceil(edges[1] / math.log(10)) + 1))
    )
    status = [*runs.statuses, compute_status]
    if check:
        status += [
            *_ends(curves, log_flops, who, on, float(a[0])),
            *_schedules(runs, curves),
            *checks.of_training(runs),
            *checks.extrapolation(wanted, largest),
        ]
        if samples is not None and len(samples["a"]) < resamples:
            status.append(
                Status(
                    "bootstrap",
                    f"{resamples - len(samples['a'])} of {resamples} resamples have no envelope of two sizes",
                    "note",
                )
            )
    fit = Frontier(
        G=float(np.exp(shift[0])),
        a=float(a[0]),
        loss_curve=(float(curve[0][0]), float(curve[1][0]), float(curve[2][0])),
        samples=samples,
        method=method,
        objective=float(objective[0]),
        n_runs=len(curves.names),
        largest_flops=largest,
        compute=compute,
        dropped=runs.dropped,
        notes=runs.notes,
        table_hash=runs.digest(),
        at=wanted,
        frontier=points,
    )
    return replace(fit, status=tuple(status))


def _curves(runs: Runs) -> _Curves:
    names, sizes, flops, losses = [], [], [], []
    for name, rows in runs.table.groupby("run", sort=True):
        curve = rows.sort_values("flops", kind="stable")
        if rows["params"].nunique() > 1:
            raise UserError(
                f"run {name!r} has several model sizes: Approach 1 takes rows with the same run as one training curve; "
                f"give each run its own name with --columns run=..."
            )
        names.append(str(name))
        sizes.append(math.log(float(curve["params"].iloc[0])))
        flops.append(np.log(np.asarray(curve["flops"], dtype=float)))
        losses.append(np.asarray(curve["loss_nats"], dtype=float))
    return _Curves(tuple(names), np.array(sizes), tuple(flops), tuple(losses))


def _by_bins(
    curves: _Curves, grid: np.ndarray, counts_nr: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """ln C, loss, the run's index and whether it is on the envelope, each (bins, r)."""
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
    return np.repeat(grid[:, None], loss.shape[1], axis=1), loss, who.astype(int), on


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


def _by_hull(curves: _Curves, counts_nr: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As `_by_bins`, with the hull's corners, padded to the longest hull."""
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
    return x[picked], y[picked], whose[picked], on


def _fit(
    curves: _Curves, log_flops: np.ndarray, loss: np.ndarray, who: np.ndarray, on: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Slope, intercept, (E, A, gamma) and sum of squares, each (r,)."""
    weights = on.astype(float)
    y = curves.log_params[who]
    if np.ptp(log_flops, axis=1).max() == 0:
        slope, shift = regress(log_flops[:, 0], y, weights)
        curve = loss_through(np.exp(log_flops[:, 0]), np.where(on, loss, 1.0), weights)
    else:
        columns = range(y.shape[1])
        lines = [
            regress(log_flops[on[:, c], c], y[on[:, c]][:, [c]], np.ones((int(on[:, c].sum()), 1))) for c in columns
        ]
        slope, shift = (np.array([line[k][0] for line in lines]) for k in (0, 1))
        fits = [loss_through(np.exp(log_flops[on[:, c], c]), loss[on[:, c]][:, [c]]) for c in columns]
        curve = tuple(np.array([fit[k][0] for fit in fits]) for k in range(3))  # type: ignore[assignment]
    residual = np.where(on, y - shift - slope * log_flops, 0.0)
    return slope, shift, curve, (residual**2).sum(axis=0)


def _ends(curves: _Curves, log_flops: np.ndarray, who: np.ndarray, on: np.ndarray, a: float) -> list[Status]:
    """Where the smallest or largest model holds the envelope, no better size was there to be chosen."""
    sizes = curves.log_params[who]
    inner = on & (sizes > curves.log_params.min()) & (sizes < curves.log_params.max())
    share = 1 - inner.sum() / on.sum()
    if inner.sum() < 3:
        return [
            Status(
                "envelope ends",
                "the envelope is held by the smallest and largest models alone: the exponent is arbitrary",
                "warning",
            )
        ]
    slope, _ = regress(log_flops[inner], sizes[inner][:, None], np.ones((int(inner.sum()), 1)))
    return [
        Status(
            "envelope ends",
            f"{100 * share:.0f} % of the envelope belongs to the smallest or largest model; without these "
            f"points a = {float(slope[0]):.4f} instead of {a:.4f}",
            "warning" if share > 0.3 else "note" if share > 0.1 else "ok",
        )
    ]


def _schedules(runs: Runs, curves: _Curves) -> list[Status]:
    columns = {"schedule", "fraction_of_schedule", "portion_steps_elapsed"} & set(map(str, runs.table.columns))
    if max(map(len, curves.loss)) > 1 and not columns:
        return [
            Status(
                "schedules unknown",
                "the curves have points inside a run, and the table does not say whether the learning rate was "
                "constant there: inside a decaying schedule the loss is too high for its compute",
                "warning",
            )
        ]
    return []
