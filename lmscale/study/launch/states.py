"""How far every run of a sweep is, read from its folder: fast, since a folder may hold ten thousand runs."""

import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmscale.core.config import LARGEST_INTEGER, PRETRAIN
from lmscale.core.errors import UserError
from lmscale.core.files import parse_json, read_bytes
from lmscale.core.plans import PlannedRun, check_plan_of
from lmscale.core.results import COUNTS, STATES, Outcome
from lmscale.core.run_folder import (
    CONFIG_FILE,
    OUTCOME_FILE,
    being_scored,
    failure_reason,
    is_number,
    last_metrics,
    reported,
)
from lmscale.study.launch import failures, lease, plan_lines
from lmscale.study.launch.lease import Attempt

ENDED = ("finished", "diverged", "failed", "imported")
"""States after which nothing more happens to a run unasked."""
OPTIONAL = ("loss_nats", "mfu", "tokens_per_second")
"""Numbers that an outcome may lack."""
NUMBERS = frozenset((int, float))
"""Types of a number in JSON: a yes or no is an `int` too, so types are compared."""
_LAYOUTS: dict[tuple[Any, ...], tuple[str, ...] | None] = {}
"""What `_numbers` says, by the names and types of an outcome's fields: those of a sweep are nearly all alike."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """One run as its folder shows it."""

    run_id: str
    params: int
    active_params: int
    """Parameters that one token passes: fewer than `params` in a model with experts, else the same."""
    flops: int
    """Training FLOPs planned."""
    state: str
    """finished; diverged; running; scoring (at work, being scored on tasks); silent (on another machine, without a
    heartbeat); stopped (begun, at work nowhere); failed (given up); corrupt (its files are damaged or another run's);
    missing."""
    remark: str = ""
    """Why the run is not finished, where it runs, how often it was tried."""
    flops_done: float = 0.0
    loss_nats: float | None = None
    mfu: float | None = None
    seconds: float = 0.0
    """Time of training, known at the end."""
    seed: int = 0
    tokens: int = 0
    """Training tokens planned."""
    peak_lr: float | None = None
    """None where the plan's text does not have it."""
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    data_fingerprint: str = ""
    """The corpus and the tokenizer that it was trained on, or is planned for; empty where unknown."""
    stage: str = PRETRAIN
    """Which part of a model's life the run is."""
    reported: dict[str, float] = field(default_factory=dict)
    """What the run's objective reports besides the loss, by name."""


def read_states(folder: Path) -> tuple[str, list[RunState]]:
    """Name of the sweep in `folder` and the states of its runs.

    Raises `UserError` for an absent or corrupt plan, and for the plan of another sweep.
    """
    name, lines = plan_lines.read_lines(folder)
    check_plan_of(folder, [line["run_id"] for line in lines])
    return name, [_state(folder, line) for line in lines]


def state_of(folder: Path, run: PlannedRun) -> RunState:
    """The state of one run of the sweep in `folder`."""
    return _state(folder, plan_lines.line_of(run))


def _state(folder: Path, line: dict[str, Any]) -> RunState:
    run_folder = f"{folder}/{line['run_id']}"  # a Path costs more than reading the file
    known = {
        "run_id": line["run_id"],
        "params": line["params"],
        "active_params": line.get("active_params", line["params"]),  # older plans are of dense models
        "flops": line["flops"],
        "seed": plan_lines.seed_of(line["config"]),
        "tokens": line["tokens"],
        "peak_lr": plan_lines.peak_lr_of(line["config"]),
        "data_fingerprint": planned if isinstance(planned := line.get("data_fingerprint", ""), str) else "",
        "stage": stage if isinstance(stage := line.get("stage"), str) and stage else PRETRAIN,
    }
    note = "held out" if line["held_out"] else ""
    if (outcome := _plain_outcome(run_folder, line)) is not None:
        return _ended(outcome, known, note)
    if os.path.lexists(f"{run_folder}/{OUTCOME_FILE}"):
        return _checked(folder, line, known, note)
    if not os.path.lexists(run_folder):
        return RunState(**known, state="missing", remark=note)
    if not os.path.isdir(run_folder):  # noqa: PTH112
        return RunState(**known, state="corrupt", remark=f"{run_folder} is no folder; move it away")
    return _begun(Path(run_folder), known, line["tokens"], note)


def _ended(outcome: dict[str, Any], known: dict[str, Any], note: str) -> RunState:
    """The state of a run with an outcome."""
    known["data_fingerprint"] = outcome["data_fingerprint"]
    reported = outcome.get("reported")
    return RunState(
        **known,
        state=outcome["state"],
        remark=outcome["reason"] or note,
        flops_done=outcome["flops"],
        loss_nats=outcome["loss_nats"],
        mfu=outcome["mfu"],
        seconds=outcome["seconds"],
        tokens_per_second=outcome["tokens_per_second"],
        reported={name: value for name, value in reported.items() if value is not None} if reported else {},
    )


def _checked(folder: Path, line: dict[str, Any], known: dict[str, Any], note: str) -> RunState:
    """The state of a run whose outcome is not plainly the planned run's own, and is read in full."""
    try:
        outcome = Outcome.read(folder / line["run_id"], plan_lines.config_of(line["config"], folder))
    except UserError as error:
        return RunState(**known, state="corrupt", remark=str(error))
    if outcome is None:  # it was removed just now
        return RunState(**known, state="missing", remark=note)
    return _ended(asdict(outcome), known, note)


def _plain_outcome(run_folder: str, line: dict[str, Any]) -> dict[str, Any] | None:
    """The outcome of the planned run `line`, if it and the configuration beside it are as a training writes them."""
    try:
        outcome = parse_json(read_bytes(f"{run_folder}/{OUTCOME_FILE}"))
        if not isinstance(outcome, dict) or outcome.get("run_id") != line["run_id"]:
            return None
        if not plan_lines.is_config(read_bytes(f"{run_folder}/{CONFIG_FILE}"), line["config"]):
            return None
    except (OSError, ValueError):
        return None
    if not _is_plain(outcome):
        return None
    for name in OPTIONAL:
        outcome.setdefault(name, None)
    return outcome


def _is_plain(outcome: dict[str, Any]) -> bool:
    """Whether every field that is read here has its own type, and every number may be one of a run."""
    layout = tuple(outcome), tuple(map(type, outcome.values()))
    if layout not in _LAYOUTS:
        _LAYOUTS[layout] = _numbers(outcome)
    if (numbers := _LAYOUTS[layout]) is None:
        return False
    for name in numbers:  # ten thousand outcomes: loops cost less than generators
        if not 0 <= outcome[name] <= LARGEST_INTEGER:
            return False
    if (reported := outcome.get("reported")) and not all(
        is_number(value) for value in reported.values() if value is not None
    ):
        return False
    return outcome["state"] in STATES and (outcome["state"] != "finished" or outcome.get("loss_nats") is not None)


def _numbers(outcome: dict[str, Any]) -> tuple[str, ...] | None:
    """The fields of an outcome that are numbers; None where a field that is read here is not of its own type."""
    kinds = {name: type(value) for name, value in outcome.items()}
    right = (
        bool not in kinds.values()
        and all(kinds.get(name) in NUMBERS for name in COUNTS)
        and all(kinds.get(name, type(None)) in NUMBERS | {type(None)} for name in OPTIONAL)
        and all(kinds.get(name) is str for name in ("state", "reason", "data_fingerprint"))
        and kinds.get("reported", type(None)) in (dict, type(None))
    )
    return tuple(name for name, kind in kinds.items() if kind in NUMBERS) if right else None


def _begun(folder: Path, known: dict[str, Any], tokens: int, note: str) -> RunState:
    row, attempt = last_metrics(folder) or {}, lease.newest(folder)
    state, remark, left = "missing", note, None
    if (reason := failure_reason(folder)) is not None:
        state, remark = "failed", reason
    elif attempt is not None and not attempt.dead():
        silent = attempt.dead() is None and abs(time.time() - attempt.changed_ns / 1e9) > lease.STALE_SECONDS
        state, remark = "silent" if silent else "running", _how(attempt, note)
        if state == "running" and (scored_on := being_scored(folder)):
            state, remark = "scoring", ", ".join(filter(None, [scored_on, remark]))
        elif not silent and row.get("tokens_per_second", 0) > 0:
            left = max(0.0, (tokens - row.get("tokens", 0)) / row["tokens_per_second"])
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
        tokens_per_second=row.get("tokens_per_second"),
        seconds_left=left,
        reported=reported(row),
    )


def _how(attempt: Attempt, note: str) -> str:
    """Where a run is at work, the number of its attempt, and how its batch was divided to fit into memory."""
    remarks = [note, attempt.where if attempt.dead() is None else ""]
    remarks += [f"attempt {attempt.number}"] * (attempt.number > 1)
    micro_batches = attempt.count_of("micro_batches")
    remarks += [f"{micro_batches} micro-batches"] * (micro_batches > 1)
    return ", ".join(remark for remark in remarks if remark)
