"""A process that is killed leaves none of those that it started: compilers, the probe of `doctor`, those of `bench`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.outcomes import RUN

from lmscale.core.signals import LIFELINE_VARIABLE, lifeline

NOTE = """
import os, sys, time
from pathlib import Path
def wait(*_):
    Path(sys.argv[1]).parent.joinpath("pid").write_text(f"{os.getpid()} ")
    while True: time.sleep(0.01)
"""
"""A function that notes its process beside the file of the first argument, and never returns."""
COMPILER = f"""{NOTE}
from lmscale.lm.aot import worker
worker.write_reply = wait
sys.exit(worker.main(Path(sys.argv[1])))
"""
PROBE = f"""{NOTE}
from lmscale.lm.devices import probe
probe.facts = wait
sys.exit(probe.main(Path(sys.argv[1]), False))
"""
PLAN = """
import json, sys, tempfile
from pathlib import Path
from lmscale.core.config import RunConfig
from lmscale.core.machines import machine
from lmscale.study.compiled import pool
folder = Path(sys.argv[1])
tempfile.tempdir = str(folder)
config = RunConfig.from_json(json.loads((folder / "config.json").read_text()))
pool.compile_jobs({"key": pool.Job(config)}, machine("v5e-4"), print, [sys.executable, str(folder / "child.py")])
"""
DOCTOR = """
import sys, tempfile
from pathlib import Path
from lmscale.commands.doctor import DoctorArgs, checks
folder = Path(sys.argv[1])
tempfile.tempdir = str(folder)
checks.PROBE = (sys.executable, str(folder / "child.py"))
checks.probe(DoctorArgs())
"""


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    limit = time.monotonic() + seconds
    while not holds() and time.monotonic() < limit:
        time.sleep(0.01)
    return holds()


def alive(process: int) -> bool:
    """Whether a process of another parent runs still; one that has ended may not be collected yet."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks a process up in /proc")
@pytest.mark.parametrize(("parent", "child"), [(PLAN, COMPILER), (DOCTOR, PROBE)], ids=["compiler", "probe"])
def test_a_killed_parent_leaves_no_process(parent: str, child: str, tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(child, "utf-8")
    (tmp_path / "config.json").write_text(json.dumps(RUN.to_json()), "utf-8")
    with subprocess.Popen([sys.executable, "-c", parent, str(tmp_path)]) as process:
        try:
            assert eventually(lambda: any(file.read_text().endswith(" ") for file in tmp_path.glob("*/pid")))
        finally:
            process.kill()
    (file,) = tmp_path.glob("*/pid")
    started = int(file.read_text())
    gone = eventually(lambda: not alive(started), 10.0)
    if not gone:
        os.kill(started, signal.SIGKILL)
    assert gone, "the process that it started runs on"


def test_a_process_of_bench_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(RUN.to_json()), "utf-8")
    config = str(tmp_path / "config.json")
    command = [sys.executable, "-m", "lmscale", "bench", "--config", config, "--steps", "1000000"]
    with lifeline() as descriptor:
        variables = {**os.environ, LIFELINE_VARIABLE: str(descriptor)}
        process = subprocess.Popen(command, env=variables, pass_fds=(descriptor,), stderr=subprocess.DEVNULL)
    try:
        assert process.wait(30) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
