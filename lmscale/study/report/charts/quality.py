"""How well a law fits: residuals, and held-out runs predicted against measured."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.study.plots.axes import padded, size_name
from lmscale.study.plots.fit_quality import ERROR
from lmscale.study.plots.style import LOSS
from lmscale.study.report.marks import Axis, Chart, Mark, ink

if TYPE_CHECKING:
    from lmscale.study.fits import HeldOut


def residuals(law: Any, against: str, held_out: "HeldOut | None") -> Chart:
    """Measured minus predicted loss in per cent against one input; held-out runs open."""
    inputs = [float(value) for value in law.residuals[against]]
    errors = 100 * (np.asarray(law.residuals["measured"]) / np.asarray(law.residuals["predicted"]) - 1)
    spread = 2 * float(np.sqrt(np.mean(errors**2)))
    names, y, filled = [str(run) for run in law.residuals["run"]], errors.tolist(), [True] * len(inputs)
    for run in held_out.runs if held_out else ():
        inputs.append(float(run.prediction.inputs[against]))
        y.append(100 * run.error)
        names.append(run.run)
        filled.append(False)
    log = min(inputs) > 0
    margin = 0.04 * (max(inputs) - min(inputs)) or 1.0
    ends = padded(inputs, 0.04) if log else (min(inputs) - margin, max(inputs) + margin)
    labels = {"params": f"model size N, {size_name(law.size_column)}", "tokens": "training length D, tokens"}
    return Chart(
        f"residuals against {against}",
        Axis(labels.get(against, against), *ends, log=log, numerals="compact" if log else "plain"),
        Axis(ERROR, *_around([*y, -spread, spread]), log=False),
        [
            Mark("strip", "twice the root mean square", low=[-spread], high=[spread], colour=ink("line"), opacity=0.35),
            Mark("level", "no error", y=[0.0], colour=ink("muted"), width=1),
            Mark("points", "residual", inputs, y, runs=names, filled=filled, colour=ink("3"), key=_open_key(filled)),
        ],
    )


def _open_key(filled: Sequence[bool]) -> str:
    return "runs (filled: fitted; open: held out)" if not all(filled) else "fitted runs"


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Ends of a linear axis around values, zero among them."""
    low, high = min(0.0, *values), max(0.0, *values)
    margin = 0.08 * (high - low) or 1.0
    return low - margin, high + margin


def predictions(check: "HeldOut") -> Chart:
    """Predicted against measured losses of held-out runs, with the interval of one new run."""
    measured = [run.measured for run in check.runs]
    predicted = [run.prediction.loss_nats for run in check.runs]
    known = [run for run in check.runs if run.has_interval]
    ends = [run.prediction.interval for run in known]
    every = [*measured, *predicted, *(end for pair in ends for end in pair)]
    margin = 0.06 * (max(every) - min(every) or 0.1)
    low, high = min(every) - margin, max(every) + margin
    interval = f"{100 * check.level:g} % interval of one new run"
    bars = Mark(
        "bars", interval, [run.measured for run in known], low=[pair[0] for pair in ends],
        high=[pair[1] for pair in ends], colour=ink("3"), opacity=0.7, key=interval,
    )  # fmt: skip
    return Chart(
        "predicted and measured losses",
        Axis(f"measured {LOSS}", low, high, log=False),
        Axis(f"predicted {LOSS}", low, high, log=False),
        [
            Mark("line", "measured as predicted", [low, high], [low, high], colour=ink("muted"), width=1),
            *([bars] if known else []),
            Mark("points", "held-out run", measured, predicted, runs=[run.run for run in check.runs], colour=ink("3"),
                 filled=[False] * len(measured), key="held-out runs"),
        ],
    )  # fmt: skip


def prediction_errors(check: "HeldOut") -> Chart:
    """Errors of the predictions against N, with the interval of one new run around none."""
    params = [float(run.prediction.inputs["params"]) for run in check.runs]
    errors = [100 * run.error for run in check.runs]
    known = [(n, run.prediction) for n, run in zip(params, check.runs) if run.has_interval]
    ends = [tuple(100 * (end / one.loss_nats - 1) for end in one.interval) for _, one in known]
    bars = Mark(
        "bars", f"{100 * check.level:g} % interval of one new run", [n for n, _ in known], low=[low for low, _ in ends],
        high=[high for _, high in ends], colour=ink("3"), opacity=0.7,
    )  # fmt: skip
    return Chart(
        "errors of the predictions",
        Axis(f"model size N, {size_name(check.size_column)}", *padded(params, 0.08), numerals="compact"),
        Axis(ERROR, *_around([*errors, *(end for pair in ends for end in pair)]), log=False),
        [
            Mark("level", "no error", y=[0.0], colour=ink("muted"), width=1),
            *([bars] if known else []),
            Mark("points", "held-out run", params, errors, runs=[run.run for run in check.runs], colour=ink("3"),
                 filled=[False] * len(params), key="held-out runs"),
        ],
    )  # fmt: skip
