"""What stands below the figures of a report: what their marks mean."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmscale.study import plots
from lmscale.study.report import methods
from lmscale.study.report.account import is_budget


def losses(runs: Any, curves: Mapping[str, Any], fits: Sequence[Any], baselines: Mapping[str, float]) -> str:
    """The caption of final losses, training curves and the best allocation's loss against compute."""
    caption = (
        f"Points: final losses of the {len(runs)} runs that have one, by model size N. Thick line: their lower frontier"
    )
    drawn = sum(str(run) in curves for run in runs["run"])
    if drawn:
        whose = "each of them" if drawn == len(runs) else f"{drawn} of them"
        whose += " (evenly along C; `metrics.jsonl` has every curve)" * (len(runs) > plots.MOST_CURVES)
        caption += (
            f"; thin curves: training loss along {whose}, averaged in steps of ln C. A point inside a decaying "
            "schedule lies above a schedule that ends there, so the curves never feed the frontier"
        )
    if fits:
        caption += (
            f". Dashed: the loss L*(C) that the {plots.APPROACH_NAME[fits[-1].approach]} gives the best allocation"
        )
    if visible := plots.visible_baselines(runs, baselines, bool(curves)):
        caption += f". Dotted: simple models on the same validation text ({', '.join(visible)})"
    return caption + "."


def valleys(table: Any, fit: Any, checked: Any) -> str:
    """The caption of loss against model size at every budget."""
    caption = f"Each valley is one compute budget C; the curve is {_valley_curve(fit)}; diamonds are the minima"
    if fit.resamples:
        caption += " with 80 (thick) and 95 % (thin) intervals of N*, often narrower than the diamond"
    caption += "."
    if checked is not None:
        caption += f" Dashed and open: {_held_out_budgets(checked, fit)}."
    if rejected := sum(is_budget(item.run, table) for item in fit.dropped):
        caption += f" Points without a curve: a budget whose minimum was rejected ({rejected})."
    return caption


def _valley_curve(fit: Any) -> str:
    """The curve that is drawn through a valley."""
    if fit.method == "akima":
        return "Akima interpolation of ln L on ln N"
    if fit.window is None:
        return "a parabola in ln N"
    return f"a parabola in ln N with the minimum found in the sizes within a factor {fit.window:g} of the lowest run"


def _held_out_budgets(checked: Any, fit: Any) -> str:
    """The held-out budgets, whose only interval is that of the check."""
    many = len(checked.budgets) > 1
    text = f"the held-out budget{'s' * many}, which no fit saw"
    if fit.resamples and any(budget.measured_params is not None for budget in checked.budgets):
        text += f", with the {100 * checked.level:g} % interval alone"
    return text


def allocation_marks(fits: Sequence[Any], checked: Sequence[Any]) -> str:
    """What bands, dashes and points of an allocation mean."""
    bands = any(fit.resamples for fit in fits)
    text = f"Bands: {methods.levels()} intervals of the fits; dashed" if bands else "Dashed:"
    text += " beyond the compute that was fitted."
    valleys = next((fit for fit in fits if fit.approach == "2"), None)
    if valleys is not None:
        text += " Points: minima of the budgets" + " with their 95 % intervals" * bool(valleys.resamples)
        levels = {check.level for check in checked for budget in check.budgets if budget.measured_params is not None}
        odd = {level for level in levels if level != 0.95 and valleys.resamples}
        text += f"; open: held out{''.join(f', with {100 * level:g} %' for level in odd)}." if levels else "."
    return text
