"""The answer that the fits give, in sentences with numbers, units and intervals. Plain text; the page escapes it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.grouping import group_values
from lmscale.study.plots import APPROACH_NAME, TOKENS_PER_PARAM, compact, number, power
from lmscale.study.report.account import fitted_rows

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
CHINCHILLA_FLOPS = 5.76e23
"""Gopher's budget, at which Chinchilla was trained (Hoffmann 2022): C = 6ND."""
NO_ANSWER = "cannot be identified"
"""The status of a law whose parameters, and so any allocation, are arbitrary."""
NEAR = 10
"""A budget that is at most this factor below Chinchilla's comes near it."""
SMALL = 1e18
"""FLOPs up to which models are too small for their optimum to say anything of large ones."""
STEP = 1.01
"""Factor of compute over which an exponent is taken that changes with compute."""
REACH = 1e4
"""How far from the largest fitted budget, as a factor of compute, a crossing of 20 tokens per parameter is stated."""


def usable(fits: Sequence[Any]) -> list[Any]:
    """The fits that state an allocation to be believed, the parametric law first."""
    stated = [fit for fit in fits if is_identified(fit) and _allocates(fit)]
    return sorted(stated, key=lambda fit: fit.approach, reverse=True)


def _allocates(fit: Any) -> bool:
    """Whether the fit has an optimum at the compute of its largest run."""
    if not fit.states_optimum or not math.isfinite(fit.largest_flops):
        return False
    try:
        fit.optimum(fit.largest_flops)
    except UserError:  # of some laws model size and data are not traded there
        return False
    return True


def is_identified(fit: Any) -> bool:
    """Whether the runs fix what was fitted; where not, its parameters are arbitrary."""
    return not any(status.name == NO_ANSWER for status in fit.status)


def largest_budget(runs: "pd.DataFrame") -> tuple[float, str]:
    """The largest C of the fitted `runs`, and what it is: a planned budget where they have one, else a run's own C."""
    if "flops_budget" in runs and runs["flops_budget"].notna().any():
        return float(np.nanmax(group_values(runs["flops_budget"]))), "the largest fitted budget"
    return float(runs["flops"].max()), "the compute of the largest fitted run"


def answer(fits: Sequence[Any], table: "pd.DataFrame") -> list[str]:
    """Exponent, allocation at the largest fitted budget, where 20:1 lies, and what the scale implies."""
    identified = usable(fits)
    runs = fitted_rows(table, identified)
    if not len(runs):
        return []
    flops, which = largest_budget(runs)
    return [
        _exponent(identified, runs, flops),
        f"At {which}, C = {power(flops)} FLOPs, the optimum is "
        + "; and ".join(
            f"N* = {_count(fit, flops, 'params')} parameters on D* = {_count(fit, flops, 'tokens')} tokens "
            f"by Approach {fit.approach}"
            for fit in identified
        )
        + ".",
        _tokens_per_param(identified, flops),
        _scale(runs, flops, which),
    ]


def exponent(fit: Any, flops: float) -> Any:
    """The exponent a of N* ~ C^a: the fit's own, or of a law whose exponent changes with C the slope at `flops`."""
    if stated := fit.exponents():
        return stated["params"]
    below, above = (fit.optimum(flops * step).params for step in (1 / STEP, STEP))
    return np.log(above / below) / (2 * math.log(STEP))


def _exponent(fits: Sequence[Any], runs: "pd.DataFrame", flops: float) -> str:
    """How N* grows with C, through how many runs, and at which exponent N and D would grow alike."""
    counts = {fit.n_runs for fit in fits}
    how_many = (
        f"{counts.pop()} fitted runs"
        if len(counts) == 1
        else f"{' and '.join(f'{fit.n_runs} (Approach {fit.approach})' for fit in fits)} fitted runs"
    )
    exponents = " and ".join(
        _with_interval(f"{exponent(fit, flops):.3f}", fit, lambda law: exponent(law, flops), ".3f")
        + (f" at {power(flops)} FLOPs" if not fit.exponents() else "")
        + f" by the {APPROACH_NAME[fit.approach]} (Approach {fit.approach})"
        for fit in fits
    )
    even = sorted({f"{1 / (1 + fit.compute.p):.3g}" for fit in fits})  # C = k N^p D and D ~ N: N ~ C^(1 / (1 + p))
    return (
        f"Over {how_many} of {power(float(runs['flops'].min()))} to {power(float(runs['flops'].max()))} training "
        f"FLOPs, the compute-optimal model size grows as N* ∝ Cᵃ with a = {exponents}; with a = {' or '.join(even)}, "
        f"N and D would grow alike."
    )


def _with_interval(stated: str, fit: Any, quantity: Any, spec: str) -> str:
    if not fit.resamples:
        return stated
    low, high = fit.interval(quantity, LEVEL)
    return f"{stated} ({100 * LEVEL:g} % interval {low:{spec}} to {high:{spec}})"


def _count(fit: Any, flops: float, part: str) -> str:
    stated = compact(float(getattr(fit.optimum(flops), part)))
    if not fit.resamples:
        return stated
    low, high = fit.interval(lambda law: getattr(law.optimum(flops), part), LEVEL)
    return f"{stated} ({compact(low)} to {compact(high)})"


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
    return "below" if low > TOKENS_PER_PARAM else "above" if high < TOKENS_PER_PARAM else "inside"


def _tokens_per_param(fits: Sequence[Any], flops: float) -> str:
    """D*/N* by every fit, and whether 20 lies inside their intervals."""
    parts, sides = [], []
    for fit in fits:
        centre, low, high = ratio(fit, flops)
        side = where_20_lies(low, high)
        sides.append(side)
        ends = f" ({100 * LEVEL:g} % interval {number(low)} to {number(high)}; 20 lies {side} it)" if side else ""
        parts.append(f"{number(centre)}{ends} by Approach {fit.approach}")
    sentence = f"That is, in tokens per parameter, D*/N* = {' and '.join(parts)}"
    return sentence + _judgement(sides) + _crossings(fits[0], flops) + "."


def _judgement(sides: Sequence[str]) -> str:
    """What the fits together say of 20 tokens per parameter; those without an interval say nothing."""
    known = {side for side in sides if side}
    if not known:
        return ""
    if known == {"inside"}:
        return ": at this budget the runs agree with 20 tokens per parameter"
    if "inside" not in known:
        return ": at this budget the runs contradict 20 tokens per parameter"
    return ": the approaches disagree about 20 tokens per parameter at this budget"


def _crossings(fit: Any, flops: float) -> str:
    """Where the fit's D*/N* is exactly 20, as far as that is within `REACH` of the largest fitted budget."""
    grid = np.geomspace(flops / REACH, flops * REACH, 400)
    gap = np.log([float(fit.optimum(c).tokens_per_param) / TOKENS_PER_PARAM for c in grid])
    crossings = []
    for i in np.flatnonzero(np.diff(np.sign(gap))):
        share = gap[i] / (gap[i] - gap[i + 1])
        crossings.append(power(math.exp((1 - share) * math.log(grid[i]) + share * math.log(grid[i + 1]))))
    return f"; Approach {fit.approach} crosses 20 at C = {' and '.join(crossings)} FLOPs" if crossings else ""


def _scale(runs: "pd.DataFrame", flops: float, which: str) -> str:
    """What the scale of the runs implies for the use of the answer."""
    gap = CHINCHILLA_FLOPS / flops
    head = f"{which[0].upper()}{which[1:]}"
    if gap <= 1:
        return f"{head} reaches the 5.76×10²³ FLOPs (6ND) at which 20 tokens per parameter was proposed."
    sentence = f"{head} is {number(gap)} times smaller than Chinchilla's 5.76×10²³ FLOPs (6ND), "
    if gap < NEAR:
        return sentence + "at which 20 tokens per parameter was proposed."
    if flops > SMALL:
        return sentence + "so that a ratio stated for that budget is an extrapolation by this factor."
    return sentence + (
        f"{_vocabulary(runs)}and the constants of a law belong to its text, tokenizer, architecture and recipe: the "
        f"optimum at this scale need not be 20, and it does not carry over to large models."
    )


def _vocabulary(runs: "pd.DataFrame") -> str:
    """What a token is in these runs; "" where the table does not say."""
    sizes = sorted({int(size) for size in runs["vocab"].dropna()}) if "vocab" in runs else []
    if not sizes:
        return ""
    if sizes == [256]:
        return "a token is one byte, "
    if len(sizes) == 1:
        return f"tokens come from a vocabulary of {sizes[0]:,}, "
    return f"tokens come from vocabularies of {sizes[0]:,} to {sizes[-1]:,}, "


def cautions(fits: Sequence[Any]) -> list[str]:
    """What must be known before a number is used: the fits' warnings, each once."""
    warnings: dict[str, list[str]] = {}
    for fit in fits:
        for status in fit.status:
            if status.severity == "warning":
                warnings.setdefault(f"{status.name}: {status.sentence}", []).append(fit.approach)
    return [f"Approach {' and '.join(approaches)} – {sentence}." for sentence, approaches in warnings.items()]
