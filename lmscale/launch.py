"""Start what is missing: one process per run, as many at once as the machine carries, stopped cleanly by Ctrl-C.

A run is `python -m lmscale train <folder>/config.json` and nothing more. Its state is in its folder: a run with an
outcome is not started again, an interrupted one goes on from its last checkpoint.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lmscale.config import check
from lmscale.counting import count
from lmscale.files import storage_error, write_json
from lmscale.process import CORES_VARIABLE, EXIT_INTERRUPTED, stop_requested
from lmscale.results import CONFIG_FILE, LOG_FILE, METRICS_FILE, Outcome, PlannedRun, write_plan

POLL_SECONDS = 0.2
STOP_SECONDS = 60.0
"""How long a run gets to save its checkpoint before it is killed."""


@dataclass(frozen=True)
class Slot:
    """A place where one run at a time can live: environment variables that confine it."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)


def slots(workers: int | None = None) -> list[Slot]:
    """One slot per GPU where there are GPUs, else one per core; `workers` cuts or widens the list.

    On a CPU, runs side by side on a core each beat one run on all cores: the products of small models are too small to
    share out.
    """
    if gpus := _gpus():
        found = [Slot(f"gpu {gpu}", {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in gpus]
        return found[:workers] if workers else found
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    workers = workers or len(cores)
    shares = [cores[i :: min(workers, len(cores))] for i in range(min(workers, len(cores)))]
    return [
        Slot(f"cpu {','.join(map(str, share))}", {CORES_VARIABLE: ",".join(map(str, share)), "JAX_PLATFORMS": "cpu"})
        for share in (shares[i % len(shares)] for i in range(workers))
    ]


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [item for item in visible.split(",") if item.strip() and item.strip() != "-1"]
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu") or not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return listed.stdout.split() if listed.returncode == 0 else []


class Watcher(Protocol):
    """Told what happens; `progress.Bars` draws it."""

    def started(self, slot: Slot, run: PlannedRun) -> None:
        """`run` begins in `slot`."""

    def advanced(self, slot: Slot, run: PlannedRun, row: dict[str, Any]) -> None:
        """`row` is the newest line of the run's metrics."""

    def ended(self, slot: Slot, run: PlannedRun, outcome: Outcome | None, problem: str) -> None:
        """The run is over; `problem` says why there is no outcome."""


@dataclass(frozen=True)
class Summary:
    """How a launch ended."""

    finished: int
    diverged: int
    failed: dict[str, str]
    """run_id -> the last line of its log."""
    interrupted: bool


@dataclass
class _Running:
    slot: Slot
    run: PlannedRun
    folder: Path
    process: subprocess.Popen[bytes]
    seen: int = -1


def run(
    name: str,
    runs: Sequence[PlannedRun],
    folder: Path,
    watcher: Watcher,
    *,
    workers: int | None = None,
    wandb: str = "off",
) -> Summary:
    """Write the plan of the sweep `name` into `folder` and train every run of it that has no outcome, longest first.

    Raises `UserError` for a corrupt outcome, a full disk and a folder that cannot be written.
    """
    check(workers is None or workers > 0, f"--workers {workers}: must be at least 1")
    write_plan(folder, name, list(runs))
    waiting = [planned for planned in runs if Outcome.read(folder / planned.config.run_id) is None]
    waiting.sort(key=lambda planned: count(planned.config).flops)  # popped from the end: the longest first
    free = slots(workers)
    active: list[_Running] = []
    failed: dict[str, str] = {}
    with stop_requested() as stop:
        try:
            while (waiting and not stop()) or active:
                while waiting and free and not stop():
                    active.append(_start(free.pop(0), waiting.pop(), folder, watcher, wandb))
                if stop():
                    _terminate(active)
                time.sleep(POLL_SECONDS)
                for one in list(active):
                    _look(one, watcher)
                    if one.process.poll() is None:
                        continue
                    active.remove(one)
                    free.append(one.slot)
                    if problem := _end(one, watcher):
                        failed[one.run.config.run_id] = problem
        finally:
            _terminate(active)
    outcomes = [Outcome.read(folder / planned.config.run_id) for planned in runs]
    states = [outcome.state for outcome in outcomes if outcome]
    return Summary(states.count("finished"), states.count("diverged"), {} if stop() else failed, stop())


def _start(slot: Slot, planned: PlannedRun, folder: Path, watcher: Watcher, wandb: str) -> _Running:
    place = folder / planned.config.run_id
    config = place / CONFIG_FILE
    write_json(config, planned.config.to_json())
    try:
        with (place / LOG_FILE).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lmscale", "train", str(config), "--wandb", wandb],
                env={**os.environ, **slot.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the launcher alone, which then stops its runs in order
            )
    except OSError as error:
        raise storage_error(place / LOG_FILE, error) from error
    watcher.started(slot, planned)
    return _Running(slot, planned, place, process)


def _look(one: _Running, watcher: Watcher) -> None:
    row = last_row(one.folder)
    if row is not None and row["step"] != one.seen:
        one.seen = row["step"]
        watcher.advanced(one.slot, one.run, row)


def _end(one: _Running, watcher: Watcher) -> str:
    """Tell the watcher; returns why there is no outcome, or nothing."""
    outcome = Outcome.read(one.folder)
    problem = ""
    if outcome is None:
        problem = _problem(one)
    watcher.ended(one.slot, one.run, outcome, problem)
    return problem


def _problem(one: _Running) -> str:
    code = one.process.returncode
    if code in (EXIT_INTERRUPTED, -signal.SIGTERM):  # the latter: asked before it could listen
        return "stopped"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + " (out of memory?)" * (code == -signal.SIGKILL)
    return _last_line(one.folder / LOG_FILE) or f"exit status {code}"


def last_row(folder: Path) -> dict[str, Any] | None:
    """The newest whole line of a run's metrics, None before the first."""
    try:
        with (folder / METRICS_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().split(b"\n")[:-1]
        return json.loads(lines[-1]) if lines else None
    except (OSError, ValueError):
        return None


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1].strip() if lines else ""


def _terminate(active: list[_Running]) -> None:
    """Ask every run to save and stop; kill what has not stopped in time."""
    for one in active:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
    limit = time.monotonic() + STOP_SECONDS
    for one in active:
        try:
            one.process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
