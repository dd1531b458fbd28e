"""What the end of an attempt means, and what to do about it."""

import math
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lmscale.core.config import RunConfig
from lmscale.core.exit_status import EXIT_BUSY, EXIT_INTERRUPTED, EXIT_MEMORY, EXIT_STORAGE, EXIT_USER_ERROR
from lmscale.core.files import open_regular, parse_json, read_bytes, storage_error, write_json
from lmscale.core.run_folder import FAILED_FILE, LOG_FILE, RETRIED_FILE
from lmscale.study.launch import lease

Kind = Literal["done", "stopped", "busy", "input", "memory", "storage", "crash"]

CRASHES = 3
"""How often a run that crashed or was killed is started again."""
STORAGE_TRIES = 12
"""How often a run that met a full disk is started again: with the pauses between, for some seven minutes."""
LONGEST_PAUSE_SECONDS = 60.0
LOG_LINES = 12
AMBIGUOUS_IN_A_PACK: frozenset[Kind] = frozenset({"crash", "memory", "input"})
"""Endings that do not say which of several runs in a program is at fault: smaller packs are tried first."""

KINDS: dict[int, Kind] = {
    0: "done",
    EXIT_USER_ERROR: "input",
    EXIT_BUSY: "busy",
    EXIT_MEMORY: "memory",
    EXIT_STORAGE: "storage",
    EXIT_INTERRUPTED: "stopped",
    -signal.SIGTERM: "stopped",  # asked before it had installed its handler
}


@dataclass(frozen=True)
class Ending:
    """How an attempt ended: its exit status, negative for a signal, and a sentence."""

    status: int
    reason: str

    @property
    def kind(self) -> Kind:
        """What the status stands for; an unknown one is a crash."""
        return KINDS.get(self.status, "crash")


def judge(status: int, folder: Path, memory_ran_out: bool) -> Ending:
    """The ending of a process with exit `status`; `memory_ran_out`: the system killed processes in the meantime."""
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
        with open_regular(folder / LOG_FILE) as file:
            file.seek(max(0, file.seek(0, 2) - 200 * 80))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-number:]


def memory_kills() -> int:
    """How many processes the system has killed since boot because memory ran out; 0 where it does not say."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])
    return 0


@dataclass
class Tally:
    """How the attempts at a run have ended since it was last retried."""

    counts: Counter[Kind] = field(default_factory=Counter)
    """How often each kind occurred, as far as it says something about this run."""
    max_pack_size: float = math.inf
    """The most runs that may share a program in the next attempt, this one included."""

    def add(self, kind: Kind, pack_size: int) -> bool:
        """Note an attempt by a program of `pack_size` runs; whether it counts as an attempt at this run."""
        if pack_size > 1 and kind in AMBIGUOUS_IN_A_PACK:
            self.max_pack_size = min(self.max_pack_size, pack_size // 2)
            return False
        self.counts[kind] += 1
        return True


def tally(folder: Path) -> Tally:
    """The tally of the run in `folder`. An attempt that died without a record of its end has crashed."""
    forgiven, total = 0, Tally()
    with suppress(OSError, ValueError):
        retried = parse_json(read_bytes(folder / RETRIED_FILE))
        forgiven = count if isinstance(retried, dict) and type(count := retried.get("attempts")) is int else 0
    for attempt in lease.history(folder):
        if attempt.number > forgiven and (attempt.end is not None or attempt.dead()):
            kind = KINDS.get(attempt.end["status"], "crash") if attempt.end else "crash"
            total.add(kind, attempt.count_of("together"))
    return total


def pause_seconds(kind: Kind, counts: Counter[Kind], crashes: int = CRASHES) -> float | None:
    """How long to wait before the next attempt after one that ended as `kind`, its count included; None: give up."""
    if kind in ("crash", "storage"):
        if counts[kind] > (crashes if kind == "crash" else STORAGE_TRIES):
            return None
        return min(LONGEST_PAUSE_SECONDS, 2.0 ** (counts[kind] - 1))
    return None if kind == "input" else 0.0


def with_less_memory(config: RunConfig, times: int = 1) -> RunConfig | None:
    """The same run in less memory: its batch in twice as many micro-batches, then more rematerialisation, `times` over.

    None where no step is left. Neither is part of the run's identity: the update stays the same.
    """
    for _ in range(times):
        rows = config.optimizer.batch_sequences // config.mesh.batch_devices
        now = config.optimizer.micro_batches
        more = next((number for number in range(2 * now, rows + 1) if rows % number == 0), None)
        if more is not None:
            config = replace(config, optimizer=replace(config.optimizer, micro_batches=more))
        elif config.model.remat != "full":
            stronger: Literal["dots", "full"] = "dots" if config.model.remat == "none" else "full"
            config = replace(config, model=replace(config.model, remat=stronger))
        else:
            return None
    return config


def give_up(folder: Path, reason: str) -> None:
    """Record that the run in `folder` has failed, with the last lines of its log."""
    write_json(folder / FAILED_FILE, {"reason": reason, "log": last_lines(folder)})


def forgive(folder: Path) -> None:
    """Allow the run in `folder` new attempts, as if it had never failed. Raises `UserError` where it cannot write."""
    last = lease.newest(folder)
    write_json(folder / RETRIED_FILE, {"attempts": last.number if last else 0})
    try:
        (folder / FAILED_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(folder / FAILED_FILE, error) from error
