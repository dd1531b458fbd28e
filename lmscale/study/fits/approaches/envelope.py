"""Approach 1: the lower envelope of all training curves, and the model sizes on it (Hoffmann 2022, section 3.1)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lmscale.core.arguments import Count, checked
from lmscale.core.errors import UserError
from lmscale.core.quantities import counted
from lmscale.study.fits.approaches.envelope_curves import Curves, Envelope, bracketed, by_bins, by_hull, curves_of
from lmscale.study.fits.checks import envelope, parametric
from lmscale.study.fits.options import FitOptions, chosen
from lmscale.study.fits.results.common import Status, enough, too_few
from lmscale.study.fits.results.frontier import EnvelopePoint, Frontier
from lmscale.study.fits.runs import compute_model, usable
from lmscale.study.fits.solvers.power_law import loss_through, regress
from lmscale.study.fits.uncertainty.bootstrap import resample_counts
from lmscale.study.grouping import SAME
from lmscale.study.laws import ComputeModel
from lmscale.study.tables import TableSource

BINS = 200


@checked
def frontier(table: TableSource, options: FitOptions | None = None, *, bins: Count = BINS, **changes: Any) -> Frontier:
    """The envelope of all runs' curves and its power law. Rows with the same `run` are points of one training curve.

    `changes` are fields of `FitOptions`: envelope, line, resamples, seed, rates, at, check, columns, where.

    "bins": at each of `bins` log-spaced budgets the run whose curve, straight in ln C between its points, is lowest; a
    run of one row counts in its own bin; budgets at which a smaller one had a lower loss are not on the envelope.
    "hull": the lower convex hull of all points in (ln C, ln L). The bootstrap draws whole runs.

    The line goes through the points at whose compute the optimum lies a factor 2 inside the sizes that were run
    (through all, with a warning, where these are too few), or with `line` "all" through every one. Only valid for
    curves whose schedule ended at each point,
    or is constant. Raises `UserError` where fewer than three points or two model sizes are on the envelope.
    """
    rows, options = chosen("frontier", options, changes).read(table)
    runs = usable(rows, ("params", "flops"), rates=options.rates)
    curves = curves_of(runs)
    low, high = _range(curves)
    grid = np.linspace(low, high, bins)
    lowest = _envelope(curves, options, grid, np.ones((len(curves.names), 1)))
    _check_points(lowest, curves)
    compute, compute_status = compute_model(runs.table)
    between = _between(curves, lowest) if options.line == "inside" else None
    used = lowest if between is None else lowest.where(between(lowest.log_flops))
    a, shift, curve, objective = _fit(curves, used)
    samples, lost = _samples(curves, options, grid, between)
    at = _decades(low, high) if options.budgets is None else options.budgets
    status = [*runs.statuses, compute_status, *lost]
    if options.check:
        on, run = lowest.on[:, 0], lowest.run[:, 0]
        contested = None if between is None else used.on[:, 0]
        status += [
            envelope.through_all(curves, lowest)
            if options.line == "all"
            else envelope.ends(curves, lowest.log_flops[:, 0], run, on, contested, float(a[0])),
            *envelope.schedules(runs, curves),
            *parametric.of_training(runs),
            *parametric.extrapolation(at, float(np.exp(high))),
        ]
    return Frontier(
        G=float(np.exp(shift[0])),
        a=float(a[0]),
        loss_curve=(float(curve[0][0]), float(curve[1][0]), float(curve[2][0])),
        samples=samples,
        method=options.envelope,
        objective=float(objective[0]),
        n_runs=len(curves.names),
        largest_flops=float(np.exp(high)),
        compute=compute,
        status=tuple(status),
        dropped=runs.dropped,
        notes=runs.notes,
        table_hash=runs.digest(),
        size_column=runs.size_column,
        seed=options.seed,
        at=at,
        rates=options.rates,
        frontier=_points(lowest, used, curves, compute),
    )


def _range(curves: Curves) -> tuple[float, float]:
    """The smallest and the largest ln C. Raises `UserError` where there is no range between them."""
    low, high = float(np.concatenate(curves.log_flops).min()), float(np.concatenate(curves.log_flops).max())
    if high - low < math.log(1.1):
        raise UserError(
            f"Approach 1 needs losses over a range of compute, and all rows lie near {math.exp(low):.3g} FLOPs: "
            f"give the runs' training curves, or more budgets"
        )
    return low, high


def _envelope(curves: Curves, options: FitOptions, grid: np.ndarray, counts_nr: np.ndarray) -> Envelope:
    return by_bins(curves, grid, counts_nr) if options.envelope == "bins" else by_hull(curves, counts_nr)


def _check_points(lowest: Envelope, curves: Curves) -> None:
    """Raises `UserError` where too few points are on the envelope for a line."""
    points, sizes = int(lowest.on.sum()), lowest.sizes(curves)
    if points < 3 or sizes < 2:
        raise UserError(
            f"Approach 1 finds {counted(points, 'point')} of {counted(sizes, 'model size')} on the envelope; "
            f"it needs 3 points and 2 sizes: give the runs' training curves, or fit Approach 3"
        )


def _points(lowest: Envelope, used: Envelope, curves: Curves, compute: ComputeModel) -> tuple[EnvelopePoint, ...]:
    """The points of the envelope in plain numbers."""
    on, run = lowest.on[:, 0], lowest.run[:, 0]
    flops, params = np.exp(lowest.log_flops[:, 0]), np.exp(curves.log_params[run])
    return tuple(
        EnvelopePoint(float(c), float(n), float(compute.tokens(c, n)), float(loss), curves.names[index], bool(in_line))
        for c, n, loss, index, in_line in zip(flops[on], params[on], lowest.loss[on, 0], run[on], used.on[on, 0])
    )


def _samples(
    curves: Curves, options: FitOptions, grid: np.ndarray, between: Callable[[np.ndarray], np.ndarray] | None
) -> tuple[dict[str, np.ndarray] | None, list[Status]]:
    """G, a and the loss curve of the resamples that have an envelope of two sizes, and how many have none.

    None where no resamples are asked for, or too few have such an envelope.
    """
    resamples = options.count("1")
    if not resamples:
        return None, []
    counts = resample_counts(np.random.default_rng(options.seed), len(curves.names), resamples)
    drawn = _envelope(curves, options, grid, counts)
    used = drawn if between is None else drawn.where(between(drawn.log_flops))
    a_r, shift_r, curve_r, _ = _fit(curves, used)
    log_params = curves.log_params[used.run]
    smallest = np.where(used.on, log_params, np.inf).min(axis=0)
    largest = np.where(used.on, log_params, -np.inf).max(axis=0)
    good = np.isfinite(a_r) & (largest - smallest > math.log(1 + SAME))
    usable = int(good.sum())
    if not enough(usable, resamples):
        return None, [too_few(usable, resamples, "have an envelope of two sizes")]
    loss_curve = {name: values[good] for name, values in zip(("E", "A", "gamma"), curve_r)}
    samples = {"G": np.exp(shift_r[good]), "a": a_r[good], **loss_curve}
    lost = f"{resamples - usable} of {resamples} resamples have no envelope of two sizes"
    return samples, [Status("bootstrap", lost, "note")] if usable < resamples else []


def _decades(low: float, high: float) -> tuple[float, ...]:
    """Powers of ten from the smallest to the largest ln C."""
    first, last = math.ceil(low / math.log(10)), math.ceil(high / math.log(10))
    return tuple(10.0**power for power in range(first, last + 1))


def _between(curves: Curves, lowest: Envelope) -> Callable[[np.ndarray], np.ndarray] | None:
    """At which ln C the optimum lies well between the sizes that were run there; None where too few points are.

    Elsewhere the best size is the design's. Judged by the line, not by the size that happened to win: leaving out
    points because noise moved their winner to the edge would bend the line.
    """
    inside = lowest.where(bracketed(curves, lowest.log_flops, curves.log_params[lowest.run]))
    for _ in range(3):
        if inside.on.sum() < 3 or inside.sizes(curves) < 2:
            return None
        a, shift, _, _ = _fit(curves, inside)

        def between(x: np.ndarray, a: float = float(a[0]), shift: float = float(shift[0])) -> np.ndarray:
            return bracketed(curves, x, shift + a * x)

        inside = lowest.where(between(lowest.log_flops))
    return between if inside.on.sum() >= 3 and inside.sizes(curves) >= 2 else None


def _fit(
    curves: Curves, points: Envelope
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Slope, intercept, (E, A, gamma) and sum of squares, each (r,)."""
    log_flops, loss, on = points.log_flops, points.loss, points.on
    weights = on.astype(float)
    y = curves.log_params[points.run]
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
