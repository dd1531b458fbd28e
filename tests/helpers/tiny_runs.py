"""Runs of seconds on a corpus of forty lines, in this process or in others, and what they leave in their folders."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from helpers.xla_flags import simulated_devices
from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.run_folder import CHECKPOINT_FOLDER, CONFIG_FILE, METRICS_FILE, OUTCOME_FILE
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.train.checkpoint import Checkpoints
from lmscale.lm.train.loop import Interrupted, train
from lmscale.lm.train.step import make_step

MODEL = ModelConfig(width=16, layers=1, heads=2, context=16)
BATCH = 8
TIMED = {"seconds", "paused_seconds", "startup_seconds", "tokens_per_second", "mfu", "matmul_peak_flops_per_second"}
PATIENCE = 600
"""Seconds after which another process has failed."""


def write_corpus(folder: Path) -> str:
    words = np.array("the quick brown fox jumps over a lazy dog é 🙂 while seven wizards box".split())
    for number in range(40):
        (folder / f"{number}.txt").write_text(" ".join(np.random.default_rng(number).choice(words, 80)), "utf-8")
    return str(folder)


def run(corpus: str, steps: int, *, model: ModelConfig = MODEL, peak_lr: float = 0.01, **changed: Any) -> RunConfig:
    settings = {"batch_sequences": BATCH, **changed.pop("optimizer", {})}
    return RunConfig(
        model=model,
        optimizer=OptimizerConfig(peak_lr=peak_lr, **settings),
        data=DataConfig(source=corpus, validation_fraction=0.2, max_epochs=1000),
        tokens=steps * settings["batch_sequences"] * model.context,
        **{"validation_tokens": 512, "validations": 3, "checkpoint_seconds": 1e6, **changed},
    )


def strictly(text: str) -> Any:
    """JSON as the standard has it: without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [strictly(line) for line in (folder / METRICS_FILE).read_text("utf-8").splitlines()]


def untimed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in TIMED}


def outcome(folder: Path) -> dict[str, Any]:
    return untimed(strictly((folder / OUTCOME_FILE).read_text("utf-8")))


def saved_steps(folder: Path) -> list[int]:
    """The steps of the whole checkpoints."""
    return sorted(int(path.name) for path in (folder / CHECKPOINT_FOLDER).glob("*") if path.name.isdigit())


def final_parameters(config: RunConfig, folder: Path) -> dict[str, np.ndarray]:
    checkpoints = Checkpoints(folder, config.run_id)
    state, _, skipped = checkpoints.restore(make_step(config, make_mesh(config.mesh)).state)
    checkpoints.close()
    assert int(state.step) == config.steps and not skipped
    return {name: np.asarray(value) for name, value in state.params.items()}


def train_interrupted(
    config: RunConfig,
    folder: Path,
    stop_after: Callable[[int], None],
    steps: int,
    match: str | None = None,
    **options: Any,
) -> None:
    """Train a run that is stopped after so many steps, and goes on; `match` is in the words of the interruption."""
    stop_after(steps)
    with pytest.raises(Interrupted, match=match):
        train(config, folder, **options)
    stop_after(10**6)
    train(config, folder, **options)


def assert_same(config: RunConfig, folder: Path, expected: Path) -> None:
    """Two folders hold the same run: outcome, rows and parameters to the last bit, times left out."""
    assert outcome(folder) == outcome(expected)
    assert [untimed(row) for row in rows(folder)] == [untimed(row) for row in rows(expected)]
    expected_parameters = final_parameters(config, expected)
    for name, value in final_parameters(config, folder).items():
        assert np.array_equal(value, expected_parameters[name]), name


def assert_close(folder: Path, expected: Path, rounding: float = 2e-5) -> None:
    """Two folders hold the same run, whose sums were taken in another order."""
    assert outcome(folder)["loss_nats"] == pytest.approx(outcome(expected)["loss_nats"], rel=rounding)
    measured_rows, expected_rows = rows(folder), rows(expected)
    assert [row["step"] for row in measured_rows] == [row["step"] for row in expected_rows]
    for name in ("loss_nats", "validation_loss_nats"):
        losses = [[row[name] for row in table if name in row] for table in (measured_rows, expected_rows)]
        assert losses[0] == pytest.approx(losses[1], rel=rounding), name


@contextmanager
def caching_programs(folder: Path) -> Iterator[None]:
    """Compiled programs are kept in `folder`, and taken from there, during the block."""
    settings = {"jax_compilation_cache_dir": str(folder), "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def write(config: RunConfig, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(config.to_json()), "utf-8")
    return folder / CONFIG_FILE


def start(config: RunConfig, folder: Path, *flags: object, devices: int = 1) -> "subprocess.Popen[str]":
    """`lmscale train` on so many simulated devices."""
    command = [sys.executable, "-m", "lmscale", "train", str(write(config, folder)), *map(str, flags)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=simulated_devices(devices)
    )


def start_several(config: RunConfig, folder: Path, processes: int, devices: int = 1) -> "list[subprocess.Popen[str]]":
    """One run in several processes that share its folder."""
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    flags = "--coordinator", address, "--processes", processes, "--process"
    return [start(config, folder, *flags, number, devices=devices) for number in range(processes)]


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def ends(processes: "list[subprocess.Popen[str]]") -> list[tuple[int, str, str]]:
    """Exit status, stdout and stderr of each, without what Gloo says of its connections."""
    try:
        outputs = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        (
            process.returncode,
            *("".join(line for line in text.splitlines(True) if "[Gloo]" not in line) for text in both),
        )
        for process, both in zip(processes, outputs)
    ]
