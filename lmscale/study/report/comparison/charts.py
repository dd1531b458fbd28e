"""The figures of a comparison as data: losses and the split of compute, a colour for every side."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import mul
from typing import Any

import numpy as np

from lmscale.study.plots import SEQUENCE, TOKENS_PER_PARAM
from lmscale.study.plots.axes import padded
from lmscale.study.plots.style import COMPUTE
from lmscale.study.report.comparison.points import Measured, Point, SeedNoise, loss_change
from lmscale.study.report.comparison.sides import Side, Unit
from lmscale.study.report.marks import Axis, Chart, Mark, ink, joined, shade

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


def best_rates(sides: Sequence[Side], points: Sequence[Point]) -> Chart | None:
    """The best rate of every point by model size, with the rates tried on both sides of it; None without rates."""
    marks: list[Mark] = []
    for index, side in enumerate(sides):
        tuned = [(_size(point), one) for point in points if (one := point.sides[index]) and one.rate is not None]
        if not tuned:
            continue
        x, rates = [size for size, _ in tuned], [float(one.rate or 0) for _, one in tuned]
        low, high = ([end if 0 < end < np.inf else rate for rate, end in zip(rates, ends)]
                     for ends in zip(*(one.bracket for _, one in tuned)))  # fmt: skip
        inside = [one.bracket[0] > 0 and one.bracket[1] < np.inf for _, one in tuned]
        marks.append(Mark("bars", f"rates tried beside the best, {side.label}", x, low=low, high=high,
                          colour=colour(index), opacity=0.5))  # fmt: skip
        marks.append(Mark("points", side.label, x, rates, runs=_names(side, [one for _, one in tuned]), filled=inside,
                          colour=colour(index), key=side.label, shape="diamond"))  # fmt: skip
    if not marks:
        return None
    x = [value for mark in marks for value in mark.x]
    y = [value for mark in marks for value in (*mark.y, *mark.low, *mark.high)]
    sizes = Axis("model size N", *padded(x, 0.06), numerals="compact")
    return Chart("best learning rates", sizes, Axis("best peak learning rate", *padded(y)), marks)


def loss_changes(
    sides: Sequence[Side], unit: Unit, points: Sequence[Point], noises: Sequence[SeedNoise]
) -> Chart | None:
    """Every further side's loss less the first's, by model size, with 95 % of the noise of seeds; None without any."""
    marks: list[Mark] = []
    for index, (side, noise) in enumerate(zip(sides[1:], noises), 1):
        factors = (unit.factors[0], unit.factors[index])
        both = [(_size(point), loss_change(first, one, factors, noise), one)
                for point in points if (first := point.sides[0]) and (one := point.sides[index])]  # fmt: skip
        x, y = [size for size, _, _ in both], [change.value for _, change, _ in both]
        low, high = ([change.interval[end] for _, change, _ in both] for end in (0, 1))
        if noise.freedom:
            name = f"95 % of the noise, {side.label}"
            marks.append(Mark("bars", name, x, low=low, high=high, colour=colour(index), opacity=0.6))
        runs = _names(side, [one for _, _, one in both])
        marks.append(Mark("points", side.label, x, y, runs=runs, colour=colour(index), key=side.label))
    if not any(len(mark.x) for mark in marks):
        return None
    values = [value for mark in marks for value in (*mark.y, *mark.low, *mark.high)] + [0.0]
    margin = 0.08 * float(np.ptp(values)) or 0.01
    marks.append(Mark("level", f"as {sides[0].label}", y=[0.0], colour=ink("muted"), dashed=True,
                      key=f"as {sides[0].label}"))  # fmt: skip
    sizes = Axis("model size N", *padded([value for mark in marks for value in mark.x], 0.06), numerals="compact")
    height = Axis(f"change of the loss, {unit.name}", min(values) - margin, max(values) + margin, log=False)
    return Chart("changes of the loss", sizes, height, marks)


def _size(point: Point) -> float:
    return float(point.coordinates[0][1])


def _names(side: Side, measured: Sequence[Measured]) -> list[str]:
    return [joined([run_key(side, run) for run in one.runs]) for one in measured]


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
    reach = BEYOND if any(side.fit is not None for side in sides) else 1.0
    return Axis(COMPUTE, *padded([low, reach * high], 0.03), numerals="power")


def run_key(side: Side, run: str) -> str:
    """A run's name on a page of several sides, on which two may have runs of one id."""
    return f"{side.label}: {run}"
