"""The compute-optimal split against compute: N*, D* and D*/N* with their intervals."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lmscale.core.arguments import checked
from lmscale.core.errors import UserError, nearest
from lmscale.study.plots.axes import end_labels, log_axis, note, padded, size_name, word_key
from lmscale.study.plots.style import APPROACH_LABEL, COMPUTE, INK, TOKENS_PER_PARAM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lmscale.study.fits import HeldOut, IsoFlop
    from lmscale.study.laws import ComputeModel


LABEL = {
    "params": "optimal model size N*",
    "tokens": "optimal training length D*, tokens",
    "tokens_per_param": "D*/N*, tokens per parameter",
}


@checked
def allocation(
    ax: "Axes",
    fits: Sequence[Any],
    quantity: str,
    *,
    span: tuple[float, float],
    data: tuple[float, float] | None = None,
    held_out: Sequence["HeldOut"] = (),
    labels: str = "end",
) -> None:
    """N*, D* or D*/N* against C: lines with 80 and 95 % bands, measured minima, and 20 tokens per parameter.

    `quantity` is "params", "tokens" or "tokens_per_param"; `span` the range of C drawn, `data` the range that was
    fitted: lines are dashed beyond it. Minima of `held_out` have open markers. `labels` is "end" (right of the
    lines), "corner" (coloured words in the axes) or "none".
    """
    if quantity not in LABEL:
        raise UserError(f"allocation draws no quantity {quantity!r}{nearest(quantity, LABEL)}")
    grid = np.union1d(np.geomspace(*span, 33), [edge for edge in data or () if span[0] <= edge <= span[1]])
    ends: list[tuple[float, str, str]] = []
    seen: list[float] = []
    for fit in fits:
        drawn = _draw_fit(ax, fit, quantity, grid, data)
        if not drawn:
            continue
        seen += drawn
        ends.append((drawn[-1], APPROACH_LABEL[fit.approach], INK[fit.approach]))
        if fit.approach == "2":
            seen += _draw_minima(ax, fit, quantity, held_out)
    if compute := next((fit.compute for fit in fits if hasattr(fit, "compute")), None):
        rule = twenty_to_one(compute, quantity, grid)
        ax.plot(grid, rule, color=INK["rule"], lw=1.3, ls=(0, (1, 1.6)), zorder=2)
        ends.append((float(rule[-1]), "20 tokens per parameter", INK["rule"]))
        seen += [*rule]
    ax.set_xlim(*span)
    finite = [value for value in seen if math.isfinite(value) and value > 0]
    if finite:
        ax.set_ylim(*padded([min(finite), max(finite)], 0.05))
    log_axis(ax, "x", "power", 6 if labels != "end" else 8)
    log_axis(ax, "y", "plain" if quantity == "tokens_per_param" else "compact")
    if labels == "end":
        end_labels(ax, ends)
    elif labels == "corner":
        word_key(ax, [(text, colour) for _, text, colour in ends])
    if labels != "none" and any(budget.measured_params is not None for one in held_out for budget in one.budgets):
        note(ax, "points: minima of the budgets; open: held out")
    ax.set_xlabel(COMPUTE)
    of_size = f", {size_name(fits[0].size_column)}" if quantity == "params" and fits else ""
    ax.set_ylabel(f"{LABEL[quantity]}{of_size}")


def twenty_to_one(compute: "ComputeModel", quantity: str, flops: np.ndarray) -> np.ndarray:
    """N*, D* or D*/N* of 20 tokens per parameter, of the shape of `flops`, under a compute model."""
    params = (flops / (compute.k * TOKENS_PER_PARAM)) ** (1 / (1 + compute.p))
    return {
        "params": params,
        "tokens": TOKENS_PER_PARAM * params,
        "tokens_per_param": np.full(len(flops), TOKENS_PER_PARAM),
    }[quantity]


def split(compute: "ComputeModel", quantity: str, params: Any, flops: Any) -> Any:
    """N, D or D/N of a model of `params` that takes `flops`."""
    tokens = compute.tokens(flops, params)
    return {"params": params, "tokens": tokens, "tokens_per_param": tokens / params}[quantity]


class MeasuredMinimum(NamedTuple):
    """The best model size of a budget, as measured."""

    flops: float
    params: float
    interval: tuple[float, float] | None
    """The 95 % interval of `params`, where there is one."""
    held_out: bool


def minima(fit: "IsoFlop", held_out: Sequence["HeldOut"]) -> list[MeasuredMinimum]:
    """The minima of the budgets that `fit` saw, and the measured ones of the budgets that `held_out` is about."""
    seen = [
        MeasuredMinimum(one.flops, one.params, one.intervals["0.95"]["params"] if one.intervals else None, False)
        for one in fit.minima
    ]
    return seen + [
        MeasuredMinimum(budget.flops, budget.measured_params, budget.measured_interval, True)
        for check in held_out
        if check.approach == "2"
        for budget in check.budgets
        if budget.measured_params is not None
    ]


def _draw_fit(ax: "Axes", fit: Any, quantity: str, flops: np.ndarray, data: tuple[float, float] | None) -> list[float]:
    """The line of a fit with its bands, dashed outside of `data`; the values drawn, the end of the line last."""
    rows = fit.allocations(list(flops))
    if not rows:
        return []
    drawn: list[float] = []
    colour, centre = INK[fit.approach], np.array([row[quantity] for row in rows])
    if rows[0]["intervals"]:
        for level, alpha in (("0.95", 0.13), ("0.8", 0.20)):
            low, high = np.array([row["intervals"][level][quantity] for row in rows]).T
            ax.fill_between(flops, low, high, color=colour, alpha=alpha, lw=0, zorder=1.5)
            drawn += [*low, *high]
    inside = np.ones(len(flops), bool) if data is None else (flops >= 0.999 * data[0]) & (flops <= 1.001 * data[1])
    ax.plot(flops, centre, color=colour, lw=1.2, ls=(0, (3, 2)), zorder=2.5)
    ax.plot(flops[inside], centre[inside], color=colour, lw=2, zorder=2.6)
    return [*drawn, *map(float, centre)]


def _draw_minima(ax: "Axes", fit: "IsoFlop", quantity: str, held_out: Sequence["HeldOut"]) -> list[float]:
    """The minima of the budgets with 95 % error bars, held-out ones open; the values drawn."""
    drawn = []
    for flops, params, interval, open_marker in minima(fit, held_out):
        y, *ends = (float(split(fit.compute, quantity, value, flops)) for value in (params, *(interval or ())))
        ends.sort()
        ax.plot([flops] * len(ends), ends, color=INK["2"], lw=1.1, zorder=3)
        ax.plot(flops, y, "o", ms=5.5, mfc=INK["paper"] if open_marker else INK["2"], mec=INK["2"], mew=1.3, zorder=4)
        drawn += [y, *ends]
    return drawn
