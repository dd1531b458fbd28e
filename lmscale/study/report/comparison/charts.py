"""The figures of a comparison as data: losses and the split of compute, a colour for every side."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import mul
from typing import Any

import numpy as np

from lmscale.study.plots import SEQUENCE, TOKENS_PER_PARAM
from lmscale.study.plots.axes import padded
from lmscale.study.plots.style import COMPUTE
from lmscale.study.report.comparison.sides import Side, Unit
from lmscale.study.report.marks import Axis, Chart, Mark, ink, shade

SIDE_COLOURS = (ink("3"), ink("2"), ink("1"), ink("rule"), *(shade(SEQUENCE[place]) for place in (0, 5, 9)))
"""Told apart by colour-blind readers; with more sides they begin again, and the lines' names tell them apart."""
POINTS = 33
BEYOND = 10.0


def colour(index: int) -> str:
    """The colour of a side."""
    return SIDE_COLOURS[index % len(SIDE_COLOURS)]


def losses(sides: Sequence[Side], unit: Unit) -> Chart:
    """Final losses of every side against compute, and the loss L*(C) of its fit with a 95 % band."""
    marks: list[Mark] = []
    for index, (side, factor) in enumerate(zip(sides, unit.factors)):
        marks += _along(side, index, "loss_nats", partial(mul, factor))
        runs = side.runs
        names = [run_key(side, run) for run in runs["run"]]
        y = [factor * float(value) for value in runs["loss_nats"]]
        marks.append(
            Mark("points", side.label, runs["flops"].tolist(), y, runs=names, colour=colour(index), key=side.label)
        )
    values = [value for mark in marks for value in mark.y if np.isfinite(value)]
    return Chart(
        "loss against compute", _compute(sides), Axis(f"final validation loss, {unit.name}", *padded(values)), marks
    )


def ratios(sides: Sequence[Side]) -> Chart:
    """D*/N* of every side's fit against compute, with 95 % bands, and 20 tokens per parameter."""
    marks = [
        mark for index, side in enumerate(sides) for mark in _along(side, index, "tokens_per_param", float, named=True)
    ]
    marks.append(Mark("level", "20 tokens per parameter", y=[TOKENS_PER_PARAM], colour=ink("rule"), dotted=True,
                      key="20 tokens per parameter"))  # fmt: skip
    values = [value for mark in marks for value in (*mark.y, *mark.low, *mark.high) if np.isfinite(value) and value > 0]
    return Chart("D*/N* against compute", _compute(sides), Axis("D*/N*, tokens per parameter", *padded(values)), marks)


def _along(side: Side, index: int, quantity: str, scale: Callable[[float], float], named: bool = False) -> list[Mark]:
    """The line of a side's fit over the compute of its runs and a decade beyond, with its 95 % band."""
    if side.fit is None:
        return []
    runs = side.runs["flops"].astype(float)
    grid = np.geomspace(float(runs.min()), BEYOND * float(runs.max()), POINTS).tolist()
    rows: list[dict[str, Any]] = side.fit.allocations(grid)
    marks = []
    if rows and rows[0]["intervals"]:
        ends = [row["intervals"]["0.95"][quantity] for row in rows]
        low, high = ([scale(end[place]) for end in ends] for place in (0, 1))
        name = f"95 % interval, {side.label}"
        marks.append(Mark("band", name, grid, low=low, high=high, colour=colour(index), opacity=0.16))
    centre = [scale(row[quantity]) for row in rows]
    line = Mark("line", f"fit of {side.label}", grid, centre, colour=colour(index), key=side.label if named else "")
    return [*marks, line] if rows else []


def _compute(sides: Sequence[Side]) -> Axis:
    low = min(float(side.runs["flops"].min()) for side in sides)
    high = max(float(side.runs["flops"].max()) for side in sides)
    return Axis(COMPUTE, *padded([low, BEYOND * high], 0.03), numerals="power")


def run_key(side: Side, run: str) -> str:
    """A run's name on a page of several sides, on which two may have runs of one id."""
    return f"{side.label}: {run}"
