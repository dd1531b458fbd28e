"""The machine as the operating system describes it: usable cores, available memory, when a process began."""

import os
from contextlib import suppress
from pathlib import Path

CORES_VARIABLE = "LMSCALE_CORES"
"""Environment variable: comma-separated numbers of the processors that one run may use."""
MEMORY_VARIABLE = "LMSCALE_MEMORY_BYTES"
"""Environment variable: the most of the machine's memory that one run may plan with; runs side by side share it."""


def usable_cores() -> list[int]:
    """Numbers of the processors that this process may run on, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def available_memory_bytes() -> int | None:
    """Bytes of the machine's memory that new work can take without swapping; None where the system does not say."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return None


def start_ticks(pid: int) -> int | None:
    """When process `pid` began, in clock ticks since boot; None for one that has ended or where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
