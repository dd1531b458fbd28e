"""Predictions written down before the run, and the verdict after it.

A prediction file holds the predicted losses with their intervals, the hash of the fitted rows and of the code that
fitted them, a time, and a hash of all of this, so that a later edit shows.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core.errors import UserError, nearest
from lmscale.core.files import read_json, write_json
from lmscale.study.fits.options import read
from lmscale.study.fits.results.common import LEVELS, clean, why_no_interval
from lmscale.study.fits.results.loss_law import law_source

if TYPE_CHECKING:
    from lmscale.study.fits.options import TableSource
    from lmscale.study.fits.results.loss_law import LossLaw

SAME_POINT = 0.02  # a run counts as the predicted one when every input agrees within 2 %


SOURCES = ("fits", "laws", "tables.py")
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


def register(fit: "LossLaw", points: Sequence[Mapping[str, float]], path: str | Path) -> dict[str, Any]:
    """Write the predictions of `fit` at `points` to `path` and return them.

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
            "table_hash": fit.table_hash,
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


def check(path: str | Path, *, loss_nats: float | None = None, table: "TableSource | None" = None) -> dict[str, Any]:
    """The verdict on a registered prediction: `loss_nats` measured for its one point, or the runs of a table.

    Returns {"verdicts": [...], "intact": bool, "same_code": bool, "written": ...}; each verdict holds inputs,
    predicted, measured, error (relative), `inside` per level, and the runs. Raises `UserError` where the file is no
    prediction or nothing was measured at its points.
    """
    value = read_json(path, "registered prediction")
    if not (isinstance(value, dict) and isinstance(value.get("predictions"), list) and "hash" in value):
        raise UserError(
            f"{path} is no registered prediction: write one with lmscale fit TABLE --predict params=...,tokens=..."
        )
    predictions = value["predictions"]
    if (loss_nats is None) == (table is None):
        raise UserError("give the measured loss, or the table that holds the run: one of the two")
    if loss_nats is not None and len(predictions) != 1:
        raise UserError(
            f"{path} holds {len(predictions)} predictions and one loss was given: give the table of the runs instead"
        )
    rows = None if table is None else read(table)
    verdicts = []
    for prediction in predictions:
        measured, runs = (
            ([float(loss_nats)], ["given"]) if loss_nats is not None else _measured(prediction, rows, value["target"])
        )
        mean = sum(measured) / len(measured)
        verdicts.append(
            clean(
                {
                    "inputs": prediction["inputs"],
                    "predicted": prediction["loss_nats"],
                    "measured": mean,
                    "runs": runs,
                    "error": prediction["loss_nats"] / mean - 1,
                    "intervals": prediction["intervals"],
                    "inside": {
                        level: bool(low <= mean <= high) for level, (low, high) in prediction["intervals"].items()
                    },
                }
            )
        )
    return {
        "verdicts": verdicts,
        "intact": value["hash"] == _hash(value),
        "same_code": value["code_hash"] == code_hash(),
        "written": value["written"],
        "table_hash": value["table_hash"],
    }


def _measured(prediction: Mapping[str, Any], table: Any, target: str) -> tuple[list[float], list[str]]:
    inputs = prediction["inputs"]
    for name in (*inputs, target):
        if name not in table:
            raise UserError(f"the table has no column {name!r}{nearest(name, map(str, table.columns))}")
    rows = table[table[target].notna()]
    near = rows
    for name, value in inputs.items():
        near = near[(near[name] / value - 1).abs() <= SAME_POINT]
    if not len(near):
        at = ", ".join(f"{name} = {value:.4g}" for name, value in inputs.items())
        raise UserError(
            f"no finished run of the table lies within {SAME_POINT:.0%} of {at}: run that point, or give its loss"
        )
    return [float(v) for v in near[target]], [str(run) for run in near["run"]]


def verdict_lines(verdict: Mapping[str, Any]) -> list[str]:
    """The verdict as text."""
    lines = [
        f"Prediction written {verdict['written']}; the file is "
        f"{'unchanged' if verdict['intact'] else 'NOT AS IT WAS WRITTEN: its hash does not fit its content'}"
        f"{'' if verdict['same_code'] else '; the code has changed since'}"
    ]
    for one in verdict["verdicts"]:
        at = ", ".join(f"{name} = {value:.4g}" for name, value in one["inputs"].items())
        low, high = one["intervals"]["0.95"]
        word = "HELD" if one["inside"]["0.95"] else "FAILED"
        lines.append(
            f"  {word}: {at}: predicted {one['predicted']:.4f} nats [{low:.4f}, {high:.4f}] (95 %), "
            f"measured {one['measured']:.4f} "
            f"({100 * one['error']:+.2f} %; {'inside' if one['inside']['0.8'] else 'outside'} the 80 % interval)"
        )
    return lines
