"""A sweep of 12 runs, disturbed in every way that a night on a cluster knows, ends as one that was left alone.

    python -m pytest -m slow -s tests/faults     # prints how many faults were survived

Two launchers share the work. Meanwhile workers and launchers are killed with SIGKILL at random, the disk is full for a
while, checkpoints are made unreadable, one run diverges by itself and one needs more memory than it is given.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lmscale.core.exit_status import EXIT_STORAGE
from lmscale.core.plans import read_plan
from lmscale.core.results import Outcome
from lmscale.core.run_folder import failure_reason
from lmscale.study.launch.failures import KINDS
from lmscale.study.launch.lease import Attempt, newest
from lmscale.study.launch.lease import history as history_of

pytestmark = pytest.mark.slow

MEMORY_BYTES = 90_000_000
"""Memory of every launcher, which trains one run at a time: the largest run is estimated to need some 150 MB."""
DISK = "48m"
SAME = ("state", "loss_nats", "loss_stderr", "bits_per_byte", "tokens", "flops", "unique_tokens", "spikes", "reason")
MOST_KILLS_OF_A_RUN = 2
"""After one more crash than three a run is given up, as it should be."""

SWEEP = """
from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.sweep import Sweep

def recipe(point):
    wide, wild = point["kind"] == "large", point["kind"] == "wild"
    batch = 1024 if wide else 8
    return RunConfig(
        model=ModelConfig(width=16, layers=1, heads=1, context=32),
        optimizer=OptimizerConfig(peak_lr=1e4 if wild else 0.01, batch_sequences=batch, clip_norm=None),
        data=DataConfig(source={corpus!r}, max_epochs=1e9),
        tokens=(40 if wide else 2500 + 100 * point["seed"]) * batch * 32,
        seed=point["seed"],
        validation_tokens=4096,
        validations=2,
        checkpoint_seconds=0.5,
    )

SWEEP = Sweep(
    name="twelve",
    points=[*({{"kind": "plain", "seed": seed}} for seed in range(10)), {{"kind": "wild", "seed": 0}},
            {{"kind": "large", "seed": 0}}],
    recipe=recipe,
    tokens_per_param=(0, 1e9),
)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, so that it can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system, to fill it")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


class Launchers:
    """`lmscale run` so many times at once, each started again when it was killed."""

    def __init__(self, sweep: Path, runs: Path, number: int, log: Path) -> None:
        self.command = [sys.executable, "-m", "lmscale", "run", str(sweep), "--runs", str(runs), "--workers", "1"]
        self.command += ["--force"]
        self.environment = {**os.environ, "LMSCALE_MEMORY_BYTES": str(MEMORY_BYTES), "JAX_PLATFORMS": "cpu"}
        self.log, self.statuses = log, Counter[int]()
        self.alive = [self._start() for _ in range(number)]

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log)

    def over(self) -> bool:
        """Whether all have come to their end; who was killed is replaced."""
        for process in list(self.alive):
            if (status := process.poll()) is None:
                continue
            self.alive.remove(process)
            if status in (-signal.SIGKILL, EXIT_STORAGE):  # the latter: it was started while the disk was full
                self.alive.append(self._start())
            else:
                self.statuses[status] += 1
        return not self.alive


class Trouble:
    """Does harm to the sweep in `folder`, one kind after the other, as chance will have it."""

    def __init__(self, folder: Path, launchers: Launchers) -> None:
        self.folder, self.launchers, self.chance = folder, launchers, random.Random(7)
        self.done: Counter[str] = Counter()
        self.kills: Counter[str] = Counter()
        self.promised: dict[Path, tuple[int, int]] = {}
        """log -> its length when the run was last killed, the step of the newest sound checkpoint it had then."""

    def at_work(self) -> list[tuple[Path, Attempt]]:
        """Runs whose process lives and that may be killed once more."""
        leases = [(path, newest(path)) for path in sorted(self.folder.iterdir()) if (path / "attempts").is_dir()]
        return [
            (path, lease)
            for path, lease in leases
            if lease and lease.dead() is False and lease.holder and self.kills[path.name] < MOST_KILLS_OF_A_RUN
        ]

    def kill_worker(self, spoil: bool = False) -> bool:
        """SIGKILL to a run that has a checkpoint (two, where the newest is to be spoiled). False where none has."""
        able = [(path, lease, steps(path)) for path, lease in self.at_work()]
        able = [one for one in able if len(one[2]) > spoil]
        if not able:
            return False
        path, lease, known = self.chance.choice(able)
        assert lease.holder
        os.kill(lease.holder.pid, signal.SIGSTOP)
        if (path / "outcome.json").exists():
            os.kill(lease.holder.pid, signal.SIGCONT)
            return False
        known = steps(path)
        if spoil:
            for file in (path / "checkpoints" / str(known[-1]) / "state").rglob("*"):
                if file.is_file():
                    file.write_bytes(bytes(file.stat().st_size))
        self.settle(path / "log.txt", must=False)  # it may be killed again before it has gone on
        self.promised[path / "log.txt"] = (path / "log.txt").stat().st_size, known[-2 if spoil else -1]
        os.kill(lease.holder.pid, signal.SIGKILL)
        self.kills[path.name] += 1
        self.done["a checkpoint unreadable" if spoil else "a worker killed"] += 1
        return True

    def settle(self, log: Path, must: bool = True) -> None:
        """Nothing is trained again from before the checkpoint that a killed run had."""
        length, step = self.promised.pop(log, (0, 0))
        added_text = log.read_bytes()[length:].decode()
        later = re.search(r"going on from step ([\d,]+)", added_text)
        if step and (later or must):
            assert later and int(later[1].replace(",", "")) >= step, f"{log}, step {step}: {added_text}"

    def kill_launcher(self) -> bool:
        if not self.at_work():
            return False
        self.chance.choice(self.launchers.alive).kill()
        self.done["a launcher killed"] += 1
        return True

    def fill_disk(self) -> bool:
        """Until somebody has noticed, and a little longer."""
        filler = self.folder.parent / "filler"
        end = time.monotonic() + 30
        while time.monotonic() < end and not self._noticed():
            free = shutil.disk_usage(self.folder).free
            with suppress(OSError), filler.open("ab") as file:  # a run that writes meanwhile has filled it as well
                file.write(bytes(max(0, free - 4096)))
            time.sleep(0.2)
        noticed = self._noticed()
        filler.unlink()
        self.done["the disk full"] += noticed
        return noticed

    def _noticed(self) -> bool:
        return "is full" in self.launchers.log.read_text()


def steps(run: Path) -> list[int]:
    """The steps of the sound checkpoints of a run: not those that were spoiled and have not been looked at since."""
    checkpoints = (path for path in (run / "checkpoints").glob("[0-9]*") if path.name.isdigit())
    return sorted(int(path.name) for path in checkpoints if all(map(_written, (path / "facts", path / "state"))))


def _written(folder: Path) -> bool:
    """A full disk can leave a checkpoint whose facts are empty; `Trouble` writes zeros."""
    files = [file for file in folder.glob("*") if file.is_file()]
    return bool(files) and all(file.read_bytes().strip(b"\0") for file in files)


def outcomes(folder: Path) -> dict[str, dict[str, Any]]:
    outcome_of = {run.config.run_id: Outcome.read(folder / run.config.run_id) for run in read_plan(folder)[1]}
    return {
        run_id: {name: getattr(outcome, name) for name in SAME} for run_id, outcome in outcome_of.items() if outcome
    }


def wait(launchers: Launchers, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not launchers.over():
        assert time.monotonic() < end, launchers.log.read_text()[-4000:]
        time.sleep(0.1)


def test_a_disturbed_sweep_ends_as_one_left_alone(tmp_path: Path, disk: Path) -> None:
    corpus = tmp_path / "text.txt"
    corpus.write_text("\n\n".join(f"{number} green bottles hanging on wall {number % 7}" for number in range(4000)))
    sweep = tmp_path / "twelve.py"
    sweep.write_text(SWEEP.format(corpus=str(corpus)))

    calm = Launchers(sweep, tmp_path / "calm", 2, tmp_path / "calm.txt")
    wait(calm, 600)
    expected = outcomes(tmp_path / "calm" / "twelve")
    assert sorted(outcome["state"] for outcome in expected.values()) == ["diverged"] + ["finished"] * 11

    launchers = Launchers(sweep, disk, 2, tmp_path / "log.txt")
    folder = disk / "twelve"
    trouble = Trouble(folder, launchers)
    plan = [trouble.kill_worker, trouble.kill_launcher, lambda: trouble.kill_worker(spoil=True), trouble.fill_disk,
            trouble.kill_worker, trouble.kill_launcher, trouble.kill_worker, lambda: trouble.kill_worker(spoil=True),
            trouble.kill_worker, trouble.kill_worker]  # fmt: skip
    while not folder.is_dir():
        assert not launchers.over(), launchers.log.read_text()
        time.sleep(0.05)
    end = time.monotonic() + 600
    while not launchers.over():
        assert time.monotonic() < end
        if plan and plan[0]():
            plan.pop(0)
            time.sleep(trouble.chance.uniform(0, 1.5))
        time.sleep(0.05)
    log_text = launchers.log.read_text()

    assert not plan, f"the sweep was over before all harm was done: {trouble.done}\n{log_text[-3000:]}"
    assert launchers.statuses == Counter({0: 2}), log_text[-3000:]
    assert outcomes(folder) == expected
    assert not any(failure_reason(folder / run_id) for run_id in expected)
    for log in list(trouble.promised):
        trouble.settle(log)
    history = [attempt for run_id in expected for attempt in history_of(folder / run_id)]
    kinds = Counter(KINDS.get(attempt.end["status"], "crash") if attempt.end else "crash" for attempt in history)
    assert kinds["done"] >= 12 and kinds["memory"] >= 1 and kinds["crash"] >= trouble.done["a worker killed"]
    logs = "".join((folder / run_id / "log.txt").read_text() for run_id in expected)
    assert logs.count("cannot be read and is skipped") >= trouble.done["a checkpoint unreadable"]
    trouble.done["memory exceeded"] = kinds["memory"]
    trouble.done["diverged"] = 1
    survived = ", ".join(f"{number} x {what}" for what, number in trouble.done.items())
    print(f"\n{trouble.done.total()} faults survived: {survived}; {len(history)} attempts for {len(expected)} runs")
    assert json.loads((folder / "plan.json").read_text())["sweep"] == "twelve"
