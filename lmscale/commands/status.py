"""How far every run of a sweep is, read from its folder: fast, since a folder may hold ten thousand runs."""

import json
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lmscale.commands.progress import duration, quantity
from lmscale.core.files import read_json
from lmscale.core.plans import plan_path, read_plan
from lmscale.core.run_folder import OUTCOME_FILE, failure_reason, last_metrics
from lmscale.study.launch import failures
from lmscale.study.launch import lease as attempts

SHOWN = 200
"""Rows that are shown unasked; of a larger sweep, those that are at work or in trouble."""
WATCH_SECONDS = 2.0
HEADINGS = ("run", "N", "C", "state", "done", "loss", "MFU", "left", "")
LEFT_BOUND = ("run", "state", "")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """One run as its folder shows it."""

    run_id: str
    params: int
    flops: int
    """Training FLOPs planned."""
    state: str
    """finished; diverged; running; silent (on another machine, without a sign of life); stopped (begun, nobody at it);
    failed (given up); corrupt; missing."""
    said: str = ""
    """Why it is not finished, where it runs, how often it was tried."""
    flops_done: float = 0.0
    loss_nats: float | None = None
    mfu: float | None = None
    seconds: float = 0.0
    """Wall time of training, known at the end."""
    seconds_left: float | None = None


def read(folder: Path) -> tuple[str, list[RunState]]:
    """Name and runs of the sweep in `folder`. Raises `UserError` where there is no plan or it is corrupt."""
    plan = read_json(plan_path(folder), "plan")
    try:
        return plan["sweep"], [_state(folder, line) for line in plan["runs"]]
    except (KeyError, TypeError, AttributeError):  # corrupt, which is said here, or from before its lines had counts
        name, runs = read_plan(folder)
        return name, [_state(folder, run.to_json()) for run in runs]


def _state(folder: Path, line: dict[str, Any]) -> RunState:
    place = f"{folder}/{line['run_id']}"  # a Path costs more than reading the file
    known = {name: line[name] for name in ("run_id", "params", "flops")}
    note = "held out" if line["held_out"] else ""
    try:
        with open(f"{place}/{OUTCOME_FILE}", "rb") as file:  # noqa: PTH123
            outcome = json.load(file)
        return RunState(
            **known,
            state=outcome["state"],
            said=outcome["reason"] or note,
            flops_done=outcome["flops"],
            **{name: outcome[name] for name in ("loss_nats", "mfu", "seconds")},
        )
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        return RunState(**known, state="corrupt", said=f"{place}/{OUTCOME_FILE} cannot be read; delete it")
    if not os.path.isdir(place):  # noqa: PTH112
        return RunState(**known, state="missing", said=note)
    return _begun(Path(place), known, line["tokens"], note)


def _begun(place: Path, known: dict[str, Any], tokens: int, note: str) -> RunState:
    row, lease = last_metrics(place) or {}, attempts.newest(place)
    state, said, left = "missing", note, None
    if (reason := failure_reason(place)) is not None:
        state, said = "failed", reason
    elif lease is not None and not lease.dead():
        silent = lease.dead() is None and abs(time.time() - lease.changed_ns / 1e9) > attempts.STALE_SECONDS
        state, said = "silent" if silent else "running", _how(lease, note)
        if row and not silent:
            left = (tokens - row["tokens"]) / row["tokens_per_second"]
    elif lease is not None or row:
        end = (lease.end if lease else None) or {"status": 1, "reason": "ended without a word"}
        state, said = "stopped", "" if failures.KINDS.get(end["status"]) == "stopped" else end["reason"]
    return RunState(
        **known,
        state=state,
        said=said or note,
        flops_done=row.get("flops", 0.0),
        loss_nats=row.get("loss_nats"),
        mfu=row.get("mfu"),
        seconds_left=left,
    )


def _how(lease: attempts.Attempt, note: str) -> str:
    """Where a run is at work, and what was done to get it there."""
    parts = [note, lease.where if lease.dead() is None else ""]
    parts += [f"attempt {lease.number}"] * (lease.number > 1)
    parts += [f"{lease.value.get('micro_batches')} micro-batches"] * (lease.value.get("micro_batches", 1) > 1)
    return ", ".join(part for part in parts if part)


def show(folder: Path, console: Console, watch: bool = False, everything: bool = False) -> None:
    """Print the state of every run of the plan in a sweep's folder; with `watch`, anew until all are at an end."""
    if not watch:
        console.print(_shown(*read(folder), everything), crop=False)
        return
    with Live(console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            name, runs = read(folder)
            live.update(_shown(name, runs, everything), refresh=True)
            if all(run.state in ("finished", "diverged", "failed") for run in runs):
                return
            time.sleep(WATCH_SECONDS)


def _shown(name: str, runs: list[RunState], everything: bool) -> Group:
    """The table at its own width, so that a narrow terminal loses no digit, and sentences that are wrapped."""
    states = Counter(run.state for run in runs)
    shown = runs
    if len(runs) > SHOWN and not everything:
        shown = [run for run in runs if run.state not in ("finished", "missing")][:SHOWN]
    said = [", ".join(f"{number:,} {state}" for state, number in states.items()), _spend(runs)]
    if len(shown) < len(runs):
        said.insert(0, f"... {len(runs) - len(shown):,} more: --all shows every run")
    if states["running"]:
        said.append("loss: of a run under way the training loss, else that of validation, in nats per token.")
    if states["failed"]:
        said.append("`lmscale logs RUN` shows a log's end; `lmscale retry` lets what has failed be tried again.")
    table = Text("\n".join([name, *_table(shown)]), no_wrap=True, overflow="ignore")
    return Group(table, Text("\n".join(said)))


def _table(runs: list[RunState]) -> list[str]:
    """Lines of columns as wide as their widest cell."""
    cells = [HEADINGS, *(_cells(run) for run in runs)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return [
        "  ".join(
            cell.ljust(width) if heading in LEFT_BOUND else cell.rjust(width)
            for cell, width, heading in zip(row, widths, HEADINGS)
        ).rstrip()
        for row in cells
    ]


def _cells(run: RunState) -> tuple[str, ...]:
    return (
        run.run_id,
        quantity(run.params),
        f"{run.flops:.2e}",
        run.state,
        f"{run.flops_done / run.flops:.0%}",
        _number(run.loss_nats, ".4f"),
        _number(run.mfu, ".2f"),
        "" if run.seconds_left is None else duration(run.seconds_left),
        run.said,
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _spend(runs: list[RunState]) -> str:
    spent, budget = sum(run.flops_done for run in runs), sum(run.flops for run in runs)
    return (
        f"spent {spent:.3g} of {budget:.3g} training FLOPs planned ({spent / budget:.0%}); finished runs took "
        f"{duration(sum(run.seconds for run in runs))}"
    )
