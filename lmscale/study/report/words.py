"""What the fits say, in sentences with numbers, units and intervals. Plain text; the page escapes it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.study.plots import RULE, SHORT, compact, held, measured, number, power

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut

LEVEL = 0.95
CHINCHILLA_FLOPS = 5.76e23
"""Gopher's budget, at which Chinchilla was trained (Hoffmann 2022): C = 6ND."""
NO_ANSWER = "cannot be identified"
"""The status of a law whose parameters, and so any allocation, are arbitrary."""


def usable(fits: Sequence[Any]) -> list[Any]:
    """The fits that state an allocation to be believed, the parametric law first."""
    good = [fit for fit in fits if fit.exponents() and not any(s.name == NO_ANSWER for s in fit.status)]
    return sorted(good, key=lambda fit: fit.approach, reverse=True)


def largest_budget(table: "pd.DataFrame") -> float | None:
    """C of the largest budget that was fitted: a planned one where the table has them, else the largest run's."""
    runs = measured(table) if len(table) else table
    runs = runs[~held(runs)] if len(runs) else runs
    if not len(runs):
        return None
    if "flops_budget" in runs and runs["flops_budget"].notna().any():
        return float(runs["flops_budget"].max())
    return float(runs["flops"].max())


def answer(fits: Sequence[Any], table: "pd.DataFrame") -> list[str]:
    """Exponent, allocation at the largest fitted budget, where 20:1 lies, and what the scale implies."""
    good, flops = usable(fits), largest_budget(table)
    if not good or flops is None:
        return []
    runs = measured(table)
    runs = runs[~held(runs)]
    a = " and ".join(
        _with_interval(f"{fit.exponents()['params']:.3f}", fit, "a", ".3f") + f" by {_named(fit)}" for fit in good
    )
    low, high = float(runs["flops"].min()), float(runs["flops"].max())
    sentences = [
        f"Over {len(runs)} fitted runs of {power(low)} to {power(high)} training FLOPs, "
        f"the compute-optimal model size grows as N* ∝ Cᵃ with a = {a}; a = 0.5 would let N and D grow alike.",
        f"At the largest fitted budget, C = {power(flops)} FLOPs, the optimum is "
        + "; and ".join(
            f"N* = {_count(fit, flops, 'params')} parameters on D* = {_count(fit, flops, 'tokens')} tokens "
            f"by Approach {fit.approach}"
            for fit in good
        )
        + ".",
        _rule(good, flops),
        _scale(runs, flops),
    ]
    return sentences


def _named(fit: Any) -> str:
    return f"the {SHORT[fit.approach]} (Approach {fit.approach})"


def _with_interval(said: str, fit: Any, quantity: Any, spec: str) -> str:
    if not fit.resamples:
        return said
    low, high = fit.interval(quantity, LEVEL)
    return f"{said} (95 % interval {low:{spec}} to {high:{spec}})"


def _count(fit: Any, flops: float, part: str) -> str:
    said = compact(float(getattr(fit.optimum(flops), part)))
    if not fit.resamples:
        return said
    low, high = fit.interval(lambda law: getattr(law.optimum(flops), part), LEVEL)
    return f"{said} ({compact(low)} to {compact(high)})"


def ratio(fit: Any, flops: float) -> tuple[float, float, float]:
    """D*/N* at a budget with its 95 % interval (NaN without resamples)."""
    centre = float(fit.optimum(flops).tokens_per_param)
    low, high = (
        fit.interval(lambda law: law.optimum(flops).tokens_per_param, LEVEL) if fit.resamples else (math.nan,) * 2
    )
    return centre, low, high


def where_20_lies(low: float, high: float) -> str:
    """ "inside", "below" or "above" an interval of D*/N*; "" where there is no interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return "below" if low > RULE else "above" if high < RULE else "inside"


def _rule(good: Sequence[Any], flops: float) -> str:
    parts, places = [], set()
    for fit in good:
        centre, low, high = ratio(fit, flops)
        place = where_20_lies(low, high)
        places.add(place)
        edges = f" (95 % interval {low:.3g} to {high:.3g}; 20 lies {place} it)" if place else ""
        parts.append(f"{centre:.3g}{edges} by Approach {fit.approach}")
    said = f"That is, in tokens per parameter, D*/N* = {' and '.join(parts)}"
    if places == {"inside"}:
        said += ": at this budget the runs agree with 20 tokens per parameter"
    elif "inside" not in places and "" not in places:
        said += ": at this budget the runs contradict 20 tokens per parameter"
    elif len(places) > 1:
        said += ": the approaches disagree about 20 tokens per parameter at this budget"
    return said + _crossing(good[0], flops) + "."


def _crossing(fit: Any, flops: float) -> str:
    """Where the fit's D*/N* is exactly 20, if within four decades of the data."""
    grid = np.geomspace(flops / 1e4, flops * 1e4, 400)
    gap = np.log([float(fit.optimum(c).tokens_per_param) / RULE for c in grid])
    change = np.flatnonzero(np.diff(np.sign(gap)))
    if not len(change):
        return ""
    i = int(change[0])
    share = gap[i] / (gap[i] - gap[i + 1])
    at = math.exp((1 - share) * math.log(grid[i]) + share * math.log(grid[i + 1]))
    return f"; Approach {fit.approach} crosses 20 at C = {power(at)} FLOPs"


def _scale(runs: "pd.DataFrame", flops: float) -> str:
    """What the scale of the runs implies for the use of the answer."""
    gap = CHINCHILLA_FLOPS / flops
    if gap < 10:
        return "The budgets reach those at which 20 tokens per parameter was proposed (5.76×10²³ FLOPs)."
    said = f"The largest fitted budget is {number(gap)} times smaller than Chinchilla's 5.76×10²³ FLOPs (6ND), "
    vocab = sorted({int(v) for v in runs["vocab"].dropna()}) if "vocab" in runs else []
    if flops > 1e18:
        return said + "so the ratio up there is an extrapolation: its interval is in the allocation table."
    token = (
        "a token is one byte, "
        if vocab == [256]
        else f"tokens come from a vocabulary of {vocab[-1]:,}, "
        if vocab
        else ""
    )
    return (
        said + token + "and the constants of a law belong to its text, tokenizer, architecture and recipe: the optimum "
        "at this scale need not be 20, and it does not carry over to large models."
    )


def verdict(fits: Sequence[Any], checked: Sequence["HeldOut"]) -> list[str]:
    """Held-out runs and budgets: predicted against measured."""
    said = []
    law = next((fit for fit in usable(fits) if fit.approach == "3"), None)
    for one in checked:
        if one.runs:
            error = 100 * np.array([run.prediction.loss_nats / run.measured - 1 for run in one.runs])
            inside = sum(run.inside for run in one.runs)
            said.append(
                f"Loss: Approach {one.approach}, fitted without them, predicted the final losses of {len(one.runs)} "
                f"held-out runs with a mean error of {error.mean():+.2f} % and a largest of "
                f"{np.abs(error).max():.2f} %; {inside} of {len(one.runs)} measured losses lie inside the "
                f"{100 * one.level:g} % interval of one new run."
            )
        for budget in one.budgets:
            said += _budget(one, budget, law)
    return said


def _budget(one: "HeldOut", budget: Any, law: Any) -> list[str]:
    at = f"C = {power(budget.flops)} FLOPs"
    if budget.measured_params is None:
        return [
            f"Model size: the held-out runs at {at} have no minimum that can be trusted ({budget.reason}), so the "
            f"extrapolated N* = {compact(budget.predicted_params)} cannot be checked."
        ]
    off = 100 * (budget.predicted_params / budget.measured_params - 1)
    said = (
        f"Model size: Approach {one.approach} extrapolated N* = {compact(budget.predicted_params)}"
        f"{_edges(budget.predicted_interval)} parameters to {at}; the held-out runs' own minimum lies at "
        f"{compact(budget.measured_params)}{_edges(budget.measured_interval)}, so the prediction was {abs(off):.1f} % "
        f"too {'large' if off > 0 else 'small'}; the 95 % intervals {'overlap' if budget.agree else 'do not overlap'}."
    )
    if law is not None:
        says = float(law.optimum(budget.flops).params)
        edges = law.interval(lambda fit: fit.optimum(budget.flops).params, LEVEL) if law.resamples else (math.nan,) * 2
        said += (
            f" Approach 3 puts it at {compact(says)}{_edges(edges)}, "
            f"{100 * (says / budget.measured_params - 1):+.1f} % from the measured one."
        )
    return [said]


def _edges(interval: tuple[float, float]) -> str:
    return f" ({compact(interval[0])} to {compact(interval[1])})" if all(map(math.isfinite, interval)) else ""


def cautions(fits: Sequence[Any]) -> list[str]:
    """What must be known before a number is used: the fits' warnings, each once."""
    found: dict[str, list[str]] = {}
    for fit in fits:
        for status in fit.status:
            if status.severity == "warning":
                found.setdefault(f"{status.name}: {status.sentence}", []).append(fit.approach)
    return [f"Approach {' and '.join(approaches)} – {sentence}." for sentence, approaches in found.items()]
