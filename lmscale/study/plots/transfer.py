"""Whether a parametrization carries over from one size to the next: coordinate checks and learning-rate sweeps."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.arguments import Number, checked
from lmscale.study.grouping import group_index
from lmscale.study.plots.axes import end_labels, log_axis, padded
from lmscale.study.plots.style import INK, LOSS, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARAMETRIZATION_COLOUR = {"standard": INK["2"], "mup": INK["1"], "completep": INK["3"]}
"""Colour of each parametrization."""
NEAR = 5
"""Rates around the lowest loss that its parabola goes through."""


@dataclass(frozen=True)
class BestRate:
    """The best peak rate of one size of model."""

    rate: float
    log_rate_stderr: float | None
    """Standard error of ln(rate), from the losses' scatter about their parabola; None where nothing shows it."""
    loss_nats: float
    """The lowest that was measured."""
    edge: bool
    """Whether no rate was tried on one side of the lowest loss, diverged ones included: the optimum may lie beyond."""

    def __str__(self) -> str:
        if self.edge:
            return f"{self.rate:.5f}            {self.loss_nats:.3f} nats, at the edge of the rates"
        error = "     " if self.log_rate_stderr is None else f"{100 * self.log_rate_stderr:4.0f}%"
        return f"{self.rate:.5f} +- {error}   {self.loss_nats:.3f} nats"


def best_rate(rates: Sequence[float], losses: Sequence[float]) -> BestRate:
    """The vertex of the parabola in ln(rate) through the `NEAR` rates around the lowest loss.

    `rates` rise; an infinite loss, a run that diverged, is no point of the parabola, and yet its rate was tried. Where
    the lowest loss has no other on one side, or the parabola does not open upwards with its vertex among the rates, the
    lowest point itself is the optimum. The standard error is that of the vertex -b / 2a by propagation, with the
    residual variance of the fit.
    """
    finite = [(math.log(rate), loss) for rate, loss in zip(rates, losses) if math.isfinite(loss)]
    x, y = np.array(finite).T
    best = int(y.argmin())
    if best in (0, len(y) - 1):
        lowest = math.exp(x[best])
        tried = group_index([lowest, *rates])
        return BestRate(lowest, None, float(y[best]), edge=not tried.min() < tried[0] < tried.max())
    near = slice(max(0, best - NEAR // 2), best + NEAR // 2 + 1)
    centred = x[near] - x[best]
    design = np.vander(centred, 3)
    curve, tilt, level = np.linalg.lstsq(design, y[near], rcond=None)[0]
    vertex = -tilt / (2 * curve) if curve > 0 else math.inf
    if not centred[0] <= vertex <= centred[-1]:
        return BestRate(math.exp(x[best]), None, float(y[best]), edge=False)
    stderr, free = None, len(centred) - 3
    if free > 0:
        residual = y[near] - design @ (curve, tilt, level)
        covariance = np.linalg.inv(design.T @ design) * (residual @ residual) / free
        gradient = np.array([tilt / (2 * curve**2), -1 / (2 * curve), 0.0])
        stderr = math.sqrt(gradient @ covariance @ gradient)
    return BestRate(math.exp(x[best] + vertex), stderr, float(y[best]), edge=False)


@checked
def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """d ln(value) / d ln(size) by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


@checked
def coordinates(ax: "Axes", sizes: Sequence[int], changes: Mapping[str, np.ndarray], axis: str) -> None:
    """Size of a change [steps, sizes] against the size of the model, for each parametrization.

    Later steps are darker; at the end stands the slope of the last one, 0 where the change does not depend on the size.
    """
    labels = []
    for name, change in changes.items():
        shade = PARAMETRIZATION_COLOUR[name]
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


@checked
def rate_sweep(
    ax: "Axes",
    curves: Mapping[int, tuple[Sequence[Number], Sequence[Number]]],
    optima: Mapping[int, BestRate],
    label: Callable[[int], str] = str,
) -> None:
    """Final loss against peak rate, one line per size from `curves`, its optimum as a diamond, open at an edge.

    `label` writes a size at the end of its line. A size's rates and losses are in the order of the rates; an infinite
    loss, a run that diverged, is left out.
    """
    sizes, labels = list(curves), []
    for size, (rates, losses) in curves.items():
        shade = colour(sizes, size)
        drawn = [(rate, loss) for rate, loss in zip(rates, losses) if math.isfinite(loss)]
        ax.plot(*zip(*drawn), "-o", color=shade, lw=1.4, ms=3)
        labels.append((drawn[-1][1], label(size), shade))
        if (best := optima.get(size)) is not None:
            face = "none" if best.edge else shade
            ax.plot(best.rate, best.loss_nats, "D", mfc=face, mec=INK["text"], mew=0.9, ms=6, zorder=4)
    log_axis(ax, "x", "plain", 6)
    end_labels(ax, labels)
    ax.set_xlabel("peak learning rate")
    ax.set_ylabel(f"final validation {LOSS}")
