"""Was the prediction right? Held-out runs and budgets against the fits that did not see them, in sentences."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.study.plots import compact, power
from lmscale.study.report.answer import usable

if TYPE_CHECKING:
    from lmscale.study.fits import HeldOut


def verdict(fits: Sequence[Any], checked: Sequence["HeldOut"]) -> list[str]:
    """Held-out runs and budgets: predicted against measured."""
    sentences = []
    law = next((fit for fit in usable(fits) if fit.approach == "3"), None)
    for check in checked:
        if check.runs:
            sentences.append(_runs(check, fits))
        sentences += [_budget(check, budget, law) for budget in check.budgets]
    return sentences


def _runs(check: "HeldOut", fits: Sequence[Any]) -> str:
    error = 100 * np.array([run.error for run in check.runs])
    many = len(check.runs) > 1
    size = (
        f"with a mean absolute error of {100 * check.mean_absolute_error:.2f} %, a bias of {100 * check.bias:+.2f} % "
        f"and a largest error of {np.abs(error).max():.2f} %"
        if many
        else f"with an error of {error[0]:+.2f} %"
    )
    return (
        f"Loss: Approach {check.approach}, {_sight(check, fits)}, predicted the final loss{'es' * many} of "
        f"{len(check.runs)} held-out run{'s' * many} {size} (measured minus predicted: a positive one "
        f"was predicted too low); {_inside(check)}."
    )


def _sight(check: "HeldOut", fits: Sequence[Any]) -> str:
    """Whether the fit saw the runs that it is checked on."""
    fitted = {name for fit in fits if fit.approach == check.approach == "3" for name in fit.residuals["run"]}
    seen = sum(run.run in fitted for run in check.runs)
    return f"fitted to {seen} of them" if seen else "fitted without them"


def _inside(check: "HeldOut") -> str:
    return check.counted_inside() or "without resamples it states no interval"


def _budget(check: "HeldOut", budget: Any, law: Any) -> str:
    at = f"C = {power(budget.flops)} FLOPs"
    predicted = f"{compact(budget.predicted_params)}{_ends(budget.predicted_interval)}"
    if budget.measured_params is None:
        return (
            f"Model size: the held-out runs at {at} have no minimum that can be trusted ({budget.reason}), so the "
            f"N* = {predicted} that Approach {check.approach} extrapolates to them cannot be checked."
        )
    error = 100 * (budget.predicted_params / budget.measured_params - 1)
    sentence = (
        f"Model size: Approach {check.approach} extrapolated N* = {predicted} parameters to {at}; the held-out runs' "
        f"own minimum lies at {compact(budget.measured_params)}{_ends(budget.measured_interval)}, so the prediction "
        f"was {abs(error):.1f} % too {'large' if error > 0 else 'small'}{_overlap(check, budget)}."
    )
    return sentence + _by_law(check, budget, law)


def _overlap(check: "HeldOut", budget: Any) -> str:
    if not all(map(math.isfinite, (*budget.predicted_interval, *budget.measured_interval))):
        return ""
    return f"; the {100 * check.level:g} % intervals {'overlap' if budget.agree else 'do not overlap'}"


def _by_law(check: "HeldOut", budget: Any, law: Any) -> str:
    """Where Approach 3 puts the same optimum."""
    if law is None:
        return ""
    params = float(law.optimum(budget.flops).params)
    ends = (math.nan, math.nan)
    if law.resamples:
        ends = law.interval(lambda fit: fit.optimum(budget.flops).params, check.level)
    error = 100 * (params / budget.measured_params - 1)
    return f" Approach 3 puts it at {compact(params)}{_ends(ends)}, {error:+.1f} % from the measured one."


def _ends(interval: tuple[float, float]) -> str:
    return f" ({compact(interval[0])} to {compact(interval[1])})" if all(map(math.isfinite, interval)) else ""
