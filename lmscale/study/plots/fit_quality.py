"""How well the parametric law fits: residuals, and held-out runs predicted against measured."""

from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.arguments import checked
from lmscale.core.errors import UserError, nearest
from lmscale.study.plots.axes import log_axis, note, padded, size_name
from lmscale.study.plots.style import INK, LOSS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lmscale.study.fits import HeldOut, LossLaw

ERROR = "measured − predicted loss, %"


@checked
def residuals(ax: "Axes", law: "LossLaw", against: str = "params", held_out: "HeldOut | None" = None) -> None:
    """Measured minus predicted loss in per cent of the prediction, against one input; held-out runs open.

    The band is twice the root mean square of the fitted runs.
    """
    if against not in law.law.INPUTS:
        raise UserError(f"the law {law.law.NAME!r} has no input {against!r}{nearest(against, law.law.INPUTS)}")
    inputs = np.asarray(law.residuals[against], dtype=float)
    errors = 100 * (np.asarray(law.residuals["measured"]) / np.asarray(law.residuals["predicted"]) - 1)
    spread = float(np.sqrt(np.mean(errors**2)))
    ax.axhspan(-2 * spread, 2 * spread, color=INK["line"], alpha=0.35, lw=0, zorder=0)
    ax.axhline(0, color=INK["muted"], lw=0.9, zorder=1)
    ax.plot(inputs, errors, "o", ms=4, mfc=INK["3"], mec=INK["3"], alpha=0.75, zorder=3)
    every = [inputs]
    if held_out and held_out.runs:
        x = np.array([run.prediction.inputs[against] for run in held_out.runs])
        ax.plot(
            x,
            [100 * (run.measured / run.prediction.loss_nats - 1) for run in held_out.runs],
            "o",
            ms=5,
            mfc=INK["paper"],
            mec=INK["3"],
            mew=1.2,
            zorder=4,
        )
        every.append(x)
    shown = np.concatenate(every)
    if (shown > 0).all():
        ax.set_xlim(*padded(shown, 0.04))
        log_axis(ax, "x", "compact", 6)
    else:  # the fall of a schedule, a sparsity or a KL may be 0
        margin = 0.04 * float(np.ptp(shown)) or 1.0
        ax.set_xlim(float(shown.min()) - margin, float(shown.max()) + margin)
    labels = {"params": f"model size N, {size_name(law.size_column)}", "tokens": "training length D, tokens"}
    ax.set_xlabel(labels.get(against, against))
    ax.set_ylabel(ERROR)
    if len(every) > 1:
        note(ax, "filled: fitted; open: held out")


@checked
def predictions(ax: "Axes", held_out: "HeldOut") -> None:
    """Predicted against measured loss of the runs that no fit saw, with the interval of one new run.

    Raises `UserError` where nothing was held out.
    """
    measured_n, predicted_n, ends_n2 = _sides(held_out)
    every = np.concatenate([measured_n, predicted_n, ends_n2[np.isfinite(ends_n2)]])
    margin = 0.06 * (every.max() - every.min() or 0.1)
    limits = (every.min() - margin, every.max() + margin)
    ax.plot(limits, limits, color=INK["muted"], lw=0.9, zorder=1)
    ax.plot(np.stack([measured_n, measured_n]), ends_n2.T, color=INK["3"], lw=1.4, zorder=2)
    ax.plot(measured_n, predicted_n, "o", ms=5.5, mec=INK["3"], mew=1.3, mfc=INK["paper"], zorder=3)
    ax.set_xlim(*limits)
    ax.set_ylim(*limits)
    ax.set_xlabel(f"measured {LOSS}")
    ax.set_ylabel(f"predicted {LOSS}")


@checked
def prediction_errors(ax: "Axes", held_out: "HeldOut") -> None:
    """Measured minus predicted loss of the held-out runs against N; bars are where one new run was expected.

    Raises `UserError` where nothing was held out.
    """
    measured_n, predicted_n, ends_n2 = _sides(held_out)
    params = np.array([run.prediction.inputs["params"] for run in held_out.runs])
    ax.axhline(0, color=INK["muted"], lw=0.9, zorder=1)
    for x, measured, predicted, interval in zip(params, measured_n, predicted_n, ends_n2):
        ax.plot([x, x], 100 * (interval / predicted - 1), color=INK["3"], lw=5, alpha=0.28, zorder=2)
        ax.plot(x, 100 * (measured / predicted - 1), "o", ms=5.5, mec=INK["3"], mew=1.3, mfc=INK["paper"], zorder=3)
    ax.set_xlim(*padded(params, 0.08))
    log_axis(ax, "x", "compact", 6)
    note(ax, f"bars: {100 * held_out.level:g} % interval of one new run")
    ax.set_xlabel(f"model size N, {size_name(held_out.size_column)}")
    ax.set_ylabel(ERROR)


def _sides(held_out: "HeldOut") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measured (n,), predicted (n,), intervals (n, 2)."""
    if not held_out.runs:
        raise UserError("no held-out run to draw: mark runs as held_out, or check the law on another table")
    runs = held_out.runs
    return (
        np.array([run.measured for run in runs]),
        np.array([run.prediction.loss_nats for run in runs]),
        np.array([run.prediction.interval for run in runs]),
    )
