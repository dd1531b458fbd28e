import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.counting import memory_bytes, state_bytes
from lmscale.core.errors import MemoryShortage
from lmscale.lm.devices import machine


def test_set_up_gives_a_process_its_core_and_the_shared_programs(cache: object) -> None:
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    code = (
        "from lmscale.lm.devices import machine; machine.set_up(); import jax, os\n"
        "print(len(machine.usable_cores()) if hasattr(os, 'sched_setaffinity') else 1)\n"
        "print(jax.config.jax_compilation_cache_dir)\n"
        "print(machine.device_name())"
    )
    environment = {**os.environ, machine.CORES_VARIABLE: str(core), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    cores, programs, device = done.stdout.splitlines()
    assert cores == "1" and programs == f"{cache}{os.sep}xla"
    assert device.startswith("cpu x 1 (")


def test_the_least_recently_used_programs_are_deleted(tmp_path: Path) -> None:
    for number, (used, written) in enumerate([(50, 10), (20, 20), (30, 30), (5, 40)]):
        program = tmp_path / f"jit_step-{number}-cache"
        program.write_bytes(bytes(100))
        os.utime(program, (used, written))
    (tmp_path / "note.txt").write_bytes(bytes(1000))
    machine._evict_programs(tmp_path, most_bytes=250)
    assert {path.name for path in tmp_path.iterdir()} == {"jit_step-0-cache", "jit_step-3-cache", "note.txt"}
    machine._evict_programs(tmp_path / "none yet")


def test_processes_that_delete_programs_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number}-cache").write_bytes(b"program")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: machine._evict_programs(tmp_path, most_bytes=70), range(4)))
    assert len(list(tmp_path.iterdir())) <= 10


@pytest.mark.parametrize("missing", [OSError, AttributeError])
def test_another_c_library_is_slower_and_not_wrong(missing: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise missing(name)

    monkeypatch.setattr(machine.ctypes, "CDLL", load)
    machine._keep_freed_memory()


def test_the_peak_is_what_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which the second of three products is the fastest, at 2 ms."""
    ticks = iter([0.0, 0.004, 1.0, 1.002, 2.0, 2.003])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(ticks))
    size = 1024 if jax.default_backend() == "cpu" else 8192
    assert machine.matmul_peak(tries=3) == pytest.approx(2 * size**3 / 0.002)


BIG = RunConfig(
    model=ModelConfig(width=4096, layers=32, heads=32, context=2048, vocab=32_000),
    optimizer=OptimizerConfig(peak_lr=1e-4, batch_sequences=64),
    tokens=64 * 2048,
)


def test_too_little_memory_is_said_with_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is compiled, and the advice is what is accepted."""
    in_eight = replace(BIG, optimizer=replace(BIG.optimizer, micro_batches=8))
    monkeypatch.setattr(machine, "free_memory_bytes", lambda devices: memory_bytes(in_eight))
    machine.check_memory(in_eight)
    with pytest.raises(MemoryShortage, match=r"needs about [\d.]+ GiB, .* set optimizer\.micro_batches = 8$"):
        machine.check_memory(BIG)
    with pytest.raises(MemoryShortage, match=r"train at most 1 of the 2 runs in one program, or set .* = 32$"):
        machine.check_memory(in_eight, runs=2)
    with pytest.raises(MemoryShortage, match=r"GiB are free; take a smaller model, or spread it over more devices"):
        monkeypatch.setattr(machine, "free_memory_bytes", lambda devices: state_bytes(BIG))
        machine.check_memory(BIG)
    monkeypatch.setattr(machine, "free_memory_bytes", lambda devices: None)
    machine.check_memory(BIG)
