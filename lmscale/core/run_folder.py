"""What stands in the folder of a sweep and of a run, and how its lines are read.

runs/<sweep>/plan.json                              the planned runs
runs/<sweep>/<run_id>/config.json                   what is trained
runs/<sweep>/<run_id>/{metrics.jsonl, checkpoints/} while it trains
runs/<sweep>/<run_id>/outcome.json                  what came out
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

PLAN_FILE = "plan.json"
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
OUTCOME_FILE = "outcome.json"
LOG_FILE = "log.txt"
FAILED_FILE = "failed.json"
"""Why a run without an outcome was given up; `lmscale retry` removes it."""
SCORES_FILE = "scores.jsonl"
"""Of a run's checkpoints on benchmark tasks: one row per task, metric and number of shots."""
RESPONSES_FOLDER = "responses"
"""A model's response to every item of a task, one file per task and number of shots."""
CHECKPOINT_FOLDER = "checkpoints"
ATTEMPTS_FOLDER = "attempts"
"""One numbered file per attempt at a run; the newest is the lease on it."""
STOP_FILE = "stop"
"""In a run's folder, or in its sweep's: whoever trains there is to stop. `lmscale stop` writes and removes it."""
RETRIED_FILE = "retried.json"
"""The number of the attempt up to which none counts any more; `lmscale retry` writes it."""


def given_up(folder: Path) -> str | None:
    """Why the run in `folder` has failed, None where it has not."""
    try:
        value = json.loads((folder / FAILED_FILE).read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError:
        return "failed; why cannot be read any more"
    return str(value.get("reason", "")) if isinstance(value, dict) else ""


def read_metrics(folder: Path) -> tuple[list[dict[str, Any]], int | None]:
    """The rows of a run's metrics, up to the first line that is none, and the number of that line, counted from 1.

    A killed process or machine can leave such a line, and the last one may still be on its way: that is None.
    """
    rows: list[dict[str, Any]] = []
    try:
        lines = (folder / METRICS_FILE).read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return rows, None
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is None:
            return rows, number if line.endswith("\n") and line.strip() else None
        rows.append(row)
    return rows, None


def _row(line: str | bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        row = json.loads(line)
        return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
    return None


def last_metrics(folder: Path) -> dict[str, Any] | None:
    """The newest whole row of a run's metrics, None before the first; reads the end of the file only."""
    try:
        with (folder / METRICS_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().split(b"\n")[:-1]
        return _row(lines[-1]) if lines else None
    except OSError:
        return None
