"""Scores against scale: chance, noise, fitted curve, where an ability appears; many tasks at a glance; the ladder."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.arguments import Number, checked
from lmscale.core.errors import UserError
from lmscale.core.numerals import compact, power
from lmscale.core.quantities import Z_95
from lmscale.study.plots.axes import log_axis, note, padded, word_key
from lmscale.study.plots.style import COMPUTE, INK, LOSS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lmscale.study.emergence import Finding
    from lmscale.study.emergence.ladder import Ladder

CLASS_COLOUR = {
    "emergent": INK["2"],
    "smooth": INK["3"],
    "flat": INK["muted"],
    "inverse": INK["rule"],
    "u-shaped": INK["1"],
    "undetermined": INK["muted"],
}
"""Colour of each class."""
AXIS = {
    "params": "model size N, parameters",
    "flops": COMPUTE,
    "loss": f"{LOSS}, falling to the right",
    "x": "scale",
}


@checked
def scores(ax: "Axes", finding: "Finding", label: str | None = None) -> None:
    """One metric against scale: points with 95 % of their noise, chance dashed, the fitted curve, and the threshold.

    The band is the 95 % interval of the foot. `label` names the axis of scale; unset, by the axis of the finding.
    """
    curve, colour = finding.curve, CLASS_COLOUR[finding.cls]
    if finding.threshold is not None and finding.interval is not None:
        ax.axvspan(*finding.interval, color=colour, alpha=0.12, lw=0, zorder=0)
        ax.axvline(finding.threshold, color=colour, lw=1.0, zorder=1)
    if math.isfinite(curve.chance):
        ax.axhline(curve.chance, color=INK["muted"], lw=0.9, ls=(0, (4, 3)), zorder=1)
    if finding.fitted is not None:
        ax.plot(*finding.fitted, color=colour, lw=1.8, zorder=2)
    error = Z_95 * score_stderr(finding)
    if curve.kind == "hard":
        error = np.stack([np.minimum(error, curve.score_S), np.minimum(error, 1 - curve.score_S)])
    ax.errorbar(curve.x_S, curve.score_S, yerr=error, fmt="none", ecolor=colour, elinewidth=0.9, alpha=0.55, zorder=2.5)
    ax.plot(curve.x_S, curve.score_S, "o", ms=4.5, mfc=colour, mec=INK["paper"], mew=0.6, zorder=3)
    _axis(ax, finding)
    ax.set_xlabel(label or AXIS[curve.axis])
    ax.set_ylabel(curve.metric)


def score_stderr(finding: "Finding") -> np.ndarray:
    """Standard error (S,) of every score, as the detector assumed it."""
    curve, widened = finding.curve, math.sqrt(finding.evidence["scatter_factor"])
    if curve.noise == "gaussian":
        return np.asarray(widened * curve.weight_S**-0.5)
    shrunk = (curve.score_S * curve.weight_S + 0.5) / (curve.weight_S + 1)  # at 0 and 1 a rate still has an error
    return np.asarray(widened * np.sqrt(shrunk * (1 - shrunk) / curve.weight_S))


@checked
def hard_and_graded(axes: "Sequence[Axes]", hard: "Finding", graded: "Finding", label: str | None = None) -> None:
    """The hard metric above, the graded one below, on one scale: does the jump survive a metric that counts parts?

    `axes` are two. Raises `UserError` for findings about different tasks or axes.
    """
    if (hard.curve.task, hard.curve.axis) != (graded.curve.task, graded.curve.axis):
        raise UserError(
            f"hard and graded metric are of one task and axis, not of {hard.curve.task!r} over {hard.curve.axis} and "
            f"{graded.curve.task!r} over {graded.curve.axis}"
        )
    above, below = axes
    scores(above, hard, label)
    scores(below, graded, label)
    above.set_xlabel("")
    above.tick_params(labelbottom=False)
    below.set_xlim(above.get_xlim())
    verdict = f"{hard.cls}: {hard.verdict}" if hard.verdict else hard.cls
    note(above, f"{hard.curve.task}: hard metric, {verdict}")
    note(below, f"graded metric, {graded.cls}")
    if graded.curve.better < 0:
        below.invert_yaxis()


@checked
def small_multiples(figure: "Figure", findings: "Sequence[Finding]", columns: int = 8) -> None:
    """One small panel per finding, all on one axis of scale; the score from the lowest to the highest of each task.

    Dashed: chance. A vertical line: the threshold. Colour: the class, named in the panel.
    """
    if not findings:
        raise UserError("there is nothing to draw: the table gave no finding")
    rows = math.ceil(len(findings) / columns)
    for index, finding in enumerate(findings):
        ax = figure.add_subplot(rows, columns, index + 1)
        _tile(ax, finding)
        if index < len(findings) - columns:
            ax.tick_params(labelbottom=False)


def _tile(ax: "Axes", finding: "Finding") -> None:
    curve, colour = finding.curve, CLASS_COLOUR[finding.cls]
    if finding.threshold is not None and finding.interval is not None:
        ax.axvspan(*finding.interval, color=colour, alpha=0.14, lw=0)
        ax.axvline(finding.threshold, color=colour, lw=0.9)
    if math.isfinite(curve.chance):
        ax.axhline(curve.chance, color=INK["muted"], lw=0.7, ls=(0, (3, 2)))
    if finding.fitted is not None:
        ax.plot(*finding.fitted, color=colour, lw=1.3)
    ax.plot(curve.x_S, curve.score_S, "o", ms=2.4, mfc=colour, mec="none")
    _axis(ax, finding, most=2)
    ax.grid(visible=False)
    low, high = float(curve.score_S.min()), float(curve.score_S.max())
    if curve.kind == "hard":
        low, high = min(low, curve.chance), max(high, curve.chance)
    margin = 0.12 * max(high - low, 0.04)
    ax.set_ylim(low - margin, high + 2.2 * margin)
    ax.set_yticks([round(low, 2), round(high, 2)])
    ax.tick_params(labelsize=6, length=2, pad=1.5)
    name = curve.name.replace("_", " ")
    ax.set_title(name if len(name) <= 25 else name[:24] + "…", fontsize=6.8, pad=3, fontweight="normal")
    ax.text(0.03, 0.96, finding.cls, transform=ax.transAxes, fontsize=6, color=colour, va="top")


@checked
def ladder(ax: "Axes", fit: "Ladder", losses: Sequence[Number], measured: Sequence[Number]) -> None:
    """Score against task loss: fitted runs filled, held-out ones open, the link with 95 %, predictions as crosses.

    `losses` and `measured` are of all runs, in the order fitted, then held out (as `Ladder.held_out` lists them).
    """
    grid, centre, low, high = fit.curve
    ax.fill_between(grid, low, high, color=INK["3"], alpha=0.16, lw=0, zorder=1)
    ax.plot(grid, centre, color=INK["3"], lw=1.8, zorder=2)
    loss, score = np.asarray(losses, float), np.asarray(measured, float)
    cut = fit.fitted_runs
    ax.plot(loss[:cut], score[:cut], "o", ms=4.5, mfc=INK["3"], mec=INK["paper"], mew=0.6, zorder=3)
    ax.plot(loss[cut:], score[cut:], "o", ms=5.5, mfc=INK["paper"], mec=INK["2"], mew=1.4, zorder=4)
    for one in fit.held_out:
        ax.plot([one.loss, one.loss], one.interval, color=INK["2"], lw=1.0, alpha=0.8, zorder=2.5)
        ax.plot(one.loss, one.predicted, "x", ms=5.5, color=INK["2"], mew=1.4, zorder=3.5)
    ax.invert_xaxis()
    ax.set_xlabel("task loss, falling to the right")
    ax.set_ylabel("score")
    word_key(ax, [("● fitted", INK["3"]), ("○ held out", INK["2"]), ("× predicted, with 95 %", INK["2"])])


def _axis(ax: "Axes", finding: "Finding", most: int = 6) -> None:
    curve = finding.curve
    if curve.axis == "loss":
        margin = 0.05 * float(np.ptp(curve.x_S))
        ax.set_xlim(float(curve.x_S.max()) + margin, float(curve.x_S.min()) - margin)
        if most < 4:
            ax.set_xticks([round(float(curve.x_S[0]), 1), round(float(curve.x_S[-1]), 1)])
        return
    ax.set_xlim(*padded(curve.x_S, 0.04))
    log_axis(ax, "x", "power" if curve.axis == "flops" else "compact", most)


@checked
def threshold_text(finding: "Finding") -> str:
    """The threshold with its interval in few characters, "" where there is none."""
    if finding.threshold is None or finding.interval is None:
        return ""
    axis = finding.curve.axis
    text = {"flops": power, "loss": "{:.2f}".format}.get(axis, compact)
    return f"{text(finding.threshold)} [{text(finding.interval[0])}, {text(finding.interval[1])}]"
