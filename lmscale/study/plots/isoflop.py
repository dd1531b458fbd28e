"""IsoFLOP valleys: loss against model size at each compute budget, and where it is lowest."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.arguments import checked
from lmscale.core.errors import UserError
from lmscale.core.numerals import power
from lmscale.study.grouping import LEAST_SIZES, budgets_of_flops, group_index, group_values, stated_budgets
from lmscale.study.plots.axes import log_axis, note, padded, size_name, spread
from lmscale.study.plots.rows import held_out_mask, measured_runs
from lmscale.study.plots.style import INK, colour, loss_label
from lmscale.study.tables import size_column

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from lmscale.study.fits import HeldOut, IsoFlop


MOST_NAMED = 10
"""Valleys that have their budget beside them: more words would lie on each other."""


@dataclass(frozen=True)
class BudgetPoints:
    """The runs of one budget that were fitted, or those that were held out, and what lies through them."""

    flops: float
    held_out: bool
    runs: "pd.DataFrame"
    """By rising N."""
    minimum: tuple[float, float, list[tuple[float, float]]] | None
    """N*, its loss, and the intervals of N* from wide to narrow; None where the budget has no minimum."""
    curve: tuple[np.ndarray, np.ndarray] | None
    """N and losses of the fitted curve."""
    shade: str
    """The colour of the budget in `SEQUENCE`."""

    @property
    def label(self) -> str:
        """The budget in words."""
        end = ", held out" * self.held_out + ", no minimum" * (self.minimum is None)
        return power(self.flops) + end


def budget_points(table: "pd.DataFrame", fit: "IsoFlop", held_out: "HeldOut | None" = None) -> "list[BudgetPoints]":
    """The runs of every budget with their minimum and curve, fitted ones before held-out ones, by rising budget.

    Where no run states a budget, runs of alike FLOPs are those of one, as Approach 2 takes them. Raises `UserError`
    where there are none.
    """
    runs = measured_runs(table)
    budgets_n = stated_budgets(runs)
    if np.isnan(budgets_n).all():
        budgets_n = budgets_of_flops(runs)
        index_n = group_index(budgets_n)
        alone = np.bincount(index_n + 1)[index_n + 1] < LEAST_SIZES
        budgets_n = np.where(alone, np.nan, budgets_n)
    runs = runs.assign(flops_budget=budgets_n)[~np.isnan(budgets_n)]
    if not len(runs):
        raise UserError(
            "no run states a compute budget, and no three runs have the same FLOPs: IsoFLOP valleys need the column "
            "flops_budget"
        )
    own_budgets = held_out.budgets if held_out else ()
    stated = [*(one.flops for one in fit.minima), *(one.flops for one in own_budgets)]
    # One grouping for runs, minima and held-out budgets: each may name another value of one group.
    groups = group_values([*runs["flops_budget"].astype(float), *stated])
    run_budgets, known = groups[: len(runs)], groups[len(runs) :]
    budgets = np.unique(run_budgets)
    minima = dict(zip(known, fit.minima))
    own = dict(zip(known[len(fit.minima) :], own_budgets))
    out = held_out_mask(runs)
    points = []
    for budget in map(float, budgets):
        for is_held_out in (False, True):
            part = runs[(run_budgets == budget) & (out == is_held_out)].sort_values("params")
            if len(part):
                mark = _minimum_mark(minima.get(budget), own.get(budget), is_held_out)
                curve = None if mark is None else _valley_curve(part, mark[0], mark[1], fit.method)
                points.append(BudgetPoints(budget, is_held_out, part, mark, curve, colour(budgets, budget)))
    return points


@checked
def valleys(ax: "Axes", table: "pd.DataFrame", fit: "IsoFlop", held_out: "HeldOut | None" = None) -> None:
    """Loss against N at every budget, the fitted curve, and its minimum with 80 and 95 % intervals.

    The held-out budget (with `held_out`, its own minimum) has open points and a dashed curve; a budget whose minimum
    was rejected has points and no curve. Of many budgets `MOST_NAMED` are named.
    """
    points = budget_points(table, fit, held_out)
    named = spread(len(points), MOST_NAMED)
    for place, part in enumerate(points):
        x, y = np.asarray(part.runs["params"], dtype=float), np.asarray(part.runs["loss_nats"], dtype=float)
        face = INK["paper"] if part.held_out else part.shade
        ax.plot(x, y, "o", ms=4.5, mfc=face, mec=part.shade, mew=1.1, zorder=3)
        if part.curve is not None:
            ax.plot(*part.curve, color=part.shade, lw=1.3, ls=(0, (3, 2)) if part.held_out else "-", zorder=2)
        if part.minimum is not None:
            _draw_minimum(ax, *part.minimum, held_out=part.held_out)
        if place in named:
            ax.annotate(
                part.label, (x[-1], y[-1]), xytext=(7, 2), textcoords="offset points", fontsize=8.5, color=part.shade
            )
    losses = np.concatenate([np.asarray(part.runs["loss_nats"], dtype=float) for part in points])
    sizes = np.concatenate([np.asarray(part.runs["params"], dtype=float) for part in points])
    low, high = float(losses.min()), float(losses.max())
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    smallest, largest = padded(sizes, 0.04)
    ax.set_xlim(smallest, largest * (largest / smallest) ** 0.12)  # room for the last label
    log_axis(ax, "x", "compact", 9)
    which = "each valley" if len(named) == len(points) else f"{len(named)} of {len(points)} valleys"
    note(ax, f"beside {which}: its training compute C, FLOPs")
    ax.set_xlabel(f"model size N, {size_name(size_column(table))}")
    ax.set_ylabel(f"final {'validation ' * ('loss_stderr' in table)}{loss_label(measured_runs(table))}")


def _draw_minimum(
    ax: "Axes", params: float, loss: float, intervals: list[tuple[float, float]], *, held_out: bool
) -> None:
    """The diamond at N*, and its intervals."""
    for width, interval in zip((1.2, 3.2), intervals):
        ax.plot(interval, [loss, loss], color=INK["text"], lw=width, zorder=4, solid_capstyle="butt")
    ax.plot(params, loss, "D", ms=5, mfc=INK["paper"] if held_out else INK["text"], mec=INK["text"], zorder=5)


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


def _valley_curve(runs: "pd.DataFrame", params: float, loss: float, method: str) -> tuple[np.ndarray, np.ndarray]:
    """The curve whose lowest point was reported: a parabola in ln N through (N*, L*), or Akima's interpolation."""
    x, y = np.asarray(runs["params"], dtype=float), np.asarray(runs["loss_nats"], dtype=float)
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
