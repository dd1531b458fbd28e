"""The names of all files in the folder of a sweep and of a run, and the readers of a run's metrics.

runs/<sweep>/plan.json                              the planned runs
runs/<sweep>/{slurm, jobs, report}/                 what was submitted or exported; the report
runs/<sweep>/<run_id>/config.json                   what is trained
runs/<sweep>/<run_id>/data.json                     what it is trained on
runs/<sweep>/<run_id>/{metrics.jsonl, checkpoints/} while it trains
runs/<sweep>/<run_id>/outcome.json                  what came out
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

from lmscale.core.config import RUN_ID_LENGTH
from lmscale.core.errors import UserError
from lmscale.core.files import open_regular, parse_json, read_bytes

PLAN_FILE = "plan.json"
SLURM_FOLDER = "slurm"
"""In a sweep's folder: the array scripts that were submitted, the runs of each job, what Slurm wrote."""
JOBS_FOLDER = "jobs"
"""In a sweep's folder: a script or manifest for every run, as `lmscale export-jobs` writes them."""
REPORT_FOLDER = "report"
REPORT_FILE = "report.html"
CONFIG_FILE = "config.json"
DATA_FILE = "data.json"
"""The fingerprints of the corpus and the tokenizer that a run was begun on; runs of earlier versions lack it."""
METRICS_FILE = "metrics.jsonl"
OUTCOME_FILE = "outcome.json"
LOG_FILE = "log.txt"
"""What the processes of a run printed."""
FAILED_FILE = "failed.json"
"""Why a run without an outcome was given up; `lmscale retry` removes it."""
SCORES_FILE = "scores.jsonl"
"""Scores of a run's checkpoints on benchmark tasks: one row per task, metric and number of shots."""
RESPONSES_FOLDER = "responses"
"""A model's response to every item of a task, one file per task and number of shots."""
SCORING_FILE = "scoring.json"
"""Which task a run at work is being scored on just now; gone when that is done."""
WANDB_OFF_FILE = "wandb-off.txt"
"""In a sweep's folder: why Weights & Biases gets nothing more from it. A new launch tries again."""
EVENTS_FOLDER = "tensorboard"
"""A run's metrics as TensorBoard's event files."""
CHECKPOINT_FOLDER = "checkpoints"
ATTEMPTS_FOLDER = "attempts"
"""One numbered file per attempt at a run; the newest is the lease on it."""
STOP_FILE = "stop"
"""In a run's folder, or in its sweep's: whoever trains there is to stop. `lmscale stop` writes and removes it."""
IMPORTED_FILE = "imported.json"
"""Where a model that was not trained here comes from; its tokenizer lies beside it."""
RETRIED_FILE = "retried.json"
"""The number of the last attempt that no longer counts; `lmscale retry` writes it."""

METRICS_COLUMNS = (
    "step", "tokens", "flops", "loss_nats", "learning_rate", "grad_norm", "tokens_per_second", "mfu",
    "validation_loss_nats", "validation_stderr", "run_id", "experts",
)  # fmt: skip
"""Columns of a run's metrics whatever it learns; others are what its objective reports. `experts` alone is no number,
but lists of numbers by layer (`Outcome.experts`)."""
MOST_STEPS = 10**15
"""No run has more, so a step beyond it is a corrupt number."""

LARGEST = 1e300
"""No number in the files of a run is larger, and each fits into a float."""
RUN_ID = re.compile(f"[0-9a-f]{{{RUN_ID_LENGTH}}}")

SCORED_ON = "scored_on"
"""Beside these columns, in the row that a launcher shows: what `being_scored` says, if anything."""

TAIL_BYTES, LONG_TAIL_BYTES = 4096, 2**22
"""Read from the end of a run's metrics for its newest row: a row takes some 500, and some 8 per expert and layer."""


def is_run_id(value: Any) -> bool:
    """Whether `value` is written as the id of a run."""
    return isinstance(value, str) and RUN_ID.fullmatch(value) is not None


def run_id_of_name(folder: str | Path) -> str | None:
    """The run that a folder is named after; None for a folder with a name of the user's own."""
    name = os.path.basename(folder)  # noqa: PTH119 - thousands of folders are read at once
    name = name if is_run_id(name) else os.path.basename(os.path.abspath(folder))  # noqa: PTH100, PTH119
    return name if is_run_id(name) else None


def failure_reason(folder: Path) -> str | None:
    """Why the run in `folder` has failed, None where it has not."""
    try:
        value = parse_json(read_bytes(folder / FAILED_FILE))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return "failed; why cannot be read any more"
    reason = value.get("reason", "") if isinstance(value, dict) else ""
    return reason if isinstance(reason, str) else "failed; why cannot be read any more"


def being_scored(folder: Path) -> str:
    """Which task the run in `folder` is being scored on, in words; empty where it is not, or nobody can tell.

    What a killed process has left is removed when the run goes on: ask only about a run that is at work.
    """
    try:
        with open_regular(folder / SCORING_FILE) as file:
            value = parse_json(file.read(TAIL_BYTES))
        return f"being scored on {value['task']} ({value['number']} of {value['of']})"
    except (OSError, UserError, ValueError, KeyError, TypeError):
        return ""


def no_run(folder: Path) -> str:
    """That a folder is no run's, and the run that is meant: one of its sweep, or below `runs`, that begins so."""
    said = f"{folder} is no run folder: it has no {CONFIG_FILE}"
    if (folder / PLAN_FILE).is_file():
        inside = sorted(path.parent for path in folder.glob(f"*/{CONFIG_FILE}"))
        return f"{said}, but a plan; give one of its runs" + (f", as {inside[0]}" if inside else "")
    begun = f"{escape(folder.name)}*/{CONFIG_FILE}"
    places = [*Path("runs").glob(f"*/{begun}"), *folder.parent.glob(begun)] if folder.name else []
    close = list({path.parent.resolve(): path.parent for path in places}.values())
    return f"{said}; did you mean {close[0]}?" if len(close) == 1 else f"{said}; give runs/<sweep>/<run_id>"


def find_run(run_id: str, beside: Path) -> Path:
    """The folder of a run by its id: in the sweep that the run folder `beside` is of, else in a sweep next to that.

    Raises `UserError` where there is none.
    """
    sweep = beside.absolute().parent
    for folder in (sweep / run_id, *sorted(sweep.parent.glob(f"*/{run_id}"))):
        if (folder / CONFIG_FILE).is_file():
            return folder
    raise UserError(
        f"there is no run {run_id} in {sweep} or in another sweep of {sweep.parent}; train or import it first"
    )


def read_metrics(folder: Path, run_id: str | None = None) -> tuple[list[dict[str, Any]], int | None]:
    """The rows of a run's metrics up to the first corrupt line, and the number of that line, counted from 1, or None.

    A killed process or machine can leave a corrupt line; a row of another run than `run_id`, by default the one that
    the folder is named after, counts as one. A last line without an end is still being written: it is no row and not
    corrupt either. Raises `UserError` for a file that cannot be read.
    """
    rows: list[dict[str, Any]] = []
    path = folder / METRICS_FILE
    try:
        lines = read_bytes(path).splitlines(keepends=True)
    except (FileNotFoundError, NotADirectoryError):
        return rows, None
    except OSError as error:
        raise UserError(f"the metrics {path} cannot be read: {error.strerror or error}") from None
    run_id = run_id or run_id_of_name(folder)
    for number, line in enumerate(lines, 1):
        row = _row(line, run_id)
        if row is None:
            return rows, number if line.endswith(b"\n") and line.strip() else None
        rows.append(row)
    return rows, None


def last_metrics(folder: Path) -> dict[str, Any] | None:
    """The row in the last whole line of a run's metrics, None where there is none; reads the end of the file only."""
    try:
        with open_regular(folder / METRICS_FILE) as file:
            for tail in (TAIL_BYTES, LONG_TAIL_BYTES):
                file.seek(max(0, file.seek(0, os.SEEK_END) - tail))
                lines = file.read().split(b"\n")[:-1]
                if len(lines) > 1:  # a whole row, whatever its length
                    break
        return _row(lines[-1], run_id_of_name(folder)) if lines else None
    except OSError:
        return None


def reported(row: Mapping[str, Any]) -> dict[str, float]:
    """What the objective of a run reports in a row of its metrics, by name."""
    return {name: value for name, value in row.items() if name not in METRICS_COLUMNS and isinstance(value, float)}


def _row(line: bytes, run_id: str | None) -> dict[str, Any] | None:
    """A line of the metrics of run `run_id`, or of any; None unless it is an object of finite numbers with a step."""
    with suppress(ValueError):
        row = parse_json(line)
        if not isinstance(row, dict) or type(step := row.get("step")) is not int or not 0 <= step <= MOST_STEPS:
            return None
        of_run = row.get("run_id")
        if of_run is not None and (not isinstance(of_run, str) or run_id not in (None, of_run)):
            return None
        # What an objective reports is null where it is not finite.
        none = {name for name, value in row.items() if value is None and name not in METRICS_COLUMNS}
        if not _is_by_layer(row.get("experts", {})):
            return None
        return row if all(is_number(row[name]) for name in row.keys() - none - {"run_id", "experts"}) else None
    return None


def _is_by_layer(value: Any) -> bool:
    """Whether a value of JSON is a mapping of lists of numbers, or of lists of such lists."""
    rows = [row for rows in value.values() for row in rows] if _has_lists(value) else [None]
    return all(is_number(row) or (isinstance(row, list) and all(map(is_number, row))) for row in rows)


def _has_lists(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(rows, list) for rows in value.values())


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that a float can hold."""
    return type(value) in (int, float) and abs(value) <= LARGEST
