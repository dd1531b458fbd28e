"""Slow: a real Slurm of this machine trains what is submitted to it, and takes it up again."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.slurm_cluster import NODES, cluster, usable

from lmscale.core.results import Outcome
from lmscale.study.launch import lease


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if lacking := usable():
        pytest.skip(lacking)
    with cluster(tmp_path_factory.mktemp("slurm") / "cluster") as environment:
        yield environment


SWEEP = """
from lmscale.core.config import DataConfig, MeshConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.sweep import Sweep

def recipe(point):
    return RunConfig(
        model=ModelConfig(width=16, layers=1, heads=1, context=32),
        optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=8),
        data=DataConfig(source={corpus!r}, max_epochs=1e9),
        tokens=point["steps"] * 8 * 32, seed=point["seed"], validation_tokens=4096, validations=2,
        checkpoint_seconds=0.5, mesh=MeshConfig(data=point["devices"]),
    )

SWEEP = Sweep(name={name!r}, points={points!r}, recipe=recipe, tokens_per_param=(0, 1e9))
"""


class Jobs:
    """Sweeps submitted to the real Slurm from `folder`."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        (folder / "text.txt").write_text("\n\n".join(f"{n} green bottles on wall {n % 7}" for n in range(4000)))

    def call(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, name: str, points: list[dict[str, int]], *options: str) -> Path:
        (self.folder / f"{name}.py").write_text(
            SWEEP.format(corpus=str(self.folder / "text.txt"), name=name, points=points)
        )
        self.call(sys.executable, "-m", "lmscale", "run", f"{name}.py", "--force", "--launcher", "slurm", *options)
        return self.folder / "runs" / name

    def until(self, true: Callable[[], bool], sweep: Path, seconds: float = 500) -> None:
        end = time.monotonic() + seconds
        while not true():
            output = "".join(path.read_text() for path in (sweep / "slurm").glob("*.txt"))
            assert time.monotonic() < end, self.call("squeue", "--long") + output
            time.sleep(0.3)


def ended(sweep: Path) -> dict[str, Outcome]:
    outcomes = {path.parent.name: Outcome.read(path.parent) for path in sweep.glob("*/outcome.json")}
    return {run_id: outcome for run_id, outcome in outcomes.items() if outcome}


@pytest.fixture
def jobs(tmp_path: Path, real: dict[str, str], cache: Path) -> Iterator[Jobs]:
    queue = Jobs(tmp_path, {**real, "LMSCALE_CACHE": str(cache)})
    yield queue
    queue.call("scancel", "--user=root")
    queue.until(lambda: not queue.call("squeue", "--noheader"), tmp_path)


def points(number: int, steps: int, devices: int = 1) -> list[dict[str, int]]:
    return [{"seed": seed, "steps": steps, "devices": devices} for seed in range(number)]


@pytest.mark.slow
def test_an_array_and_a_run_of_two_processes(jobs: Jobs) -> None:
    array = jobs.submit("three", points(3, 200), "--partition", "low")
    pair = jobs.submit("pair", points(1, 200, devices=2), f"--sbatch=--nodelist={NODES[0]}")
    jobs.until(lambda: len(ended(array)) == 3 and len(ended(pair)) == 1, array)
    assert {outcome.state for outcome in (*ended(array).values(), *ended(pair).values())} == {"finished"}
    (outcome,) = ended(pair).values()
    assert "x 2" in outcome.device, "two processes, a device each"


@pytest.mark.slow
def test_a_run_that_is_preempted_goes_on_when_it_is_requeued(jobs: Jobs) -> None:
    """The run is too long to end before it is preempted, however fast the machine and slow its Slurm."""
    sweep = jobs.submit(
        "low", points(1, 2_000_000), "--partition", "low", "--sbatch=--exclusive", f"--sbatch=--nodelist={NODES[1]}"
    )
    (run,) = (path.parent for path in sweep.glob("*/config.json"))
    jobs.until(lambda: any((run / "checkpoints").glob("[0-9]*")), sweep)
    high = ["sbatch", "--parsable", "--partition=high", "--exclusive", f"--nodelist={NODES[1]}", "--output=/dev/null"]
    jobs.call(*high, "--wrap=sleep 1")
    jobs.until(lambda: "going on from step" in (run / "log.txt").read_text(), sweep)
    log = (run / "log.txt").read_text()
    steps = [re.search(rf"{where} step ([\d,]+)", log) for where in ("stopped after", "going on from")]
    assert steps[0] and steps[1] and steps[0][1] == steps[1][1], log
    assert [attempt.end and attempt.end["status"] for attempt in lease.history(run)] == [75, None]


@pytest.mark.slow
def test_a_node_taken_down_in_the_middle_loses_no_run(jobs: Jobs) -> None:
    sweep = jobs.submit("drained", points(2, 8_000))
    runs = [path.parent for path in sweep.glob("*/config.json")]
    jobs.until(
        lambda: all(any((run / "checkpoints").glob("[0-9]*")) or run.name in ended(sweep) for run in runs), sweep
    )
    placed = [
        line.split() for line in jobs.call("squeue", "--noheader", "--states=running", "--format=%i %N").splitlines()
    ]
    node = placed[0][1]
    jobs.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    for job in [job for job, where in placed if where == node]:
        jobs.call("scontrol", "requeue", job)
    jobs.until(lambda: len(ended(sweep)) == 2, sweep)
    jobs.call("scontrol", "update", f"nodename={node}", "state=resume")
    assert {outcome.state for outcome in ended(sweep).values()} == {"finished"}
    assert "going on from step" in "".join(path.read_text() for path in sweep.glob("*/log.txt"))


@pytest.mark.slow
def test_before_its_time_is_over_a_run_saves_and_is_requeued(jobs: Jobs) -> None:
    """Slurm itself gives the warning, two minutes before the limit, and up to one minute early."""
    sweep = jobs.submit("short", points(1, 2_000_000), "--time", "4")
    (run,) = (path.parent for path in sweep.glob("*/config.json"))
    jobs.until(lambda: (run / "log.txt").exists() and "going on from step" in (run / "log.txt").read_text(), sweep)
    output = next((sweep / "slurm").glob("*_0.txt")).read_text()
    assert "the time of this job ends: it is requeued" in output
    steps = [
        re.search(rf"{where} step ([\d,]+)", (run / "log.txt").read_text())
        for where in ("stopped after", "going on from")
    ]
    assert steps[0] and steps[1] and steps[0][1] == steps[1][1]
    assert [attempt.end and attempt.end["status"] for attempt in lease.history(run)] == [75, None]
