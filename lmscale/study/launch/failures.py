"""What the end of an attempt means, and what is to be done about it."""

import json
import math
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lmscale.core.config import RunConfig
from lmscale.core.exit_status import EXIT_BUSY, EXIT_INTERRUPTED, EXIT_MEMORY, EXIT_STORAGE, EXIT_USER_ERROR
from lmscale.core.files import write_json
from lmscale.core.run_folder import FAILED_FILE, LOG_FILE, RETRIED_FILE
from lmscale.study.launch import lease

Kind = Literal["done", "stopped", "busy", "input", "memory", "storage", "crash"]

CRASHES = 3
"""How often a run that crashed, or was killed, is started again."""
STORAGE_TRIES = 12
"""How often one that met a full disk is: with the pauses between, for some seven minutes."""
LONGEST_PAUSE_SECONDS = 60.0
LOG_LINES = 12
UNCLEAR_TOGETHER: frozenset[Kind] = frozenset({"crash", "memory", "input"})
"""Endings of a program of several runs that say nothing of one of them: each is tried in smaller company first."""

KINDS: dict[int, Kind] = {
    0: "done",
    EXIT_USER_ERROR: "input",
    EXIT_BUSY: "busy",
    EXIT_MEMORY: "memory",
    EXIT_STORAGE: "storage",
    EXIT_INTERRUPTED: "stopped",
    -signal.SIGTERM: "stopped",  # asked before it could listen
}


@dataclass(frozen=True)
class Ending:
    """How an attempt ended: its exit status, negative for a signal, and a sentence."""

    status: int
    reason: str

    @property
    def kind(self) -> Kind:
        """What the status stands for; what is not known is a crash."""
        return KINDS.get(self.status, "crash")


def judge(status: int, folder: Path, memory_ran_out: bool) -> Ending:
    """The ending of a process that left `status`; `memory_ran_out`: the system has killed processes meanwhile."""
    kind = KINDS.get(status, "crash")
    if kind == "stopped":
        return Ending(status, "stopped")
    if status == -signal.SIGKILL and memory_ran_out:
        return Ending(EXIT_MEMORY, "killed by the system, whose memory had run out")
    if status < 0:
        return Ending(status, f"killed by {signal.Signals(-status).name}")
    return Ending(status, (last_lines(folder, 1) or [f"exit status {status}"])[0])


def last_lines(folder: Path, number: int = LOG_LINES) -> list[str]:
    """The end of a run's log, without empty lines."""
    try:
        with (folder / LOG_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 200 * 80))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-number:]


def memory_kills() -> int:
    """How many processes the system has killed for want of memory since it started; 0 where it does not say."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])
    return 0


@dataclass
class Tally:
    """How the attempts at a run have ended since it was last retried."""

    counts: Counter[Kind] = field(default_factory=Counter)
    """How often in which way, as far as that says something of this run."""
    company: float = math.inf
    """The most runs that it may share a program with the next time, itself included."""

    def add(self, kind: Kind, together: int) -> bool:
        """Note an attempt by a program of so many runs; whether it counts as one of this run."""
        if together > 1 and kind in UNCLEAR_TOGETHER:
            self.company = min(self.company, together // 2)
            return False
        self.counts[kind] += 1
        return True


def tally(folder: Path) -> Tally:
    """The tally of the run in `folder`. Who died unheard has crashed."""
    forgiven, total = 0, Tally()
    with suppress(OSError, ValueError, KeyError):
        forgiven = int(json.loads((folder / RETRIED_FILE).read_text(encoding="utf-8"))["attempts"])
    for attempt in lease.history(folder):
        if attempt.number > forgiven and (attempt.end is not None or attempt.dead()):
            kind = KINDS.get(attempt.end["status"], "crash") if attempt.end else "crash"
            total.add(kind, attempt.value.get("together", 1))
    return total


def pause_seconds(kind: Kind, counts: Counter[Kind], crashes: int = CRASHES) -> float | None:
    """How long to wait before the next attempt after one that ended as `kind`, its count included; None: give up."""
    if kind in ("crash", "storage"):
        if counts[kind] > (crashes if kind == "crash" else STORAGE_TRIES):
            return None
        return min(LONGEST_PAUSE_SECONDS, 2.0 ** (counts[kind] - 1))
    return None if kind == "input" else 0.0


def lighter(config: RunConfig, times: int = 1) -> RunConfig | None:
    """The same run in less memory, `times` steps further: its batch in twice as many parts, then more computed again.

    None where nothing is left to give up. Neither is part of the run's identity: the update stays the same.
    """
    for _ in range(times):
        rows = config.optimizer.batch_sequences // (config.mesh.data * config.mesh.fsdp)
        now = config.optimizer.micro_batches
        parts = next((parts for parts in range(2 * now, rows + 1) if rows % parts == 0), None)
        if parts is not None:
            config = replace(config, optimizer=replace(config.optimizer, micro_batches=parts))
        elif config.model.remat != "full":
            stronger: Literal["dots", "full"] = "dots" if config.model.remat == "none" else "full"
            config = replace(config, model=replace(config.model, remat=stronger))
        else:
            return None
    return config


def give_up(folder: Path, reason: str) -> None:
    """Write down that the run in `folder` has failed, with the last lines of its log."""
    write_json(folder / FAILED_FILE, {"reason": reason, "log": last_lines(folder)})


def forgive(folder: Path) -> None:
    """Let the run in `folder` be tried anew, as if it had never failed."""
    last = lease.newest(folder)
    write_json(folder / RETRIED_FILE, {"attempts": last.number if last else 0})
    (folder / FAILED_FILE).unlink(missing_ok=True)
