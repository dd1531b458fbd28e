"""Logarithmic axes with round ticks, direct labels, keys and notes."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.numerals import compact, power
from lmscale.study.plots.style import INK, SEQUENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def round_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers for a logarithmic axis, dense enough for its span and at most `most`."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    tenths = tuple(step / 10 for step in (*range(10, 20), *range(20, 30, 2), *range(30, 100, 5)))
    for steps in (tenths, (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) <= most:
            return ticks
    every = math.ceil(len(ticks) / most)
    return ticks[::every]


SIZES = {"params": "all parameters", "active_params": "active parameters"}


def size_name(column: str) -> str:
    """What an axis of N counts, by the column that holds it."""
    return SIZES.get(column, column.replace("_", " "))


def log_axis(ax: "Axes", which: str, style: str, most: int = 7) -> None:
    """A logarithmic axis with few, round, readable ticks. `style`: "power" of ten, "compact" counts or "plain"."""
    from matplotlib.ticker import FuncFormatter, Locator, NullLocator

    class Round(Locator):
        """`round_ticks` of whatever the axis shows when it is drawn."""

        def __call__(self) -> list[float]:
            low, high = sorted(self.axis.get_view_interval())  # type: ignore[union-attr]
            return round_ticks(low, high, most)

    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis = ax.xaxis if which == "x" else ax.yaxis
    text = {"power": power, "compact": lambda v: compact(v, 2).replace(".0", ""), "plain": lambda v: f"{v:.3g}"}[style]
    axis.set_major_locator(Round())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_locator(NullLocator())


def padded(values: Any, share: float = 0.06) -> tuple[float, float]:
    """Limits of a logarithmic axis with a margin."""
    low, high = float(np.min(values)), float(np.max(values))
    margin = max(share * math.log(high / low), 0.02)
    return low * math.exp(-margin), high * math.exp(margin)


def _points_high(ax: "Axes") -> float:
    """About how high the axes are, in points, before the layout is made."""
    spec = ax.get_subplotspec()
    rows = spec.get_gridspec().nrows if spec is not None else 1
    return float(ax.figure.get_size_inches()[1] * 72 * 0.74 / rows)  # type: ignore[union-attr]


def spread(count: int, most: int) -> list[int]:
    """At most so many positions of `count`, evenly spaced, the first and the last among them."""
    return list(range(count)) if count <= most else np.linspace(0, count - 1, most).round().astype(int).tolist()


def end_labels(ax: "Axes", labels: Sequence[tuple[float, str, str]], size: float = 8.5) -> None:
    """Direct labels (y in data units, text, colour) right of the axes, pushed apart where they would touch.

    Of more than fit above each other, those are written that do not touch, and a line says how many there are.
    """
    if not labels:
        return
    gap = 1.25 * size / _points_high(ax)
    fraction = ax.transLimits.transform
    scale = ax.transScale.transform
    x = ax.get_xlim()[1]
    labelled = sorted((float(fraction(scale((x, y)))[1]), text, colour) for y, text, colour in labels)
    if len(labelled) * gap > 1 + gap:
        written = _apart(labelled, gap)
        ax.text(1.012, 1 + gap, f"{len(written)} of {len(labelled)}:", transform=ax.transAxes,
                color=INK["muted"], fontsize=0.88 * size, va="bottom", ha="left")  # fmt: skip
        labelled = written
    heights = [min(max(label[0], 0.0), 1.0) for label in labelled]
    for _ in range(200):
        moved = False
        for index in range(len(heights) - 1):
            short = gap - (heights[index + 1] - heights[index])
            if short > 1e-6:
                heights[index] -= short / 2
                heights[index + 1] += short / 2
                moved = True
        if not moved:
            break
    for height_, (_, text, colour) in zip(heights, labelled):
        ax.text(1.012, height_, text, transform=ax.transAxes, color=colour, fontsize=size, va="center", ha="left")


def _apart(labelled: Sequence[tuple[float, str, str]], gap: float) -> list[tuple[float, str, str]]:
    """The highest of labels by rising height, and from the lowest on each that is `gap` above the one before it."""
    written = [labelled[0]]
    for label in labelled[1:-1]:
        if label[0] - written[-1][0] >= gap and labelled[-1][0] - label[0] >= gap:
            written.append(label)
    return [*written, labelled[-1]]


def word_key(
    ax: "Axes", lines: Sequence[tuple[str, str]], x: float = 0.02, y: float = 0.975, size: float = 8.8
) -> None:
    """A key of coloured words inside the axes, in place of a legend."""
    step = 1.5 * size / _points_high(ax)
    for index, (text, colour) in enumerate(lines):
        ax.text(x, y - index * step, text, transform=ax.transAxes, color=colour, fontsize=size, va="top", ha="left")


def note(ax: "Axes", text: str) -> None:
    """A remark on the marks, small, above the axes."""
    ax.set_title(text, loc="left", color=INK["muted"], fontsize=8.5, fontweight="normal", pad=6)


def colour_key(ax: "Axes", low: float, high: float, what: str) -> None:
    """A small key of `SEQUENCE` in the upper right corner."""
    from matplotlib.patches import Rectangle

    left, width, top = 0.70, 0.022, 0.93
    for index, colour in enumerate(SEQUENCE):
        ax.add_patch(Rectangle((left + index * width, top), width, 0.028, transform=ax.transAxes, color=colour, lw=0))
    end = left + width * len(SEQUENCE)
    middle = top + 0.014
    for x, y, text, ha, va in (
        ((left + end) / 2, top - 0.02, what, "center", "top"),
        (left - 0.008, middle, compact(low), "right", "center"),
        (end + 0.008, middle, compact(high), "left", "center"),
    ):
        ax.text(x, y, text, transform=ax.transAxes, fontsize=8.5, ha=ha, va=va)
