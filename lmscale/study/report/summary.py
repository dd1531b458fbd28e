"""The answer in one line, and the few numbers behind it with their intervals, as a table."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lmscale.study.plots import compact, number, power
from lmscale.study.report import page
from lmscale.study.report.account import fitted_rows
from lmscale.study.report.answer import LEVEL, exponent, largest_budget, ratio, usable, where_20_lies

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut

SIDES = {
    "inside": "20 lies inside the interval",
    "below": "more than 20",
    "above": "fewer than 20",
}


def line(fits: Sequence[Any], table: "pd.DataFrame") -> str:
    """The answer in one line: N*, D* and D*/N* at the largest fitted budget by the first usable fit; "" without one."""
    identified = usable(fits)
    runs = fitted_rows(table, identified)
    if not len(runs):
        return ""
    flops, _ = largest_budget(runs)
    fit = identified[0]
    best, (centre, low, high) = fit.optimum(flops), ratio(fit, flops)
    side = where_20_lies(low, high)
    ends = f" ({100 * LEVEL:g} % interval {number(low)} to {number(high)})" if side else ""
    return (
        f"At C = {power(flops)} FLOPs train {compact(float(best.params))} parameters on "
        f"{compact(float(best.tokens))} tokens: {number(centre)} tokens per parameter{ends}"
        f"{'; ' + SIDES[side] if side else ''}."
    )


def numbers(fits: Sequence[Any], table: "pd.DataFrame") -> str:
    """A small table: the exponent, N*, D*, D*/N* and the loss at the largest fitted budget by every usable fit."""
    identified = usable(fits)
    runs = fitted_rows(table, identified)
    if not len(runs):
        return ""
    flops, _ = largest_budget(runs)
    heads = [("", f"at C = {power(flops)} FLOPs"), ("approach", ""), ("value", ""), ("95 % interval", "")]
    rows = [(label, fit, quantity, write) for label, quantity, write in _quantities(flops) for fit in identified]
    return page.table(
        heads,
        [("", [label, fit.approach, *_stated(fit, quantity, write)]) for label, fit, quantity, write in rows],
        css="summary",
    )


Quantity = Callable[[Any], Any]


def _quantities(flops: float) -> list[tuple[str, Quantity, Callable[[float], str]]]:
    """(what it is, a function of a fit, how it is written) of every row."""
    return [
        ("exponent a of N* ∝ Cᵃ", lambda fit: exponent(fit, flops), "{:.3f}".format),
        ("N*, parameters", lambda fit: fit.optimum(flops).params, compact),
        ("D*, tokens", lambda fit: fit.optimum(flops).tokens, compact),
        ("D*/N*, tokens per parameter", lambda fit: fit.optimum(flops).tokens_per_param, number),
        ("loss there", lambda fit: fit.optimum(flops).loss_nats, "{:.4f}".format),
    ]


def _stated(fit: Any, quantity: Quantity, write: Callable[[float], str]) -> tuple[page.Cell, page.Cell]:
    """The value and its interval, as cells."""
    value = float(quantity(fit))
    low, high = fit.interval(quantity, LEVEL) if fit.resamples else (math.nan, math.nan)
    known = math.isfinite(low) and math.isfinite(high)
    return page.Number(write(value), value), f"{write(low)} – {write(high)}" if known else "–"


def checks(checked: Sequence["HeldOut"]) -> str:
    """Predicted against measured in a small table: the losses of held-out runs, and N* of held-out budgets."""
    heads = [("prediction", ""), ("approach", ""), ("predicted", ""), ("measured", ""), ("error", "meas. / pred. − 1")]
    rows = [row for check in checked for row in (*_loss_rows(check), *_budget_rows(check))]
    return page.table(heads, rows, css="summary") if rows else ""


def _loss_rows(check: "HeldOut") -> list[page.Row]:
    """The losses of the held-out runs together: how far off they are, and how many lie in their intervals."""
    if not check.runs:
        return []
    known = [run for run in check.runs if run.has_interval]
    inside = f"{sum(run.inside for run in known)} of {len(known)} inside {100 * check.level:g} %" if known else "–"
    count = len(check.runs)
    return [
        page.Row(
            [
                f"final loss of {count} held-out run{'s' * (count > 1)}", check.approach, "–", inside,
                page.Number(f"{100 * check.mean_absolute_error:.2f} % on average", 100 * check.mean_absolute_error),
            ]
        )
    ]  # fmt: skip


def _budget_rows(check: "HeldOut") -> list[page.Row]:
    """N* at every held-out budget, extrapolated and found by its own runs."""
    rows = []
    for budget in check.budgets:
        error: page.Cell = "–"
        if budget.measured_params is not None:
            value = 100 * (budget.measured_params / budget.predicted_params - 1)
            error = page.Number(f"{value:+.1f} %", value)
        rows.append(
            page.Row(
                [
                    f"N* at C = {power(budget.flops)} FLOPs", check.approach,
                    f"{compact(budget.predicted_params)}{_span(budget.predicted_interval)}",
                    f"{compact(budget.measured_params)}{_span(budget.measured_interval)}", error,
                ]
            )
        )  # fmt: skip
    return rows


def _span(ends: tuple[float, float]) -> str:
    return f" ({compact(ends[0])} – {compact(ends[1])})" if all(map(math.isfinite, ends)) else ""
