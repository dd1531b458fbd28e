import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.counting import memory_bytes, state_bytes
from lmscale.core.errors import MemoryShortage
from lmscale.lm.devices import machine


@pytest.mark.long
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


@pytest.mark.long
def test_processes_that_delete_programs_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number}-cache").write_bytes(b"program")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: machine._evict_programs(tmp_path, most_bytes=70), range(4)))
    assert len(list(tmp_path.iterdir())) <= 10


def test_donated_arguments_that_a_tpu_counts_as_temporaries_count_once() -> None:
    """A step on a v5e whose program takes 233 MB by the compiler's report, 41 of them a state that is donated."""
    counted = SimpleNamespace()
    counted.argument_size_in_bytes, counted.output_size_in_bytes = 41_139_200, 41_127_936
    counted.alias_size_in_bytes, counted.temp_size_in_bytes = 41_122_816, 231_362_048
    counted.peak_memory_in_bytes = 229_773_824
    assert machine.program_bytes(counted, "tpu") == 229_773_824
    assert machine.program_bytes(counted, "gpu") == machine.program_bytes(counted, "cpu") == 272_506_368
    counted.peak_memory_in_bytes = 300_000_000  # which it may overstate in its turn
    assert machine.program_bytes(counted, "tpu") == 272_506_368


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
    monkeypatch.setattr(machine, "free_memory_bytes", lambda devices: state_bytes(BIG))
    with pytest.raises(
        MemoryShortage, match=r"GiB are free; take a smaller model, or .* more devices with mesh\.fsdp$"
    ):
        machine.check_memory(BIG)
    with pytest.raises(MemoryShortage, match=r"spread it over more devices with mesh\.fsdp or mesh\.expert$"):
        machine.check_memory(replace(BIG, model=replace(BIG.model, experts=8, experts_per_token=2)))
    monkeypatch.setattr(machine, "free_memory_bytes", lambda devices: None)
    machine.check_memory(BIG)


@pytest.mark.parametrize(
    ("inner", "outer", "problem"),
    [
        (0o700, 0o755, ""),
        (0o755, 0o755, ""),
        (0o777, 0o755, "others may write to .*xla; `chmod go-w` it"),
        (0o1777, 0o755, "others may write to .*xla"),
        (0o702, 0o755, "others may write to .*xla"),
        (0o700, 0o777, "others may write to .*cache; `chmod go-w` it"),
        (0o700, 0o1777, ""),  # as /tmp: others can put nothing in its place
    ],
)
def test_programs_that_others_may_have_written_are_not_run(
    inner: int, outer: int, problem: str, tmp_path: Path
) -> None:
    folder = tmp_path / "cache" / "xla"
    folder.mkdir(parents=True)
    folder.chmod(inner)
    folder.parent.chmod(outer)
    assert re.match(problem or "$", machine._untrusted(folder))


def test_a_folder_of_programs_is_made_for_its_user_alone(tmp_path: Path) -> None:
    assert machine._untrusted(tmp_path / "cache" / "xla") == ""
    assert (tmp_path / "cache" / "xla").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("group", [1, None])
def test_a_group_of_several_counts_as_others(
    group: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a user has a group alone, its name is the user's and it is often allowed to write."""
    (folder := tmp_path / "xla").mkdir()
    folder.chmod(0o770)
    monkeypatch.setattr(os, "getegid", lambda: os.geteuid() if group is None else group)
    if folder.stat().st_gid == os.geteuid() and group is None:
        assert machine._untrusted(folder) == ""
    else:
        assert "others may write to" in machine._untrusted(folder)


def test_programs_of_another_user_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xla").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert re.match("/.*xla belongs to another user; set LMSCALE_CACHE", machine._untrusted(tmp_path / "xla"))
    (tmp_path / "file").touch()
    assert "cannot be used" in machine._untrusted(tmp_path / "file" / "xla")


@pytest.mark.long
def test_a_process_says_that_it_keeps_no_programs(tmp_path: Path) -> None:
    (tmp_path / "xla").mkdir()
    (tmp_path / "xla").chmod(0o777)
    program = "from lmscale.lm.devices import machine; machine.set_up(); import jax\n"
    program += "print(jax.config.jax_compilation_cache_dir)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "LMSCALE_CACHE": str(tmp_path)},
    )  # fmt: skip
    message, programs = done.stdout.splitlines()
    assert message.startswith("compiled programs are neither read nor kept: others may write to") and programs == "None"
