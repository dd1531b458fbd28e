"""Approach 1: the lower envelope of all training curves, and the model sizes on it (Hoffmann 2022, section 3.1)."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.fits.approaches.envelope_curves import Curves, bracketed, by_bins, by_hull, curves_of
from lmscale.study.fits.checks import envelope, parametric
from lmscale.study.fits.options import FitOptions, chosen
from lmscale.study.fits.results.common import Status, counted
from lmscale.study.fits.results.frontier import EnvelopePoint, Frontier
from lmscale.study.fits.runs import compute_model, usable
from lmscale.study.fits.solvers.power_law import loss_through, regress
from lmscale.study.fits.uncertainty.bootstrap import resample_counts

if TYPE_CHECKING:
    from lmscale.study.fits.options import TableSource

BINS = 200


def frontier(table: "TableSource", options: FitOptions | None = None, *, bins: int = BINS, **changes: Any) -> Frontier:
    """The envelope of all runs' curves and its power law. Rows with the same `run` are points of one training curve.

    `changes` are fields of `FitOptions`: envelope, resamples, seed, rates, at, check, columns, where.

    "bins": at each of `bins` log-spaced budgets the run whose curve, straight in ln C between its points, is lowest; a
    run of one row counts in its own bin; budgets at which a smaller one had a lower loss are not on the envelope.
    "hull": the lower convex hull of all points in (ln C, ln L). The bootstrap draws whole runs.

    The line goes through the points at whose compute the optimum lies a factor 2 inside the sizes that were run
    (through all, with a warning, where these are too few). Only valid for curves whose schedule ended at each point,
    or is constant. Raises `UserError` where fewer than three points or two model sizes are on the envelope.
    """
    rows, options = chosen("frontier", options, changes).read(table)
    method, resamples = options.envelope, options.count("1")
    runs = usable(rows, ("params", "flops"), rates=options.rates)
    curves = curves_of(runs)
    edges = np.concatenate(
        [np.concatenate(curves.log_flops).min(keepdims=True), np.concatenate(curves.log_flops).max(keepdims=True)]
    )
    if edges[1] - edges[0] < math.log(1.1):
        raise UserError(
            f"Approach 1 needs losses over a range of compute, and all rows lie near {math.exp(edges[0]):.3g} FLOPs: "
            f"give the runs' training curves, or more budgets"
        )
    grid = np.linspace(edges[0], edges[1], bins)
    everyone = np.ones((len(curves.names), 1))
    points = by_bins(curves, grid, everyone) if method == "bins" else by_hull(curves, everyone)
    log_flops, loss, who, on = (item[:, 0] for item in points)
    on = on.astype(bool)
    sizes = len(np.unique(curves.log_params[who[on]]))
    if on.sum() < 3 or sizes < 2:
        raise UserError(
            f"Approach 1 finds {counted(int(on.sum()), 'point')} of {counted(sizes, 'model size')} on the envelope; "
            f"it needs 3 points and 2 sizes: give the runs' training curves, or fit Approach 3"
        )
    compute, compute_status = compute_model(runs.table)
    between = _between(curves, log_flops, loss, who, on)
    used = on if between is None else on & between(log_flops)
    a, shift, curve, objective = _fit(curves, log_flops[:, None], loss[:, None], who[:, None], used[:, None])
    samples = None
    if resamples:
        counts = resample_counts(np.random.default_rng(options.seed), len(curves.names), resamples)
        drawn = by_bins(curves, grid, counts) if method == "bins" else by_hull(curves, counts)
        within = drawn[3] if between is None else drawn[3] & between(drawn[0])
        a_r, shift_r, curve_r, _ = _fit(curves, *drawn[:3], within)
        good = np.isfinite(a_r)
        samples = {
            "G": np.exp(shift_r[good]),
            "a": a_r[good],
            **{n: v[good] for n, v in zip(("E", "A", "gamma"), curve_r)},
        }
    params = np.exp(curves.log_params[who])
    on_envelope = tuple(
        EnvelopePoint(float(c), float(n), float(compute.tokens(c, n)), float(y), curves.names[w], bool(u))
        for c, n, y, w, u in zip(np.exp(log_flops[on]), params[on], loss[on], who[on], used[on])
    )
    largest = float(np.exp(edges[1]))
    stated = (
        options.budgets
        if options.budgets is not None
        else tuple(10.0**p for p in range(math.ceil(edges[0] / math.log(10)), math.ceil(edges[1] / math.log(10)) + 1))
    )
    status = [*runs.statuses, compute_status]
    if options.check:
        status += [
            envelope.ends(curves, log_flops, who, on, None if between is None else used, float(a[0])),
            *envelope.schedules(runs, curves),
            *parametric.of_training(runs),
            *parametric.extrapolation(stated, largest),
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
        seed=options.seed,
        at=stated,
        rates=options.rates,
        frontier=on_envelope,
    )
    return replace(fit, status=tuple(status))


def _between(
    curves: Curves, log_flops: np.ndarray, loss: np.ndarray, who: np.ndarray, on: np.ndarray
) -> Callable[[np.ndarray], np.ndarray] | None:
    """At which ln C the optimum lies well between the sizes that were run there; None where too few points are.

    Elsewhere the best size is the design's. Judged by the line, not by the size that happened to win: leaving out
    points because noise moved their winner to the edge would bend the line.
    """
    inside = on & bracketed(curves, log_flops, curves.log_params[who])
    for _ in range(3):
        if inside.sum() < 3 or len(np.unique(curves.log_params[who[inside]])) < 2:
            return None
        a, shift, _, _ = _fit(curves, log_flops[:, None], loss[:, None], who[:, None], inside[:, None])

        def between(x: np.ndarray, a: float = float(a[0]), shift: float = float(shift[0])) -> np.ndarray:
            return bracketed(curves, x, shift + a * x)

        inside = on & between(log_flops)
    return between if inside.sum() >= 3 and len(np.unique(curves.log_params[who[inside]])) >= 2 else None


def _fit(
    curves: Curves, log_flops: np.ndarray, loss: np.ndarray, who: np.ndarray, on: np.ndarray
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
