"""How far every run of a sweep is, read from its folder: fast, since a folder may hold ten thousand runs."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmscale.core.files import read_json
from lmscale.core.plans import plan_path, read_plan
from lmscale.core.run_folder import OUTCOME_FILE, failure_reason, last_metrics, reported
from lmscale.study.launch import failures, lease
from lmscale.study.launch.lease import Attempt

ENDED = ("finished", "diverged", "failed")
"""States after which nothing more happens to a run unasked."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """One run as its folder shows it."""

    run_id: str
    params: int
    flops: int
    """Training FLOPs planned."""
    state: str
    """finished; diverged; running; silent (on another machine, without a heartbeat); stopped (begun, at work nowhere);
    failed (given up); corrupt; missing."""
    remark: str = ""
    """Why the run is not finished, where it runs, how often it was tried."""
    flops_done: float = 0.0
    loss_nats: float | None = None
    mfu: float | None = None
    seconds: float = 0.0
    """Wall time of training, known at the end."""
    seconds_left: float | None = None
    reported: dict[str, float] = field(default_factory=dict)
    """What the run's objective reports besides the loss, by name."""


def read_states(folder: Path) -> tuple[str, list[RunState]]:
    """Name of the sweep in `folder` and the states of its runs. Raises `UserError` for an absent or corrupt plan."""
    plan = read_json(plan_path(folder), "plan")
    try:
        return plan["sweep"], [_state(folder, line) for line in plan["runs"]]
    except (
        KeyError,
        TypeError,
        AttributeError,
    ):  # corrupt, which `read_plan` reports, or from before its lines had counts
        name, runs = read_plan(folder)
        return name, [_state(folder, run.to_json()) for run in runs]


def _state(folder: Path, line: dict[str, Any]) -> RunState:
    run_folder = f"{folder}/{line['run_id']}"  # a Path costs more than reading the file
    known = {name: line[name] for name in ("run_id", "params", "flops")}
    note = "held out" if line["held_out"] else ""
    try:
        with open(f"{run_folder}/{OUTCOME_FILE}", "rb") as file:  # noqa: PTH123
            outcome = json.load(file)
        return RunState(
            **known,
            state=outcome["state"],
            remark=outcome["reason"] or note,
            flops_done=outcome["flops"],
            **{name: outcome[name] for name in ("loss_nats", "mfu", "seconds")},
            reported={name: value for name, value in (outcome.get("reported") or {}).items() if value is not None},
        )
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        return RunState(**known, state="corrupt", remark=f"{run_folder}/{OUTCOME_FILE} cannot be read; delete it")
    if not os.path.isdir(run_folder):  # noqa: PTH112
        return RunState(**known, state="missing", remark=note)
    return _begun(Path(run_folder), known, line["tokens"], note)


def _begun(folder: Path, known: dict[str, Any], tokens: int, note: str) -> RunState:
    row, attempt = last_metrics(folder) or {}, lease.newest(folder)
    state, remark, left = "missing", note, None
    if (reason := failure_reason(folder)) is not None:
        state, remark = "failed", reason
    elif attempt is not None and not attempt.dead():
        silent = attempt.dead() is None and abs(time.time() - attempt.changed_ns / 1e9) > lease.STALE_SECONDS
        state, remark = "silent" if silent else "running", _how(attempt, note)
        if row and not silent:
            left = (tokens - row["tokens"]) / row["tokens_per_second"]
    elif attempt is not None or row:
        end = (attempt.end if attempt else None) or {"status": 1, "reason": "ended without a word"}
        state, remark = "stopped", "" if failures.KINDS.get(end["status"]) == "stopped" else end["reason"]
    return RunState(
        **known,
        state=state,
        remark=remark or note,
        flops_done=row.get("flops", 0.0),
        loss_nats=row.get("loss_nats"),
        mfu=row.get("mfu"),
        seconds_left=left,
        reported=reported(row),
    )


def _how(attempt: Attempt, note: str) -> str:
    """Where a run is at work, the number of its attempt, and how its batch was divided to fit into memory."""
    remarks = [note, attempt.where if attempt.dead() is None else ""]
    remarks += [f"attempt {attempt.number}"] * (attempt.number > 1)
    remarks += [f"{attempt.value.get('micro_batches')} micro-batches"] * (attempt.value.get("micro_batches", 1) > 1)
    return ", ".join(remark for remark in remarks if remark)
