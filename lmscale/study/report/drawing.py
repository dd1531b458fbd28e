"""A chart as a drawing in the house style: the same marks that the page shows, for files and for paper."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lmscale.study.plots import INK, SEQUENCE
from lmscale.study.plots.axes import end_labels, log_axis
from lmscale.study.report.marks import Axis, Chart, Mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES: Any = (0, (4, 2))
DOTS: Any = (0, (1, 1.6))


def colour(variable: str) -> str:
    """The colour that a CSS variable of `marks` stands for on white."""
    if variable.startswith("--ink-"):
        return INK[variable.removeprefix("--ink-")]
    return SEQUENCE[int(variable.removeprefix("--s"))]


def draw(ax: "Axes", chart: Chart) -> None:
    """Paint the marks and axes; lines that have a key are named at their right end."""
    for mark in chart.marks:
        PAINTERS[mark.kind](ax, mark)
    ax.set_xlim(chart.x.low, chart.x.high)
    ax.set_ylim(chart.y.low, chart.y.high)
    for which, axis in (("x", chart.x), ("y", chart.y)):
        if axis.log:
            log_axis(ax, which, _numerals(axis))
    ax.set_xlabel(chart.x.label)
    ax.set_ylabel(chart.y.label)
    end_labels(ax, _labels(chart))


def _numerals(axis: Axis) -> str:
    return "plain" if axis.numerals == "percent" else axis.numerals


def _labels(chart: Chart) -> list[tuple[float, str, str]]:
    """(height, text, colour) of every key, at the last point of its mark; each key once."""
    labels: dict[str, tuple[float, str, str]] = {}
    for mark in chart.marks:
        if mark.key and len(mark.y):
            place = max(range(len(mark.y)), key=lambda index: mark.x[index]) if len(mark.x) else 0
            labels.setdefault(mark.key, (float(mark.y[place]), mark.key, colour(mark.colour)))
    return list(labels.values())


def _points(ax: "Axes", mark: Mark) -> None:
    edges = [colour(one) for one in mark.colours] or [colour(mark.colour)] * len(mark.x)
    filled = list(mark.filled) or [True] * len(mark.x)
    faces = [edge if full else INK["paper"] for edge, full in zip(edges, filled)]
    shape = "D" if mark.shape == "diamond" else "o"
    ax.scatter(mark.x, mark.y, s=25, marker=shape, facecolors=faces, edgecolors=edges, linewidths=1.1, zorder=4)


def _style(mark: Mark) -> Any:
    return DASHES if mark.dashed else DOTS if mark.dotted else "-"


def _line(ax: "Axes", mark: Mark) -> None:
    ax.plot(mark.x, mark.y, color=colour(mark.colour), lw=mark.width, ls=_style(mark), alpha=mark.opacity, zorder=3)


def _band(ax: "Axes", mark: Mark) -> None:
    ax.fill_between(mark.x, mark.low, mark.high, color=colour(mark.colour), alpha=mark.opacity, lw=0, zorder=1.5)


def _bars(ax: "Axes", mark: Mark) -> None:
    lines: Callable[..., Any] = ax.hlines if mark.along == "x" else ax.vlines
    lines(
        mark.y if mark.along == "x" else mark.x, mark.low, mark.high, color=colour(mark.colour), lw=mark.width, zorder=3
    )


def _level(ax: "Axes", mark: Mark) -> None:
    ax.axhline(mark.y[0], color=colour(mark.colour), lw=mark.width, ls=_style(mark), zorder=1)


def _strip(ax: "Axes", mark: Mark) -> None:
    ax.axhspan(mark.low[0], mark.high[0], color=colour(mark.colour), alpha=mark.opacity, lw=0, zorder=0)


PAINTERS: dict[str, Callable[..., None]] = {
    "points": _points, "line": _line, "band": _band, "bars": _bars, "level": _level, "strip": _strip,
}  # fmt: skip
