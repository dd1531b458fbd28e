"""Whether a parametrization carries over from one size to the next: coordinate checks and learning-rate sweeps."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmscale.plots.paper import INK, LOSS, colour, end_labels, log_axis, padded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARAMETRIZATION = {"standard": INK["2"], "mup": INK["1"], "completep": INK["3"]}
"""Colour of each parametrization."""


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """d ln(value) / d ln(size) by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def coordinates(ax: "Axes", sizes: Sequence[int], changes: Mapping[str, np.ndarray], axis: str) -> None:
    """Size of a change [steps, sizes] against the size of the model, for each parametrization.

    Later steps are darker; at the end stands the slope of the last one, 0 where the change does not depend on the size.
    """
    labels = []
    for name, change in changes.items():
        shade = PARAMETRIZATION[name]
        for step, values in enumerate(change):
            last = step == len(change) - 1
            alpha = 0.2 + 0.8 * step / max(1, len(change) - 1)
            ax.plot(sizes, values, "-o", color=shade, alpha=alpha, lw=1.6 if last else 0.9, ms=3 if last else 0)
        labels.append((float(change[-1][-1]), f"{slope(sizes, change[-1]):+.2f}".replace("-", "−"), shade))
    log_axis(ax, "x", "plain")
    ax.set_xticks(list(sizes))
    log_axis(ax, "y", "plain", 5)
    ax.set_ylim(*padded([value for change in changes.values() for value in np.ravel(change)], 0.08))
    end_labels(ax, labels)
    ax.set_xlabel(axis)


def rate_sweep(
    ax: "Axes", curves: Mapping[int, tuple[Sequence[float], Sequence[float]]], optima: Mapping[int, tuple[float, float]]
) -> None:
    """Final loss against peak rate, one line per size from `curves`, its lowest point from `optima` as a diamond.

    A size's rates and losses are in the order of the rates; an infinite loss, a run that diverged, is left out.
    """
    sizes, labels = list(curves), []
    for size, (rates, losses) in curves.items():
        shade = colour(sizes, size)
        drawn = [(rate, loss) for rate, loss in zip(rates, losses) if math.isfinite(loss)]
        ax.plot(*zip(*drawn), "-o", color=shade, lw=1.4, ms=3)
        labels.append((drawn[-1][1], str(size), shade))
        if size in optima:
            ax.plot(*optima[size], "D", color=shade, mec=INK["text"], mew=0.9, ms=6, zorder=4)
    log_axis(ax, "x", "plain", 6)
    end_labels(ax, labels)
    ax.set_xlabel("peak learning rate")
    ax.set_ylabel(f"final validation {LOSS}")
