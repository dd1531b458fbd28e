"""A run that is killed, again and again, or moved to other devices ends as one that was not."""

import multiprocessing
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_runs import assert_close, assert_same, run, saved_steps, write_corpus
from helpers.xla_flags import HASTE, simulated_devices

from lmscale.core.config import MeshConfig, ModelConfig, RunConfig
from lmscale.core.run_folder import CHECKPOINT_FOLDER
from lmscale.lm.train.loop import train

LIVES = 20
STEPS = 20_000
"""More than twenty lives get through."""
WIDE = ModelConfig(width=16, layers=2, heads=4, context=16, residual_dropout=0.1)
MESHES = [MeshConfig(), MeshConfig(data=8), MeshConfig(data=2, tensor=4)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def live(config: dict[str, Any], folder: Path, output: Path) -> None:
    """Train in a process of its own, which may end at any moment."""
    from lmscale.lm.devices import machine

    with output.open("a", buffering=1) as sys.stdout:
        machine.set_up()
        train(RunConfig.from_json(config), folder)


def half_saved(folder: Path) -> bool:
    return any((folder / CHECKPOINT_FOLDER).glob("*.orbax-checkpoint-tmp*"))


@pytest.mark.slow
def test_killed_twenty_times_it_loses_what_came_after_the_last_checkpoint(corpus: str, tmp_path: Path) -> None:
    """At random moments: while it starts, while it trains, right after a save and in the middle of one."""
    config, chance = run(corpus, STEPS, checkpoint_seconds=0.1), random.Random(0)
    folder, expected, output = tmp_path / "killed", tmp_path / "expected", tmp_path / "output.txt"
    context = multiprocessing.get_context("forkserver")  # each life is a fork of a process that has imported everything
    context.set_forkserver_preload(["lmscale.lm.train.loop", "orbax.checkpoint"])
    newest, halves = [0], 0

    def begin(name: str) -> Any:
        with output.open("a") as file:
            file.write(f"\n{name}\n")
        process = context.Process(target=live, args=(config.to_json(), folder, output))
        process.start()
        return process

    def has_saved() -> bool:
        return max(saved_steps(folder), default=0) > newest[-1]

    moments: list[tuple[Callable[[], bool], float]] = [
        (lambda: True, 1.0),
        (lambda: "going on" in output.read_text("utf-8").split("\n\n")[-1] or newest[-1] == 0, 0.3),
        (has_saved, 0.2),
        (lambda: has_saved() and half_saved(folder), 0.02),
    ]
    for life in range(LIVES):
        reached, most = moments[life % len(moments)]
        process = begin(f"life {life}")
        while not reached():
            assert process.is_alive(), output.read_text("utf-8")
            time.sleep(0.001)
        time.sleep(chance.uniform(0, most))
        process.kill()
        process.join()
        halves += half_saved(folder)
        newest.append(max(saved_steps(folder), default=0))
    process = begin("the last life")
    process.join()
    assert process.exitcode == 0

    assert halves >= LIVES // len(moments) - 1
    text = output.read_text("utf-8")
    assert "skipped" not in text
    went_on = [re.findall(r"going on from step ([\d,]+)", life) for life in text.split("\n\n")]
    for before, steps in zip(newest, went_on):
        assert [int(step.replace(",", "")) for step in steps] in ([], [before])
    assert went_on[-1] and sum(map(bool, went_on)) > LIVES // 2

    train(config, expected)
    assert_same(config, folder, expected)


def move(config: dict[str, Any], folder: str) -> None:
    """Train on each of `MESHES` in turn, seven steps on each but the last."""
    from lmscale.lm.train import loop as training

    @contextmanager
    def seven_steps() -> Iterator[Callable[[], bool]]:
        calls = iter(range(10**9))
        yield lambda: next(calls) >= 7

    whole = RunConfig.from_json(config)
    before = training.stop_requested
    for mesh in MESHES:
        training.stop_requested = before if mesh is MESHES[-1] else seven_steps  # type: ignore[attr-defined]
        try:
            train(RunConfig.from_json({**whole.to_json(), "mesh": vars(mesh)}), Path(folder))
        except training.Interrupted as stop:
            print(stop)


@pytest.mark.slow
def test_moved_from_one_device_to_eight_to_two_by_four(corpus: str, tmp_path: Path) -> None:
    config, folder, expected = run(corpus, 20, model=WIDE), tmp_path / "moved", tmp_path / "expected"
    code = f"import test_resume; test_resume.move({config.to_json()!r}, {str(folder)!r})"
    environment = {**simulated_devices(8, HASTE), "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(";")[0] for line in done.stdout.splitlines()] == [
        "stopped after step 7 of 20", "going on from step 7 of 20", "stopped after step 14 of 20",
        "going on from step 14 of 20",
    ]  # fmt: skip
    train(config, expected)
    assert_close(folder, expected)
