"""The machine as the operating system describes it: usable cores, available memory, when a process began."""

import os
import platform
import zlib
from contextlib import suppress
from pathlib import Path

from lmscale.core import cgroups
from lmscale.core.errors import UserError

CORES_VARIABLE = "LMSCALE_CORES"
"""Environment variable: comma-separated numbers of the processors that one run may use."""
MEMORY_VARIABLE = "LMSCALE_MEMORY_BYTES"
"""Environment variable: the most of the machine's memory that one run may plan with; runs side by side share it."""


def machine_cores() -> int:
    """All processors that the system knows, usable by this process or not."""
    return os.cpu_count() or 1


def usable_cores() -> list[int]:
    """Numbers of the processors that this process may use, ascending: by affinity and quota, but at least one.

    A quota limits how many are used at a time, not which. Which ones depends on the machine's name, which in a
    container is its own: those side by side on one host would otherwise all use the first ones.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(machine_cores()))
    quota = cgroups.quota_cores()
    most = len(cores) if quota is None else max(1, int(quota))
    if most >= len(cores):
        return cores
    first = zlib.crc32(platform.node().encode()) % len(cores)
    return sorted((cores * 2)[first : first + most])


def available_memory_bytes() -> int | None:
    """Bytes of memory that new work can take without swapping, within the limits of its container.

    None where the system does not say.
    """
    limits = [cgroups.free_memory_bytes()]
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        limits.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    return min((limit for limit in limits if limit is not None), default=None)


def memory_share_bytes() -> int | None:
    """Bytes of memory that a launcher has assigned to this process; None where none has.

    Raises `UserError` for what is no number.
    """
    share = os.environ.get(MEMORY_VARIABLE)
    if not share:
        return None
    if not (share.isascii() and share.isdigit()):
        raise UserError(f"{MEMORY_VARIABLE}={share}: give a number of bytes, or unset it")
    return int(share)


def start_ticks(pid: int) -> int | None:
    """When process `pid` began, in clock ticks since boot; None for one that has ended or where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
