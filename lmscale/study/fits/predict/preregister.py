"""Predictions written down before the run, and the verdict after it.

A prediction file holds the predicted losses with their intervals, the hash of the fitted rows and of the code that
fitted them, a time, and a hash of all of this, so that a later edit shows.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.arguments import Number, checked
from lmscale.core.errors import UserError, nearest
from lmscale.core.files import read_json, sha256, write_json
from lmscale.study.fits import sizes
from lmscale.study.fits.checks.stages import one_stage
from lmscale.study.fits.options import read
from lmscale.study.fits.results.common import LEVELS, clean, why_no_interval
from lmscale.study.fits.results.loss_law_json import law_source
from lmscale.study.fits.results.saved import SavedFields, interval, saved_size
from lmscale.study.fits.runs import results_of
from lmscale.study.tables import TableSource, numbers

if TYPE_CHECKING:
    from lmscale.study.fits.results.loss_law import LossLaw

JUDGED_BY = "0.95"
"""The level of the interval by which a prediction held or failed."""
SAME_POINT = 0.02  # a run counts as the predicted one when every input agrees within 2 %


SOURCES = ("fits", "laws", "tables", "grouping.py")
"""Folders and files of `study` that turn a table into a prediction."""


def code_hash(study: Path = Path(__file__).parents[2]) -> str:
    """SHA-256 over the sources that turn a table into a prediction, by their paths and contents."""
    digest = hashlib.sha256()
    for name in SOURCES:
        place = study / name
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        assert files, f"{place} holds no sources: preregister.SOURCES names the folders that make a prediction"
        for file in files:
            digest.update(file.relative_to(study).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


@checked
def register(
    fit: "LossLaw", points: Sequence[Mapping[str, float]], path: str | Path, saved: str | Path | None = None
) -> dict[str, Any]:
    """Write the predictions of `fit` at `points` to `path` and return them; `saved` is the file that holds the fit.

    Raises `UserError` where the file exists (a registered prediction is not overwritten), where an input is missing,
    or where the fit has no resamples to state an interval with.
    """
    if Path(path).exists():
        raise UserError(f"{path} already holds a registered prediction: give another path, or delete it knowingly")
    if fit.samples is None:
        reason = why_no_interval(fit.status)
        raise UserError(f"a prediction needs an interval: {reason or 'fit with `resamples=4000`'}")
    predictions = []
    for point in points:
        levels = {f"{level:g}": fit.predict(level, **point) for level in LEVELS}
        one = levels["0.95"]
        predictions.append(
            {
                "inputs": dict(point),
                "loss_nats": one.loss_nats,
                "law_intervals": {key: list(p.law_interval) for key, p in levels.items()},
                "mean_intervals": {key: list(p.mean_interval) for key, p in levels.items()},
                "intervals": {key: list(p.interval) for key, p in levels.items()},
            }
        )
    value = clean(
        {
            "predictions": predictions,
            "target": fit.law.TARGET,
            "law": fit.law.NAME,
            **law_source(type(fit.law)),
            "parameters": fit.law.values(),
            "loss_function": fit.loss_function,
            "delta": fit.delta,
            "n_runs": fit.n_runs,
            "lack_of_fit": None if fit.lack_of_fit is None else fit.lack_of_fit.to_json(),
            "size_column": fit.size_column,
            "table_hash": fit.table_hash,
            **({} if saved is None else {"fit": {"path": str(saved), "sha256": sha256(saved)}}),
            "code_hash": code_hash(),
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
    )
    value["hash"] = _hash(value)
    write_json(path, value)
    return dict(value)


def _hash(value: Mapping[str, Any]) -> str:
    plain = {key: item for key, item in value.items() if key != "hash"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, allow_nan=False).encode()).hexdigest()


@dataclass(frozen=True)
class _Registered:
    """One prediction of a file: where, what loss, and its intervals by level."""

    inputs: dict[str, float]
    loss_nats: float
    intervals: dict[str, tuple[float, float]]

    @classmethod
    def of(cls, value: Any, what: str) -> "_Registered":
        fields = SavedFields.of(value, what)
        ends = fields.part("intervals")
        intervals = {str(level): interval(ends[level], f"the interval {level} of {what}") for level in ends.value}
        if JUDGED_BY not in intervals:
            raise UserError(f"{what} has no {100 * float(JUDGED_BY):g} % interval, by which a prediction is judged")
        return cls(fields.numbers("inputs"), fields.number("loss_nats"), intervals)


def _read(path: str | Path) -> tuple[SavedFields, list[_Registered]]:
    """A file of predictions. Raises `UserError` where it is none, is damaged, or is not as it was written."""
    value = read_json(path, "registered prediction", "give the file that `lmscale fit TABLE --predict` wrote")
    if not (isinstance(value, dict) and isinstance(value.get("predictions"), list) and "hash" in value):
        raise UserError(
            f"{path} is no registered prediction: write one with lmscale fit TABLE --predict params=...,tokens=..."
        )
    fields = SavedFields(value, f"the prediction {path}")
    predictions = fields.each("predictions", _Registered.of)
    for name in ("target", "written", "table_hash", "code_hash"):
        fields.text(name)
    if value["hash"] != _hash(value):
        raise UserError(
            f"{path} is not as it was written: its hash does not fit its content, so it is no prediction of before the "
            f"run and there is no verdict; restore the file as `lmscale fit` wrote it"
        )
    if not predictions:
        raise UserError(f"{path} holds no prediction")
    return fields, predictions


@checked
def check(
    path: str | Path,
    *,
    loss_nats: Number | None = None,
    table: TableSource | None = None,
    stage: str | None = None,
) -> dict[str, Any]:
    """The verdict on a registered prediction: `loss_nats` measured for its one point, or the runs of a table.

    Of a table of several stages of training those of `stage` alone are taken, pretraining unless another is given.

    Returns {"verdicts": [...], "same_code": bool, "written": ...}; each verdict holds inputs, predicted, measured (the
    mean of the runs), error (measured / predicted - 1), `inside` per level, `held` (inside the interval `JUDGED_BY` of
    one new run), and the runs. Raises `UserError` where the file is no prediction, where it is not as it was written,
    or where nothing was measured at its points.
    """
    fields, predictions = _read(path)
    if (loss_nats is None) == (table is None):
        raise UserError("give the measured loss, or the table that holds the run: one of the two")
    if loss_nats is not None and len(predictions) != 1:
        raise UserError(
            f"{path} holds {len(predictions)} predictions and one loss was given: give the table of the runs instead"
        )
    if loss_nats is not None and not 0 < loss_nats < math.inf:
        raise UserError(f"the measured loss is {loss_nats:g} nats: it must be positive and finite")
    rows = None if table is None else sizes.counted_by(one_stage(read(table), stage), saved_size(fields))
    return {
        "verdicts": [_verdict(one, loss_nats, rows, fields.text("target")) for one in predictions],
        "judged_by": JUDGED_BY,
        "same_code": fields["code_hash"] == code_hash(),
        "written": fields["written"],
        "table_hash": fields["table_hash"],
    }


def _verdict(prediction: _Registered, loss_nats: float | None, rows: Any, target: str) -> dict[str, Any]:
    """One prediction beside what was measured."""
    measured, runs = ([loss_nats], ["given"]) if loss_nats is not None else _measured(prediction.inputs, rows, target)
    mean = sum(measured) / len(measured)
    inside = {level: low <= mean <= high for level, (low, high) in prediction.intervals.items()}
    verdict = {
        "inputs": prediction.inputs,
        "predicted": prediction.loss_nats,
        "measured": mean,
        "runs": runs,
        "error": mean / prediction.loss_nats - 1,
        "intervals": prediction.intervals,
        "inside": inside,
        "held": inside[JUDGED_BY],
    }
    return dict(clean(verdict))


def _measured(inputs: Mapping[str, float], table: Any, target: str) -> tuple[list[float], list[str]]:
    """The losses of the finished runs at a predicted point, each run once, and their names."""
    for name in (*inputs, target):
        if name not in table:
            raise UserError(f"the table has no column {name!r}{nearest(name, map(str, table.columns))}")
    near = table
    for name, value in inputs.items():
        near = near[np.abs(numbers(near, name) - value) <= SAME_POINT * abs(value)]
    at = ", ".join(f"{name} = {value:.4g}" for name, value in inputs.items())
    nowhere = f"no finished run of the table lies within {SAME_POINT:.0%} of {at}"
    if not len(near):
        raise UserError(f"{nowhere}: run that point, or give its loss")
    try:
        rows = results_of(near, tuple(inputs), target).table
    except UserError as error:
        raise UserError(f"{nowhere}: {error}") from None
    return [float(loss) for loss in rows[target]], [str(run) for run in rows["run"]]


def verdict_lines(verdict: Mapping[str, Any]) -> list[str]:
    """The verdict as text."""
    level = f"{100 * float(verdict['judged_by']):g} %"
    lines = [
        f"Prediction written {verdict['written']}; the file is unchanged"
        f"{'' if verdict['same_code'] else '; the code has changed since'}. Judged by the {level} interval of one new "
        f"run; errors are measured minus predicted."
    ]
    for one in verdict["verdicts"]:
        at = ", ".join(f"{name} = {value:.4g}" for name, value in one["inputs"].items())
        low, high = one["intervals"][verdict["judged_by"]]
        mean = f", the mean of {len(one['runs'])} runs," if len(one["runs"]) > 1 else ""
        lines.append(
            f"  {'HELD' if one['held'] else 'FAILED'}: {at}: measured {one['measured']:.4f}{mean} "
            f"{'inside' if one['held'] else 'outside'} [{low:.4f}, {high:.4f}] ({level}), predicted "
            f"{one['predicted']:.4f} nats ({100 * one['error']:+.2f} %)"
        )
    return lines
