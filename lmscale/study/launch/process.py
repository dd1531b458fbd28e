"""A process, told apart from any other that has or had its number, on this machine or another."""

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lmscale.core.config import check_types
from lmscale.core.host import start_ticks


@dataclass(frozen=True)
class Process:
    """A process, as the file of an attempt stores it."""

    host: str
    pid: int
    machine: str
    """The boot and the namespace of process numbers, within which `pid` means something; empty where unknown."""
    started: str
    """When it began, in ticks since boot: setting a clock does not move this."""

    def __post_init__(self) -> None:
        check_types(self)

    @classmethod
    def this(cls) -> "Process":
        """The process that runs this."""
        return cls(socket.gethostname(), os.getpid(), _this_machine(), start_of(os.getpid()) or "")

    def dead(self) -> bool | None:
        """Whether the process has ended; None where that cannot be known from here."""
        if not self.machine or self.machine != _this_machine():
            return None
        return start_of(self.pid) != self.started


@cache
def _this_machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def start_of(pid: int) -> str | None:
    """When a living process began, in ticks since boot; None for a dead one, even if its parent has not reaped it."""
    ticks = start_ticks(pid)
    return None if ticks is None else str(ticks)
