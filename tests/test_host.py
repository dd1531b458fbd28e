"""What the operating system says of this machine, and that nothing else asks it a second way."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.architecture import FILES

from lmscale.core import cgroups, host
from lmscale.core.errors import UserError
from lmscale.core.host import available_memory_bytes, start_ticks, usable_cores
from lmscale.study.launch import slots


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="a process cannot choose its cores here")
def test_usable_cores_are_those_that_the_process_may_run_on() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {%d}); from lmscale.core.host import usable_cores; print(usable_cores())"
    )
    last = max(os.sched_getaffinity(0))
    done = subprocess.run([sys.executable, "-c", program % last], capture_output=True, text=True, check=True)
    assert done.stdout == f"[{last}]\n"


def test_without_affinity_all_cores_are_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_cores() == [0, 1, 2]


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="there is no /proc here")
def test_available_memory_is_less_than_all_memory() -> None:
    available = available_memory_bytes()
    assert available is not None and 0 < available < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc here")
def test_a_process_has_a_start_until_it_has_ended() -> None:
    mine = start_ticks(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        theirs = start_ticks(process.pid)
        assert mine is not None and theirs is not None and theirs > mine
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert start_ticks(process.pid) is None  # dead, though its parent has not asked for its status
    assert start_ticks(process.pid) is None


def test_only_core_host_counts_cores_and_reads_memory() -> None:
    for path, file in FILES.items():
        for question in ("sched_getaffinity", "cpu_count", "MemAvailable", "/sys/fs/cgroup"):
            assert path in ("core/host", "core/cgroups") or question not in file.read_text("utf-8"), (
                f"{path} asks for {question} itself"
            )


Tree = dict[str, str]


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Tree], None]:
    """A function that makes the files below /sys/fs/cgroup, and the list of this process's groups, those given."""

    def write(groups: str, files: Tree) -> None:
        (tmp_path / "cgroup").write_text(groups)
        for name, text in files.items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    monkeypatch.setattr(cgroups, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path / "sys")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return write


V1 = "5:cpuset:/a/b\n4:cpu,cpuacct:/a/b\n3:memory:/a/b\n1:name=systemd:/x\n0::/\n"
QUOTAS: dict[str, tuple[str, Tree, int]] = {
    "none": ("0::/\n", {}, 8),
    "version 2": ("0::/\n", {"cpu.max": "200000 100000"}, 2),
    "version 2, no limit": ("0::/\n", {"cpu.max": "max 100000"}, 8),
    "version 2, half a core": ("0::/\n", {"cpu.max": "50000 100000"}, 1),
    "version 2, two and a half": ("0::/\n", {"cpu.max": "250000 100000"}, 2),
    "nested, the upper one less": ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
    "nested, the lower one less": ("0::/a/b\n", {"a/cpu.max": "600000 100000", "a/b/cpu.max": "40000 10000"}, 4),
    "the host's path": ("0::/docker/5f0c\n", {"cpu.max": "300000 100000"}, 3),
    "a path out of the container": ("0::/../sibling\n", {"cpu.max": "300000 100000"}, 3),
    "more than there are": ("0::/\n", {"cpu.max": "6400000 100000"}, 8),
    "damaged": ("0::/\n", {"cpu.max": "?"}, 8),
    "version 1": (V1, {"cpu,cpuacct/a/b/cpu.cfs_quota_us": "500000", "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000"}, 5),
    "version 1, by the controller": (V1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"}, 2),
    "version 1, no limit": (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
}


@pytest.mark.parametrize(("groups", "files", "cores"), QUOTAS.values(), ids=QUOTAS)
def test_the_limits_of_a_container_are_respected(
    groups: str, files: Tree, cores: int, container: Callable[[str, Tree], None]
) -> None:
    container(groups, files)
    assert len(usable_cores()) == cores == len(set(usable_cores())) and set(usable_cores()) <= set(range(8))


def test_a_quota_says_how_many_and_affinity_which(
    container: Callable[[str, Tree], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    container("0::/\n", {"cpu.max": "300000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 5, 6, 7}, raising=False)
    used = set()
    for node in ("one", "two", "three", "four", "five"):
        monkeypatch.setattr(host.platform, "node", lambda node=node: node)
        assert set(usable_cores()) < {4, 5, 6, 7} and usable_cores() == sorted(usable_cores())
        used.add(tuple(usable_cores()))
    assert len(used) > 1, "containers side by side do not all use the same"


def test_the_launcher_has_as_many_slots_as_a_quota_allows(
    container: Callable[[str, Tree], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    container("0::/\n", {"cpu.max": "300000 100000", "memory.max": str(4 << 20), "memory.current": str(1 << 20)})
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv(host.MEMORY_VARIABLE, raising=False)
    shares = slots()
    assert len(shares) == 3
    assert {slot.environment[host.MEMORY_VARIABLE] for slot in shares} == {str(int(0.9 * (3 << 20)) // 3)}


MEMORY: dict[str, tuple[str, Tree, int | None]] = {
    "none": ("0::/\n", {"memory.max": "max", "memory.current": "5"}, None),
    "version 2": ("0::/\n", {"memory.max": "1000", "memory.current": "600"}, 400),
    "pages of files": (
        "0::/\n",
        {"memory.max": "1000", "memory.current": "600", "memory.stat": "anon 100\ninactive_file 500"},
        900,
    ),
    "nested": (
        "0::/a\n",
        {"a/memory.max": "max", "a/memory.current": "1", "memory.max": "50", "memory.current": "20"},
        30,
    ),
    "more used than allowed": ("0::/\n", {"memory.max": "10", "memory.current": "60"}, 0),
    "version 1": (V1, {"memory/a/b/memory.limit_in_bytes": "99", "memory/a/b/memory.usage_in_bytes": "9"}, 90),
    "version 1, no limit": (
        V1,
        {"memory/memory.limit_in_bytes": str((1 << 63) - 4096), "memory/memory.usage_in_bytes": "9"},
        None,
    ),
}


@pytest.mark.parametrize(("groups", "files", "free"), MEMORY.values(), ids=MEMORY)
def test_memory_is_what_a_container_leaves(
    groups: str, files: Tree, free: int | None, container: Callable[[str, Tree], None]
) -> None:
    container(groups, files)
    assert cgroups.free_memory_bytes() == free
    if free is not None:
        assert available_memory_bytes() == free, "less than the machine has"


@pytest.mark.parametrize("cores", ["x", "1,", "99999", "-1"])
def test_cores_that_are_none_of_this_machine_are_one_sentence(cores: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmscale.lm.devices import machine

    monkeypatch.setenv(host.CORES_VARIABLE, cores)
    with pytest.raises(UserError, match=rf"LMSCALE_CORES={cores}: give numbers of processors"):
        machine._claim_cores()


def test_a_run_without_a_launcher_runs_on_the_usable_cores(
    container: Callable[[str, Tree], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmscale.lm.devices import machine

    container("0::/\n", {"cpu.max": "200000 100000"})
    monkeypatch.delenv(host.CORES_VARIABLE, raising=False)
    claimed: list[set[int]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: claimed.append(cores), raising=False)
    machine._claim_cores()
    assert claimed == [set(usable_cores())] and len(claimed[0]) == 2
