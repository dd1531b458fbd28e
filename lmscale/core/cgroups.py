"""What a container may use: the limits of control groups, version 1 and 2, on processors and memory.

A limit holds for everything below it, so the least one on the way from this process's group to the top counts. Inside
of a container the path of the group may be that of the host, which is not mounted here: then the container's own group
is the top of what is mounted. Cpusets need no reading: the system itself keeps a process's affinity within its own.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")
"""Lists the group of this process in every hierarchy."""
MOUNT = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60
"""Version 1 writes a number near 2^63 for no limit."""


def quota_cores() -> float | None:
    """Processors' worth of time that this process and those in its container may use together; None without a limit."""
    quotas = []
    for folder in _folders("cpu"):
        with suppress(OSError, ValueError):
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
                period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
            if quota != "max" and int(quota) > 0 and int(period) > 0:
                quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def free_memory_bytes() -> int | None:
    """Bytes that the limits leave; None without a limit. Pages of files that can be dropped at once count as free."""
    free = []
    for folder in _folders("memory"):
        with suppress(OSError, ValueError):
            two = (folder / "memory.max").exists()
            limit = (folder / ("memory.max" if two else "memory.limit_in_bytes")).read_text(encoding="ascii").strip()
            used = int((folder / ("memory.current" if two else "memory.usage_in_bytes")).read_text(encoding="ascii"))
            if limit != "max" and int(limit) < UNLIMITED:
                dropped = _inactive_file_bytes(folder, "inactive_file" if two else "total_inactive_file")
                free.append(max(0, int(limit) - max(0, used - dropped)))
    return min(free, default=None)


def _inactive_file_bytes(folder: Path, name: str) -> int:
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            if line.split()[:1] == [name]:
                return int(line.split()[1])
    return 0


def _folders(controller: str) -> Iterator[Path]:
    """The folders of this process's group that has `controller` and of those above it, the lowest first."""
    groups = []
    with suppress(OSError):
        groups = [line.split(":", 2) for line in GROUPS.read_text(encoding="utf-8", errors="replace").splitlines()]
    for _, controllers, path in (group for group in groups if len(group) == 3):
        if controllers and controller not in controllers.split(","):
            continue
        mounts = (controllers, controller) if controllers else ("", "unified")  # unified: version 2 beside version 1
        for mount in dict.fromkeys(MOUNT / name for name in mounts):
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for length in range(len(parts), -1, -1):
                if (folder := mount.joinpath(*parts[:length])).is_dir():
                    yield folder
