"""The compute-optimal split against compute: N*, D* and D*/N* with their intervals."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.study.plots import APPROACH_LABEL
from lmscale.study.plots.allocations import LABEL, minima, split, twenty_to_one
from lmscale.study.plots.axes import padded, size_name
from lmscale.study.plots.style import COMPUTE
from lmscale.study.report.marks import Axis, Chart, Mark, Numerals, ink, open_note

if TYPE_CHECKING:
    from lmscale.study.fits import HeldOut

LEVELS = (("0.95", 0.16), ("0.8", 0.22))
"""Levels of the bands, wide first, and how opaque each is."""


def allocation(
    fits: Sequence[Any],
    quantity: str,
    span: tuple[float, float],
    data: tuple[float, float],
    held_out: Sequence["HeldOut"] = (),
) -> Chart:
    """N*, D* or D*/N* against C by every fit, with bands, measured minima, and 20 tokens per parameter."""
    grid = np.union1d(np.geomspace(*span, 33), data)
    marks: list[Mark] = []
    for fit in fits:
        marks += _allocated(fit, quantity, grid, data)
    if compute := next((fit.compute for fit in fits if hasattr(fit, "compute")), None):
        marks.append(_rule(compute, quantity, grid))
    for fit in fits:
        marks += _measured_minima(fit, quantity, held_out) if fit.approach == "2" else []
    drawn = [value for mark in marks for value in (*mark.y, *mark.low, *mark.high)]
    values = [value for value in drawn if math.isfinite(value) and value > 0]
    of_size = f", {size_name(fits[0].size_column)}" if quantity == "params" else ""
    numerals: Numerals = "plain" if quantity == "tokens_per_param" else "compact"
    return Chart(
        LABEL[quantity].split(",")[0],
        Axis(COMPUTE, *span, numerals="power"),
        Axis(f"{LABEL[quantity]}{of_size}", *padded([min(values), max(values)], 0.05), numerals=numerals),
        marks,
        follows="flops",
    )


def _allocated(fit: Any, quantity: str, grid: np.ndarray, data: tuple[float, float]) -> list[Mark]:
    """Bands and line of one fit; dashed beyond the compute that was fitted."""
    rows = fit.allocations(list(grid))
    if not rows:
        return []
    colour_, name = ink(fit.approach), APPROACH_LABEL[fit.approach]
    marks = []
    for level, opacity in LEVELS if rows[0]["intervals"] else ():
        ends = [row["intervals"][level][quantity] for row in rows]
        low, high = ([end[side] for end in ends] for side in (0, 1))
        band = f"{100 * float(level):g} % interval, {name}"
        marks.append(Mark("band", band, grid.tolist(), low=low, high=high, colour=colour_, opacity=opacity))
    centre = np.array([row[quantity] for row in rows])
    inside = (grid >= 0.999 * data[0]) & (grid <= 1.001 * data[1])
    x, y = grid[inside].tolist(), centre[inside].tolist()
    return [
        *marks,
        Mark("line", name, grid.tolist(), centre.tolist(), colour=colour_, dashed=True),
        Mark("line", f"{name}, fitted", x, y, colour=colour_, width=2.2, key=name),
    ]


def _rule(compute: Any, quantity: str, grid: np.ndarray) -> Mark:
    """20 tokens per parameter under the fits' compute model."""
    rule, name = twenty_to_one(compute, quantity, grid), "20 tokens per parameter"
    return Mark("line", name, grid.tolist(), rule.tolist(), colour=ink("rule"), dotted=True, key=name)


def _measured_minima(fit: Any, quantity: str, held_out: Sequence["HeldOut"]) -> list[Mark]:
    """The minima of the budgets with their 95 % intervals, held-out ones open."""

    def of(params: float, flops: float) -> float:
        return float(split(fit.compute, quantity, params, flops))

    points = minima(fit, held_out)
    bars = [(one.flops, sorted(of(end, one.flops) for end in one.interval)) for one in points if one.interval]
    bars = [(flops, ends) for flops, ends in bars if all(map(math.isfinite, ends))]
    x, filled = [one.flops for one in points], [not one.held_out for one in points]
    return [
        Mark("bars", "95 % interval of a minimum", [flops for flops, _ in bars], low=[ends[0] for _, ends in bars],
             high=[ends[1] for _, ends in bars], colour=ink("2")),
        Mark("points", "minimum of a budget", x, [of(one.params, one.flops) for one in points], colour=ink("2"),
             filled=filled, key=f"minima of the budgets{open_note(filled)}"),
    ]  # fmt: skip
