"""What the operating system says of this machine, and that nothing else asks it a second way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.architecture import FILES

from lmscale.core.host import available_memory_bytes, start_ticks, usable_cores


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
        for question in ("sched_getaffinity", "cpu_count", "MemAvailable"):
            assert path == "core/host" or question not in file.read_text("utf-8"), f"{path} asks for {question} itself"
