"""The answer for a terminal: N*, D* and D*/N* with their intervals, and prediction against measurement, a line each."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lmscale.study.plots import compact, number, power
from lmscale.study.report.account import fitted_rows
from lmscale.study.report.answer import LEVEL, largest_budget, usable

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut

QUANTITIES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("params", "N*", compact),
    ("tokens", "D*", compact),
    ("tokens_per_param", "D*/N*", number),
)


def brief(fits: Sequence[Any], table: "pd.DataFrame", checked: "Sequence[HeldOut]" = ()) -> list[str]:
    """The optimum at the largest fitted budget by every usable fit, then the held-out runs and budgets.

    Empty where no fit states an optimum, as that of a law of other inputs than N and D, and nothing was held out.
    """
    identified = usable(fits)
    lines = []
    if identified and len(runs := fitted_rows(table, identified)):
        flops, _ = largest_budget(runs)
        lines = [_optimum(fit, flops) for fit in identified]
    return [*lines, *(line for check in checked for line in _checked(check))]


def _optimum(fit: Any, flops: float) -> str:
    """ "optimum at C = 10¹³ FLOPs, Approach 3: N* = 100k (98.4k to 105k), D* = ..., 95 % intervals"."""
    parts = [_with_ends(fit, flops, *quantity) for quantity in QUANTITIES]
    level = f" ({100 * LEVEL:g} % intervals)" if fit.resamples else ""
    return f"optimum at C = {power(flops)} FLOPs, Approach {fit.approach}: {', '.join(parts)}{level}"


def _with_ends(fit: Any, flops: float, name: str, symbol: str, write: Callable[[float], str]) -> str:
    stated = f"{symbol} = {write(float(getattr(fit.optimum(flops), name)))}"
    if not fit.resamples:
        return stated
    return stated + _span(fit.interval(lambda law: getattr(law.optimum(flops), name), LEVEL), write)


def _checked(check: "HeldOut") -> list[str]:
    """Predicted and measured losses of the held-out runs, and N* of every held-out budget."""
    lines = []
    if check.runs:
        inside = f"; {counted}" if (counted := check.counted_inside()) else ""
        lines.append(
            f"prediction, Approach {check.approach}: {len(check.runs)} held-out loss{'es' * (len(check.runs) > 1)} "
            f"measured {100 * check.mean_absolute_error:.2f} % from predicted on average{inside}"
        )
    for budget in check.budgets:
        predicted = f"N* = {compact(budget.predicted_params)}{_span(budget.predicted_interval, compact)}"
        measured = (
            f"no minimum was measured ({budget.reason})"
            if budget.measured_params is None
            else f"measured {compact(budget.measured_params)}{_span(budget.measured_interval, compact)}"
        )
        lines.append(
            f"prediction, Approach {check.approach}: at C = {power(budget.flops)} FLOPs {predicted}; {measured}"
        )
    return lines


def _span(ends: tuple[float, float], write: Callable[[float], str]) -> str:
    return f" ({write(ends[0])} to {write(ends[1])})" if all(map(math.isfinite, ends)) else ""
