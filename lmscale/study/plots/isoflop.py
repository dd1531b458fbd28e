"""IsoFLOP valleys: loss against model size at each compute budget, and where it is lowest."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.grouping import group_values
from lmscale.study.plots.axes import log_axis, note, padded, size_name
from lmscale.study.plots.numerals import power
from lmscale.study.plots.rows import held_out_mask, measured_runs
from lmscale.study.plots.style import INK, colour, loss_label
from lmscale.study.tables import size_column

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from lmscale.study.fits import HeldOut, IsoFlop


def valleys(ax: "Axes", table: "pd.DataFrame", fit: "IsoFlop", checked: "HeldOut | None" = None) -> None:
    """Loss against N at every budget, the fitted curve, and its minimum with 80 and 95 % intervals.

    The held-out budget (with `checked`, its own minimum) has open points and a dashed curve; a budget whose minimum
    was rejected has points and no curve.
    """
    runs = measured_runs(table)
    runs = runs[runs["flops_budget"].astype(float).notna()]
    if not len(runs):
        raise UserError("no run states a compute budget: IsoFLOP valleys need the column flops_budget")
    own_budgets = checked.budgets if checked else ()
    stated = [*(one.flops for one in fit.minima), *(one.flops for one in own_budgets)]
    # One grouping for runs, minima and held-out budgets: each may name another value of one group.
    groups = group_values([*runs["flops_budget"].astype(float), *stated])
    run_budgets, known = groups[: len(runs)], groups[len(runs) :]
    budgets = np.unique(run_budgets)
    minima = dict(zip(known, fit.minima))
    own = dict(zip(known[len(fit.minima) :], own_budgets))
    out = held_out_mask(runs)
    for budget in budgets:
        here = run_budgets == budget
        for is_held_out in (False, True):
            part = runs[here & (out == is_held_out)].sort_values("params")
            if not len(part):
                continue
            shade = colour(budgets, float(budget))
            x, y = np.asarray(part["params"], dtype=float), np.asarray(part["loss_nats"], dtype=float)
            ax.plot(x, y, "o", ms=4.5, mfc=INK["paper"] if is_held_out else shade, mec=shade, mew=1.1, zorder=3)
            label = power(float(budget)) + (", held out" if is_held_out else "")
            mark = _minimum_mark(minima.get(float(budget)), own.get(float(budget)), is_held_out)
            if mark is None:
                label += ", no minimum"
            else:
                params, loss, intervals = mark
                grid, curve = _valley_curve(x, y, params, loss, fit.method)
                ax.plot(grid, curve, color=shade, lw=1.3, ls=(0, (3, 2)) if is_held_out else "-", zorder=2)
                for width, interval in zip((1.2, 3.2), intervals):
                    ax.plot(interval, [loss, loss], color=INK["text"], lw=width, zorder=4, solid_capstyle="butt")
                face = INK["paper"] if is_held_out else INK["text"]
                ax.plot(params, loss, "D", ms=5, mfc=face, mec=INK["text"], zorder=5)
            ax.annotate(label, (x[-1], y[-1]), xytext=(7, 2), textcoords="offset points", fontsize=8.5, color=shade)
    low, high = float(runs["loss_nats"].min()), float(runs["loss_nats"].max())
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    smallest, largest = padded(runs["params"], 0.04)
    ax.set_xlim(smallest, largest * (largest / smallest) ** 0.12)  # room for the last label
    log_axis(ax, "x", "compact", 9)
    note(ax, "beside each valley: its training compute C, FLOPs")
    ax.set_xlabel(f"model size N, {size_name(size_column(table))}")
    ax.set_ylabel(f"final {'validation ' * ('loss_stderr' in runs)}{loss_label(runs)}")


def _minimum_mark(minimum: Any, own: Any, is_held_out: bool) -> tuple[float, float, list[tuple[float, float]]] | None:
    """N*, its loss, and its intervals from wide to narrow; None where the budget has no minimum."""
    if is_held_out:
        if own is None or own.measured_params is None:
            return None
        return own.measured_params, own.measured_loss_nats, [own.measured_interval]
    if minimum is None:
        return None
    levels = ("0.95", "0.8") if minimum.intervals else ()
    return minimum.params, minimum.loss_nats, [minimum.intervals[level]["params"] for level in levels]


def _valley_curve(
    x: np.ndarray, y: np.ndarray, params: float, loss: float, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """The curve whose lowest point was reported: a parabola in ln N through (N*, L*), or Akima's interpolation."""
    grid = np.linspace(math.log(x[0]), math.log(x[-1]), 80)
    if method == "akima":
        from scipy.interpolate import CubicHermiteSpline

        from lmscale.study.fits.approaches.isoflop_minima import akima_slopes
        from lmscale.study.fits.approaches.isoflop_valleys import IsoFlopValley

        valley = IsoFlopValley(math.nan, np.log(x), y, ())
        sizes, level = valley.sizes, np.log(valley.by_size(y[:, None]))
        grid = np.linspace(sizes[0], sizes[-1], 20 * len(sizes))
        curve = np.exp(CubicHermiteSpline(sizes, level[:, 0], akima_slopes(sizes, level)[:, 0])(grid))
    else:
        square = (np.log(x) - math.log(params)) ** 2
        curve = loss + square @ (y - loss) / (square @ square) * (grid - math.log(params)) ** 2
    return np.exp(grid), curve
