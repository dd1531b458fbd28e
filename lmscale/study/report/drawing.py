"""A chart as a drawing in the house style: the same marks that the page shows, for files and for paper."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lmscale.study.plots import INK, SEQUENCE
from lmscale.study.plots.axes import end_labels, log_axis
from lmscale.study.report.marks import Axis, Chart, Mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES: Any = (0, (4, 2))
DOTS: Any = (0, (1, 1.6))
CROWD = 300
"""Points or bars of one mark beyond which each is drawn finer."""


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


def _fineness(mark: Mark) -> float:
    """What widths are multiplied by, so that more marks than a panel has pixels are no single patch."""
    return min(1.0, CROWD / max(1, mark.drawn))


def _points(ax: "Axes", mark: Mark) -> None:
    shape = "D" if mark.shape == "diamond" else "o"
    filled = list(mark.filled) or [True] * len(mark.x)
    if not mark.colours and len(set(filled)) < 2:  # one style for all is drawn ten times faster than one each
        edge = colour(mark.colour)
        face = edge if all(filled) else INK["paper"]
        fine = _fineness(mark)
        ax.plot(mark.x, mark.y, shape, ms=5 * fine**0.5, mfc=face, mec=edge, mew=1.1 * fine, zorder=4)
        return
    edges = [colour(one) for one in mark.colours] or [colour(mark.colour)] * len(mark.x)
    faces = [edge if full else INK["paper"] for edge, full in zip(edges, filled)]
    ax.scatter(mark.x, mark.y, s=25, marker=shape, facecolors=faces, edgecolors=edges, linewidths=1.1, zorder=4)


def _style(mark: Mark) -> Any:
    return DASHES if mark.dashed else DOTS if mark.dotted else "-"


def _line(ax: "Axes", mark: Mark) -> None:
    ax.plot(mark.x, mark.y, color=colour(mark.colour), lw=mark.width, ls=_style(mark), alpha=mark.opacity, zorder=3)


def _band(ax: "Axes", mark: Mark) -> None:
    ax.fill_between(mark.x, mark.low, mark.high, color=colour(mark.colour), alpha=mark.opacity, lw=0, zorder=1.5)


def _bars(ax: "Axes", mark: Mark) -> None:
    """One line with a gap after each bar: a thousand lines of two points take a hundred times as long."""
    place = mark.y if mark.along == "x" else mark.x
    along = [end for low, high in zip(mark.low, mark.high, strict=True) for end in (low, high, math.nan)]
    across = [value for value in place for _ in range(3)]
    ends = (along, across) if mark.along == "x" else (across, along)
    width = mark.width * _fineness(mark)
    ax.plot(*ends, color=colour(mark.colour), alpha=mark.opacity, lw=width, zorder=2.5, solid_capstyle="butt")


def _level(ax: "Axes", mark: Mark) -> None:
    ax.axhline(mark.y[0], color=colour(mark.colour), lw=mark.width, ls=_style(mark), zorder=1)


def _strip(ax: "Axes", mark: Mark) -> None:
    ax.axhspan(mark.low[0], mark.high[0], color=colour(mark.colour), alpha=mark.opacity, lw=0, zorder=0)


PAINTERS: dict[str, Callable[..., None]] = {
    "points": _points, "line": _line, "band": _band, "bars": _bars, "level": _level, "strip": _strip,
}  # fmt: skip
