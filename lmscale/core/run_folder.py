"""The names of all files in the folder of a sweep and of a run, and the readers of a run's metrics.

runs/<sweep>/plan.json                              the planned runs
runs/<sweep>/{slurm, jobs, report}/                 what was submitted or exported; the report
runs/<sweep>/<run_id>/config.json                   what is trained
runs/<sweep>/<run_id>/{metrics.jsonl, checkpoints/} while it trains
runs/<sweep>/<run_id>/outcome.json                  what came out
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmscale.core.errors import UserError

PLAN_FILE = "plan.json"
SLURM_FOLDER = "slurm"
"""In a sweep's folder: the array scripts that were submitted, the runs of each job, what Slurm wrote."""
JOBS_FOLDER = "jobs"
"""In a sweep's folder: a script or manifest for every run, as `lmscale export-jobs` writes them."""
REPORT_FOLDER = "report"
REPORT_FILE = "report.html"
CONFIG_FILE = "config.json"
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
RETRIED_FILE = "retried.json"
"""The number of the last attempt that no longer counts; `lmscale retry` writes it."""

METRICS_COLUMNS = (
    "step", "tokens", "flops", "loss_nats", "learning_rate", "grad_norm", "tokens_per_second", "mfu",
    "validation_loss_nats", "validation_stderr",
)  # fmt: skip
"""Columns of a run's metrics whatever it learns; others are what its objective reports."""

TAIL_BYTES = 4096
"""Read from the end of a run's metrics for its newest row; a row takes some 500."""


def failure_reason(folder: Path) -> str | None:
    """Why the run in `folder` has failed, None where it has not."""
    try:
        value = json.loads((folder / FAILED_FILE).read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError:
        return "failed; why cannot be read any more"
    return str(value.get("reason", "")) if isinstance(value, dict) else ""


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


def read_metrics(folder: Path) -> tuple[list[dict[str, Any]], int | None]:
    """The rows of a run's metrics up to the first corrupt line, and the number of that line, counted from 1, or None.

    A killed process or machine can leave a corrupt line. A last line without an end is still being written: it is no
    row and not corrupt either.
    """
    rows: list[dict[str, Any]] = []
    try:
        lines = (folder / METRICS_FILE).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return rows, None
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is None:
            return rows, number if line.endswith(b"\n") and line.strip() else None
        rows.append(row)
    return rows, None


def last_metrics(folder: Path) -> dict[str, Any] | None:
    """The row in the last whole line of a run's metrics, None where there is none; reads the end of the file only."""
    try:
        with (folder / METRICS_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
        return _row(lines[-1]) if lines else None
    except OSError:
        return None


def reported(row: Mapping[str, Any]) -> dict[str, float]:
    """What the objective of a run reports in a row of its metrics, by name."""
    return {name: value for name, value in row.items() if name not in METRICS_COLUMNS and isinstance(value, float)}


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of metrics, None unless it is an object in UTF-8 with a step."""
    with suppress(ValueError, RecursionError):
        row = json.loads(line.decode("utf-8"))
        return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
    return None
