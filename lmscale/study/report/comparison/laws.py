"""Laws side by side: each quantity of every side, its difference from the first side's, and the compute saved.

Draws of two sides are independent, so a difference is drawn by pairing the draws of one with those of the other, in an
order that a seed fixes; an interval is the central percentiles of those.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.fits.predict.multiplier import ComputeMultiplier, compute_multiplier
from lmscale.study.fits.results.common import percentiles
from lmscale.study.fits.uncertainty.new_runs import EDGE
from lmscale.study.plots import number
from lmscale.study.report.answer import exponent
from lmscale.study.report.comparison.sides import Side, Unit

LEVEL = 0.95
PAIRS = 4000
"""Pairs of draws behind a difference."""


@dataclass(frozen=True)
class Stated:
    """A value with its interval, NaN where there is none."""

    value: float
    interval: tuple[float, float] = (math.nan, math.nan)


@dataclass(frozen=True)
class Compared:
    """One quantity: of every side, and of every further side its ratio to (or difference from) the first's."""

    name: str
    values: tuple[Stated | None, ...]
    changes: tuple[Stated | None, ...]
    """None where a side does not state the quantity."""
    is_ratio: bool


def common_budget(sides: Sequence[Side]) -> float:
    """The largest C up to which every side was fitted."""
    return min(float(side.fit.largest_flops) for side in sides)


def all_allocate(sides: Sequence[Side]) -> bool:
    """Whether the fits of every side say how compute is best split."""
    return all(side.fit is not None for side in sides)


def extrapolated(sides: Sequence[Side]) -> list[str]:
    """A sentence for every side whose law is read outside of its own runs at the common budget."""
    if not all_allocate(sides):
        return []
    flops = common_budget(sides)
    return [sentence for side in sides if (sentence := _outside(side, flops))]


def _outside(side: Side, flops: float) -> str:
    optimum, runs = side.fit.optimum(flops), side.runs
    size = side.fit.size_column if side.fit.size_column in runs else "params"
    read = (("C", flops, "flops", "FLOPs"), ("N*", optimum.params, size, "parameters"),
            ("D*", optimum.tokens, "tokens", "tokens"))  # fmt: skip
    parts = []
    for name, value, column, unit in read:
        seen = runs[column].astype(float).dropna() if column in runs else runs["loss_nats"].iloc[:0]
        low, high = (seen.min(), seen.max()) if len(seen) else (0.0, math.inf)
        if value > (1 + EDGE) * high:
            parts.append(f"{name} = {value:.3g} {unit} is {number(value / high)} times the most of a run, {high:.3g}")
        elif value < (1 - EDGE) * low:
            parts.append(f"{name} = {value:.3g} {unit} is {number(low / value)} times below the least, {low:.3g}")
    law = f"the law of {side.label} is read outside of its runs, where nothing was measured"
    return f"At C = {flops:.3g} FLOPs {law}: {'; '.join(parts)}." if parts else ""


def compared(sides: Sequence[Side], unit: Unit, seed: int = 0) -> list[Compared]:
    """Exponent, allocation and loss at the largest common budget, then the parameters of laws of one form.

    Without an allocation on every side, as of laws whose further inputs are not given, the parameters alone.
    """
    return [*_allocations(sides, unit, seed), *_parameters(sides, seed)]


def _allocations(sides: Sequence[Side], unit: Unit, seed: int) -> list[Compared]:
    if not all_allocate(sides):
        return []
    flops = common_budget(sides)
    quantities: list[tuple[str, Callable[[Any], Any], bool, Sequence[float]]] = [
        ("exponent a of N* ∝ Cᵃ", lambda fit: exponent(fit, flops), False, (1.0,) * len(sides)),
        ("N*, parameters", lambda fit: fit.optimum(flops).params, True, (1.0,) * len(sides)),
        ("D*, tokens", lambda fit: fit.optimum(flops).tokens, True, (1.0,) * len(sides)),
        ("D*/N*, tokens per parameter", lambda fit: fit.optimum(flops).tokens_per_param, True, (1.0,) * len(sides)),
        (f"loss there, {unit.name}", lambda fit: fit.optimum(flops).loss_nats, False, unit.factors),
    ]
    return [_compared(name, [side.fit for side in sides], quantity, ratio, scale, seed)
            for name, quantity, ratio, scale in quantities]  # fmt: skip


def _parameters(sides: Sequence[Side], seed: int) -> list[Compared]:
    """The parameters of the parametric laws, where all sides have one of the same form."""
    laws = [side.law for side in sides]
    if any(law is None for law in laws) or len({type(law.law) for law in laws if law is not None}) > 1:
        return []
    names = laws[0].law.names() if laws[0] is not None else ()
    ones = (1.0,) * len(sides)
    return [_compared(f"{name} of the law", laws, attrgetter(f"law.{name}"), False, ones, seed) for name in names]


def _compared(
    name: str, fits: Sequence[Any], quantity: Callable[[Any], Any], is_ratio: bool, scale: Sequence[float], seed: int
) -> Compared:
    values = [factor * float(quantity(fit)) for fit, factor in zip(fits, scale)]
    drawn = [factor * fit.draws(quantity) if fit.resamples else None for fit, factor in zip(fits, scale)]
    stated = [Stated(value, (math.nan,) * 2 if draws is None else percentiles(draws, LEVEL))
              for value, draws in zip(values, drawn)]  # fmt: skip
    changes = [change(values[0], values[i], drawn[0], drawn[i], is_ratio, seed) for i in range(1, len(values))]
    return Compared(name, tuple(stated), tuple(changes), is_ratio)


def change(first: float, other: float, first_draws: Any, other_draws: Any, is_ratio: bool, seed: int = 0) -> Stated:
    """The ratio to, or difference from, the first side, with its interval over pairs of independent draws."""
    value = other / first if is_ratio else other - first
    if first_draws is None or other_draws is None:
        return Stated(value)
    rng = np.random.default_rng(seed)
    a, b = (np.asarray(draws)[rng.integers(len(draws), size=PAIRS)] for draws in (first_draws, other_draws))
    with np.errstate(all="ignore"):  # a draw that fixes no law may have its optimum at infinity
        return Stated(value, percentiles(b / a if is_ratio else b - a, LEVEL))


def multiplier(first: Side, other: Side, unit: Unit, factors: tuple[float, float]) -> ComputeMultiplier | str:
    """How much less compute `other` needs than `first` at equal loss, or why that cannot be said."""
    if unit.caution:
        return unit.caution
    if one := next((side for side in (first, other) if not side.is_ladder), None):
        return f"the runs of {one.label} are no ladder of losses over compute"
    ladders = [side.table.assign(loss_nats=factor * side.table["loss_nats"].astype(float))
               for side, factor in zip((first, other), factors)]  # fmt: skip
    try:
        return compute_multiplier(*ladders)
    except UserError as error:
        return str(error)
