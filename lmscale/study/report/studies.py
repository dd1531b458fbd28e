"""Reports of sweeps that are for no law of N and D: the answer in sentences, and the figure that shows it."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.config import loss_unit
from lmscale.core.numerals import significant
from lmscale.core.quantities import Z_95
from lmscale.study import plots
from lmscale.study.fits.learning_rates import diverged
from lmscale.study.plots import compact, number
from lmscale.study.plots.axes import spread
from lmscale.study.plots.style import colour
from lmscale.study.plots.transfer import BestRate, best_rate
from lmscale.study.report.kinds import DATA, RATES, REPEATS, SEEDS, SIZES, TRANSFER, Kind

if TYPE_CHECKING:
    import pandas as pd

Curve = tuple[list[float], list[float]]
"""Rates in rising order, and the lowest mean loss at each."""
AXIS = {"tokens": "training tokens D", "params": "model size N", "epochs": "passes over the text"}
"""What a sweep that is for no law varies, as its axis is named."""
MOST_PANELS = 8
"""Panels that are drawn and answered in words: those of the largest budgets or lengths."""
MOST_NAMED = 10
"""Sizes that a sentence lists, evenly along N."""
SAME = 1.05
"""Best rates within this factor are one: the parabola's vertex is known no better."""


def tried_runs(table: "pd.DataFrame") -> "pd.DataFrame":
    """The measured runs of a table, and with an infinite loss those that diverged: their rates were tried."""
    import pandas as pd

    measured = plots.measured_runs(table)
    if not len(table) or "peak_lr" not in table:
        return measured
    lost = table[diverged(table, "loss_nats") & table[["params", "tokens", "peak_lr"]].notna().all(axis=1)]
    return pd.concat([measured, lost.assign(loss_nats=math.inf)]) if len(lost) else measured


def with_panels(runs: "pd.DataFrame") -> "pd.DataFrame":
    """The runs with the column `panel`: the parametrization, and the budget or length, that each belongs to.

    They are in the order of the panels.
    """
    budget = "flops_budget" if "flops_budget" in runs and runs["flops_budget"].notna().all() else "tokens"
    several = "parametrization" in runs and runs["parametrization"].nunique() > 1
    runs = runs.sort_values([*["parametrization"] * several, budget], kind="stable")
    panel = [f"{'C' if budget == 'flops_budget' else 'D'} = {compact(value)}" for value in runs[budget]]
    runs = runs.assign(panel=panel)
    if several:
        runs["panel"] = runs["parametrization"].astype(str) + ", " + runs["panel"]
    return runs


def rate_panels(runs: "pd.DataFrame") -> dict[str, dict[int, Curve]]:
    """Title -> size -> losses by rate: a panel for every parametrization, and for every budget or length, rising.

    A loss is infinite where every run at that rate diverged (`tried_runs`); a size of which all did is in no panel.
    """
    runs = with_panels(runs)
    by_batch = ["batch_tokens"] if "batch_tokens" in runs else []
    finite = runs.assign(loss_nats=runs["loss_nats"].astype(float).replace(math.inf, math.nan))
    means = finite.groupby(["panel", "params", "peak_lr", *by_batch], sort=True)["loss_nats"].mean()
    lowest = means.groupby(["panel", "params", "peak_lr"], sort=True).min().fillna(math.inf)
    lowest = lowest[np.isfinite(lowest).groupby(["panel", "params"]).transform("any")]
    known = set(lowest.index.get_level_values("panel"))
    panels: dict[str, dict[int, Curve]] = {str(panel): {} for panel in dict.fromkeys(runs["panel"]) if panel in known}
    keys: list[tuple[str, float, float]] = list(lowest.index)
    for (panel, params, rate), loss in zip(keys, lowest):
        rates, losses = panels[str(panel)].setdefault(int(params), ([], []))
        rates.append(float(rate))
        losses.append(float(loss))
    return panels


def drawn_panels(runs: "pd.DataFrame") -> dict[str, dict[int, Curve]]:
    """The panels of the largest budgets or lengths, as many as a reader looks at."""
    panels = rate_panels(runs)
    return {title: panels[title] for title in list(panels)[-MOST_PANELS:]}


def hidden_panels(runs: "pd.DataFrame") -> str:
    """What a reader must know of panels that are not drawn; "" where all are."""
    count = runs.pipe(with_panels)["panel"].nunique()
    if count <= MOST_PANELS:
        return ""
    return f"The {MOST_PANELS} largest of {count} budgets or lengths are shown; table.csv has the runs of all."


def optima(curves: dict[int, Curve]) -> dict[int, BestRate]:
    """The best rate of every size that was run at two or more."""
    return {size: best_rate(*curve) for size, curve in curves.items() if len(curve[0]) > 1}


def answer(kind: Kind, runs: "pd.DataFrame") -> list[str]:
    """What the finished runs say to the question of their kind; nothing where they are too few."""
    if len(runs) < 2:
        return []
    if kind in (RATES, TRANSFER):
        return _rates(runs)
    if kind == SEEDS:
        return _seeds(runs)
    column = {DATA: "tokens", SIZES: "params", REPEATS: "epochs"}.get(kind)
    return [] if column is None else _along(runs, column)


def _rates(runs: "pd.DataFrame") -> list[str]:
    sentences = []
    for panel, curves in drawn_panels(runs).items():
        best = optima(curves)
        listed = [list(best.items())[place] for place in spread(len(best), MOST_NAMED)]
        rates = "; ".join(
            f"{best_of.rate:.3g} at N = {compact(size)} (loss {best_of.loss_nats:.4f}"
            + (", at the edge of the rates: the best may lie beyond)" if best_of.edge else ")")
            for size, best_of in listed
        )
        if not rates:
            continue
        some = f", at {len(listed)} of {len(best)} sizes," if len(listed) < len(best) else ""
        sentence = f"{panel}: the best peak learning rate{some} is {rates}."
        inside = {size: one.rate for size, one in best.items() if not one.edge}
        if len(inside) > 1:
            sentence += _along_sizes(inside)
        sentences.append(sentence)
    return [*sentences, *filter(None, [hidden_panels(runs)])]


def _along_sizes(best: dict[int, float]) -> str:
    """How the best rate of each size goes with N, for rates that lie inside those tried."""
    exponent = plots.slope(list(best), list(best.values()))
    low, high, apart = min(best.values()), max(best.values()), max(best) / min(best)
    if high / low < SAME:
        return f" Where it lies inside the rates tried it stays there, over sizes a factor {apart:.3g} apart."
    return (
        f" Where it lies inside the rates tried it goes as N^{exponent:.2f}: by a factor {high / low:.2g} over sizes a "
        f"factor {apart:.3g} apart."
    )


def _stages(runs: "pd.DataFrame") -> Sequence[str]:
    return runs["stage"].dropna().tolist() if "stage" in runs else ()


def _seeds(runs: "pd.DataFrame") -> list[str]:
    from scipy.special import gammaincinv  # `scipy.stats` takes a second to import

    losses = runs["loss_nats"].to_numpy(dtype=float)
    freedom, sd = len(losses) - 1, float(np.std(losses, ddof=1))
    unit = loss_unit(_stages(runs))
    low, high = (sd * math.sqrt(freedom / (2 * gammaincinv(freedom / 2, p))) for p in (0.975, 0.025))
    return [
        f"Over {len(losses)} runs the loss is {losses.mean():.4f} ± {sd / math.sqrt(len(losses)):.4f} {unit} "
        f"(mean and its standard error), from {losses.min():.4f} to {losses.max():.4f}.",
        f"One run differs from this mean by a standard deviation of {significant(sd, 2)} nats (95 % interval "
        f"{significant(low, 2)} to {significant(high, 2)}, normal noise): by chance alone two single runs are "
        f"{significant(Z_95 * math.sqrt(2) * sd, 2)} nats or more apart in one of 20 pairs.",
    ]


def _along(runs: "pd.DataFrame", column: str) -> list[str]:
    """How the loss changes from the smallest to the largest value of a column, for every size and length."""
    write = number if column == "epochs" else compact
    what = {"tokens": "training tokens", "params": "parameters", "epochs": "passes over the text"}[column]
    sentences, unit = [], loss_unit(_stages(runs))
    curves = [curve for curve in series(runs, column) if len(curve[1]) > 1]
    listed = [curves[place] for place in spread(len(curves), MOST_NAMED)]
    if len(listed) < len(curves):
        sentences.append(f"{len(listed)} of {len(curves)} sizes and lengths; table.csv has the runs of all:")
    for name, x, y in listed:
        steps = "; ".join(
            f"{write(a)} to {write(b)}: {100 * (after / before - 1):+.2f} %"
            for (a, b), (before, after) in zip(pairwise(x), pairwise(y))
        )
        sentences.append(
            f"{name}{'from' if name else 'From'} {write(x[0])} to {write(x[-1])} {what} the loss goes from "
            f"{y[0]:.4f} to {y[-1]:.4f} {unit} ({steps})."
        )
    return sentences


def series(runs: "pd.DataFrame", column: str) -> list[tuple[str, list[float], list[float]]]:
    """(name, values of a column, mean losses) of every size and length that was constant while the column varied."""
    constant = {"tokens": ["params"], "params": ["tokens"], "epochs": ["params", "tokens"]}[column]
    several = [name for name in constant if runs[name].nunique() > 1 and column == "epochs"]
    groups = runs.groupby(several) if several else [("", runs)]
    curves = []
    for key, rows in groups:
        values: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)
        symbols = {"params": "N", "tokens": "D"}
        name = ", ".join(f"{symbols[name]} = {compact(value)}" for name, value in zip(several, values))
        means = rows.groupby(rows[column].round(3))["loss_nats"].mean().sort_index()
        curves.append((f"{name}: " if name else "", [float(x) for x in means.index], [float(y) for y in means]))
    return curves


def panels(kind: Kind, runs: "pd.DataFrame") -> list[tuple[str, str, Any]]:
    """(title, caption, what paints an Axes) of every panel that shows the answer."""
    if kind in (RATES, TRANSFER):
        caption = "Final loss against peak rate, a line for each N; diamonds are the best rates, open at an edge."
        if hint := hidden_panels(runs):
            caption += f" {hint}"
        return [
            (title, caption, lambda ax, curves=curves: plots.rate_sweep(ax, curves, optima(curves), _size))
            for title, curves in drawn_panels(runs).items()
        ]
    if kind == SEEDS:
        return [("", "Final losses of runs that differ in their seed alone.", lambda ax: _draw(ax, runs, "seed"))]
    column = {DATA: "tokens", SIZES: "params", REPEATS: "epochs"}.get(kind)
    if column is None:
        return []
    seeds = "; a point is the mean over seeds" if "seed" in runs and runs["seed"].nunique() > 1 else ""
    return [("", f"Final losses{seeds}.", lambda ax: _draw_series(ax, runs, column))]


def _size(params: int) -> str:
    return f"N = {compact(params)}"


def _draw(ax: Any, runs: "pd.DataFrame", column: str) -> None:
    ax.plot(runs[column], runs["loss_nats"], "o", color=plots.INK["3"])
    ax.axhline(float(runs["loss_nats"].mean()), color=plots.INK["muted"], lw=0.9)
    ax.set_xlabel(column)
    ax.set_ylabel(f"final validation {plots.loss_label(runs)}")


def _draw_series(ax: Any, runs: "pd.DataFrame", column: str) -> None:
    from lmscale.study.plots.axes import end_labels, log_axis

    labels: list[tuple[float, str, str]] = []
    curves: Sequence[tuple[str, list[float], list[float]]] = series(runs, column)
    for index, (name, x, y) in enumerate(curves):
        shade = colour([1, len(curves)], index + 1)
        ax.plot(x, y, "-o", color=shade, lw=1.4, ms=4)
        labels.append((y[-1], name.removesuffix(": "), shade))
    log_axis(ax, "x", "plain" if column == "epochs" else "compact", 6)
    if len(curves) > 1:
        end_labels(ax, labels)
    ax.set_xlabel(AXIS[column])
    ax.set_ylabel(f"final validation {plots.loss_label(runs)}")
