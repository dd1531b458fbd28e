"""The house style of figures: typography, colours, the words of axes; figures without global state, written whole."""

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core import files
from lmscale.core.arguments import Count, Positive, checked
from lmscale.core.config import loss_unit
from lmscale.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
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
APPROACH_LABEL = {"1": "Approach 1, envelope", "2": "Approach 2, IsoFLOP minima", "3": "Approach 3, parametric law"}
APPROACH_NAME = {"1": "envelope", "2": "IsoFLOP minima", "3": "parametric law"}
TOKENS_PER_PARAM = 20.0
COMPUTE = "training compute C, FLOPs"
LOSS = "loss, nats per token"


@checked
def loss_label(runs: "pd.DataFrame") -> str:
    """What an axis with the losses of a table's runs is named."""
    return f"loss, {loss_unit(runs['stage'].dropna() if 'stage' in runs else ())}"


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


@checked
def canvas(width: Positive = 9.0, height: Positive = 4.4, panels: Count = 1) -> "tuple[Figure, list[Axes]]":
    """A figure of `width` x `height` inches with `panels` side by side, without any global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, panels, index + 1) for index in range(panels)]
    return figure, axes


@checked
def render(figure: "Figure", kind: str) -> bytes:
    """The figure as "svg" or "png"; equal figures give equal bytes."""
    import matplotlib

    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lmscale"}), _laid_out(figure):
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()


@contextlib.contextmanager
def _laid_out(figure: "Figure") -> Iterator[None]:
    """Lay the figure out now; inside the block it has no engine, for which `savefig` would draw everything twice."""
    import matplotlib

    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    with matplotlib.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)
        try:
            yield
        finally:
            figure.set_layout_engine(engine)


@checked
def save(figure: "Figure", path: str | Path) -> Path:
    """Write the figure atomically as its suffix says. Raises `UserError` for a suffix other than .svg and .png."""
    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise UserError(f"figures are written as .svg or .png, not as {path.name!r}")
    with files.atomic_write(path, "wb") as file:
        file.write(render(figure, path.suffix[1:]))
    return path


def colour(values: Any, value: float) -> str:
    """The step of `SEQUENCE` for `value` between the least and the greatest of `values`, by logarithm."""
    low, high = float(np.min(values)), float(np.max(values))
    share = 0.5 if high <= low else math.log(value / low) / math.log(high / low)
    return SEQUENCE[min(len(SEQUENCE) - 1, max(0, round(share * (len(SEQUENCE) - 1))))]
