"""The paper that figures are drawn on: typography, colours, numbers, logarithmic axes and direct labels."""

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core import files
from lmscale.core.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = {
    "text": "#1c1e21",
    "muted": "#62666d",
    "line": "#c9cdd3",
    "paper": "#ffffff",
    "1": "#00805c",
    "2": "#c4500a",
    "3": "#0668b0",
    "rule": "#8a4a86",
}
"""Text, lines and paper; then one colour per approach; then the 20:1 rule."""
SEQUENCE = (
    "#46327e",
    "#3c4f8a",
    "#31688e",
    "#277f8e",
    "#1f978b",
    "#2fab74",
    "#5dbb4f",
    "#93b824",
    "#b9a400",
    "#cf8800",
)
"""Small to large, readable on white: viridis with its pale end darkened."""
APPROACH = {"1": "Approach 1, envelope", "2": "Approach 2, IsoFLOP minima", "3": "Approach 3, parametric law"}
SHORT = {"1": "envelope", "2": "IsoFLOP minima", "3": "parametric law"}
TOKENS_PER_PARAM = 20.0
COMPUTE = "training compute C, FLOPs"
LOSS = "loss, nats per token"


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The house typography for figures made inside the block; text stays text in an SVG."""
    import matplotlib

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "lmscale",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.5,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.labelsize": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": INK["muted"],
        "axes.linewidth": 0.8,
        "axes.labelcolor": INK["text"],
        "axes.titlecolor": INK["text"],
        "text.color": INK["text"],
        "xtick.color": INK["muted"],
        "ytick.color": INK["muted"],
        "xtick.labelcolor": INK["text"],
        "ytick.labelcolor": INK["text"],
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "axes.axisbelow": True,
        "grid.color": INK["line"],
        "grid.linewidth": 0.5,
        "grid.alpha": 0.6,
        "axes.grid": True,
        "lines.solid_capstyle": "round",
        "figure.facecolor": INK["paper"],
        "axes.facecolor": "none",
        "savefig.facecolor": INK["paper"],
        "figure.dpi": 100,
    }
    with matplotlib.rc_context(settings):
        yield


def canvas(width: float = 9.0, height: float = 4.4, panels: int = 1) -> "tuple[Figure, list[Axes]]":
    """A figure of `width` x `height` inches with `panels` side by side, without any global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, panels, index + 1) for index in range(panels)]
    return figure, axes


def render(figure: "Figure", kind: str) -> bytes:
    """The figure as "svg" or "png"; equal figures give equal bytes."""
    import matplotlib

    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lmscale"}):
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()


def save(figure: "Figure", path: str | Path) -> Path:
    """Write the figure atomically as its suffix says. Raises `UserError` for a suffix other than .svg and .png."""
    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise UserError(f"figures are written as .svg or .png, not as {path.name!r}")
    with files.atomic_write(path, "wb") as file:
        file.write(render(figure, path.suffix[1:]))
    return path


def compact(value: float | None, digits: int = 3) -> str:
    """A count in few characters: 26.1k, 1.40M, 67.3B; "–" where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * (1 - 0.5 * 10.0**-digits):
            return f"{value:.2e}" if value >= 1e15 else f"{_digits(value / size, digits)}{letter}"
    return _digits(value, digits)


def number(value: float) -> str:
    """Three digits, thousands set apart, a power of ten from a million on: 20.1, 1,040, 2×10¹¹."""
    if abs(value) >= 1e6:
        return power(value, 1)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _digits(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}")))))
    return f"{value:.{places}f}"


def power(value: float, digits: int = 2) -> str:
    """A number as a multiple of a power of ten: 3×10¹², 10¹⁸, 5.8×10²³."""
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    raised = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return raised if mantissa == "1" else f"{mantissa}×{raised}"


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
    say = {"power": power, "compact": lambda v: compact(v, 2).replace(".0", ""), "plain": lambda v: f"{v:.3g}"}[style]
    axis.set_major_locator(Round())
    axis.set_major_formatter(FuncFormatter(lambda value, _: say(value)))
    axis.set_minor_locator(NullLocator())


def padded(values: Any, share: float = 0.06) -> tuple[float, float]:
    """Limits of a logarithmic axis with a margin."""
    low, high = float(np.min(values)), float(np.max(values))
    margin = max(share * math.log(high / low), 0.02)
    return low * math.exp(-margin), high * math.exp(margin)


def _points_high(ax: "Axes") -> float:
    """About how high the axes are, in points, before the layout is made."""
    place = ax.get_subplotspec()
    rows = place.get_gridspec().nrows if place is not None else 1
    return float(ax.figure.get_size_inches()[1] * 72 * 0.74 / rows)  # type: ignore[union-attr]


def end_labels(ax: "Axes", labels: Sequence[tuple[float, str, str]], size: float = 8.5) -> None:
    """Direct labels (y in data units, text, colour) right of the axes, pushed apart where they would touch."""
    if not labels:
        return
    gap = 1.25 * size / _points_high(ax)
    fraction = ax.transLimits.transform
    scale = ax.transScale.transform
    x = ax.get_xlim()[1]
    places = sorted((float(fraction(scale((x, y)))[1]), text, colour) for y, text, colour in labels)
    heights = [min(max(place[0], 0.0), 1.0) for place in places]
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
    for height_, (_, text, colour) in zip(heights, places):
        ax.text(1.012, height_, text, transform=ax.transAxes, color=colour, fontsize=size, va="center", ha="left")


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


def colour(values: Any, value: float) -> str:
    """The step of `SEQUENCE` for `value` between the least and the greatest of `values`, by logarithm."""
    low, high = float(np.min(values)), float(np.max(values))
    share = 0.5 if high <= low else math.log(value / low) / math.log(high / low)
    return SEQUENCE[min(len(SEQUENCE) - 1, max(0, round(share * (len(SEQUENCE) - 1))))]


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
