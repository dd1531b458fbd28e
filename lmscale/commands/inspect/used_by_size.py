"""The share of its neurons that a model uses for each task, against its size: a figure and its numbers for the page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lmscale.commands.inspect.measure import InspectedModel
from lmscale.commands.inspect.show import shares
from lmscale.study import plots
from lmscale.study.plots import SEQUENCE
from lmscale.study.plots.axes import padded
from lmscale.study.report.drawing import draw
from lmscale.study.report.marks import Axis, Chart, Mark, shade
from lmscale.study.report.page import heading, paragraphs, table
from lmscale.study.report.sketch import DrawnFigure, inline

TITLE = "Share of the neurons that a task uses, by size"
MEANING = (
    "The smallest share of neurons, the strongest by their effect first, whose presence keeps 90 % of how often the "
    "right answer of a pair is preferred; the others put out their mean. Bars are 95 % intervals by a bootstrap over "
    "pairs."
)


class Used(NamedTuple):
    """What one model uses for one task."""

    task: str
    model: InspectedModel
    neurons: dict[str, Any]
    """The counts and intervals that `summary.effects` states."""


def used_by_size(models: Sequence[InspectedModel]) -> list[Used]:
    """All that was measured, by task and then by size; nothing of models of one size alone."""
    if len({model.params for model in models}) < 2:
        return []
    rows = [
        Used(task, model, value["used_neurons"])
        for model in models
        for task, value in model.effects.items()
        if "used_neurons" in value
    ]
    return sorted(rows, key=lambda row: (row.task, row.model.params))


def chart(rows: Sequence[Used]) -> Chart:
    """A line for every task with the interval at every size."""
    marks: list[Mark] = []
    tasks = list(dict.fromkeys(row.task for row in rows))
    for number, task in enumerate(tasks):
        own = [row for row in rows if row.task == task]
        params = [float(row.model.params) for row in own]
        mean, low, high = ([row.neurons["share"][bound] for row in own] for bound in ("mean", "low", "high"))
        colour = shade(SEQUENCE[number * len(SEQUENCE) // len(tasks)])
        names = [row.model.folder.name for row in own]
        marks += [
            Mark("bars", f"{task}, 95 % interval", params, low=low, high=high, colour=colour, width=1.0, opacity=0.6),
            Mark("line", task, params, mean, colour=colour, key=task),
            Mark("points", task, params, mean, colours=[colour] * len(own), runs=names),
        ]
    most = max(row.neurons["share"]["high"] for row in rows) or 1.0
    sizes = padded([row.model.params for row in rows])
    share = Axis("share of neurons used", -0.03 * most, 1.05 * most, log=False)
    return Chart(TITLE, Axis("parameters N", *sizes, numerals="compact"), share, marks)


def section(models: Sequence[InspectedModel]) -> str:
    """Figure and table; nothing where there are not several sizes."""
    rows = used_by_size(models)
    if not rows:
        return ""
    with plots.style():
        figure, (ax,) = plots.canvas(9.0, 4.0, 1)
        draw(ax, chart(rows))
        svg = plots.render(figure, "svg").decode()
    drawn = inline(DrawnFigure("used-by-size", TITLE, MEANING, svg))
    heads = [("task", ""), ("N", ""), ("neurons", ""), ("used", ""), ("score", ""), ("without any", "")]
    numbers = [
        ("", [row.task, row.model.size, f"{row.neurons['neurons']:,}", shares(row.neurons),
              f"{row.neurons['score']:.3f}", f"{row.neurons['score_without']:.3f}"])
        for row in rows
    ]  # fmt: skip
    return heading(TITLE) + paragraphs([MEANING]) + f'<div class="wide">{drawn}</div>' + table(heads, numbers, (0,))
