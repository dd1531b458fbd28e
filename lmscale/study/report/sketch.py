"""A figure of the report before it is drawn, and drawn: as SVG and PNG, with its data, and inside the page."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmscale.core import files
from lmscale.study import plots
from lmscale.study.report.marks import Chart, data_table
from lmscale.study.tables.writing import csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 3_000
"""Points and bars of a panel that answer the pointer: with more, the page would pass 5 MB."""
MOST_SHAPES = 1_000
"""Points and bars of a panel that a drawing has as shapes: more are pixels inside it, since each takes 150 bytes."""


@dataclass(frozen=True)
class DrawnFigure:
    """One figure: its file name without suffix, heading, caption, its SVG, and its panels as data."""

    name: str
    heading: str
    caption: str
    svg: str
    charts: Sequence[Chart] = ()


@dataclass(frozen=True)
class Sketch:
    """A figure before it is drawn: its size in inches and panels, what paints the Axes, and what lists its data."""

    name: str
    heading: str
    caption: str
    height: float
    panels: int
    paint: Callable[..., None]
    charts: Callable[[], Sequence[Chart]]

    def save(self, folder: Path) -> DrawnFigure:
        """Draw it once, write it as SVG and PNG, and write its data as CSV.

        A figure of more than `MOST_POINTS` shapes stays a picture on the page.
        """
        charts = self.charts()
        files.write_text(folder / f"{self.name}.csv", csv_text(data_table(charts)))
        most = max((chart.shapes for chart in charts), default=0)
        many = most > MOST_POINTS
        caption = self.caption + f" A picture, since it has many points; figures/{self.name}.csv lists them." * many
        with plots.style():
            figure, axes = plots.canvas(9.0, self.height, self.panels)
            self.paint(*axes)
            if most > MOST_SHAPES:
                _as_pixels(axes)
            svg = plots.render(figure, "svg").decode()
            files.write_text(folder / f"{self.name}.svg", svg)
            figure.set_layout_engine("none")  # it was laid out for the SVG
            plots.save(figure, folder / f"{self.name}.png")
        return DrawnFigure(self.name, self.heading, caption, svg, () if many else charts)


def _as_pixels(axes: "Sequence[Axes]") -> None:
    """Let the marks of panels be an image inside of the drawing; words, axes and grid stay shapes."""
    for ax in axes:
        for artist in (*ax.collections, *ax.lines):
            artist.set_rasterized(True)


def inline(figure: DrawnFigure) -> str:
    """The SVG for a page: as wide as its column, names of its own, colours and font from the page's style sheet."""
    svg = figure.svg[figure.svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)  # the page's own style sheet has the style
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{figure.heading}"', svg, count=1)
    svg = re.sub(r'\bid="', f'id="{figure.name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{figure.name}-", svg)
    svg = re.sub(r'href="#', f'href="#{figure.name}-', svg)
    svg = re.sub(r"'DejaVu Sans'(, sans-serif)?", "var(--sans)", svg)
    for colour, variable in variables().items():
        svg = re.sub(rf"{colour}\b", f"var({variable})", svg, flags=re.IGNORECASE)
    return svg


def variables() -> dict[str, str]:
    """Colour of a figure -> the CSS variable that stands for it on the page."""
    return {colour: f"--ink-{name}" for name, colour in plots.INK.items()} | {
        colour: f"--s{index}" for index, colour in enumerate(plots.SEQUENCE)
    }
