import os
import subprocess
import sys

import jax
import pytest

from lmscale import machine


def test_set_up_gives_a_process_its_core_and_the_shared_programs(cache: object) -> None:
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    code = (
        "from lmscale import machine; machine.set_up(); import jax, os\n"
        "print(machine.usable_cores() if hasattr(os, 'sched_setaffinity') else 1)\n"
        "print(jax.config.jax_compilation_cache_dir)\n"
        "print(machine.device_name())"
    )
    environment = {**os.environ, machine.CORES_VARIABLE: str(core), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    cores, programs, device = done.stdout.splitlines()
    assert cores == "1" and programs == f"{cache}{os.sep}xla"
    assert device.startswith("cpu x 1 (")


@pytest.mark.parametrize("missing", [OSError, AttributeError])
def test_another_c_library_is_slower_and_not_wrong(missing: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise missing(name)

    monkeypatch.setattr(machine.ctypes, "CDLL", load)
    machine._keep_memory()


def test_the_peak_is_what_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which the second of three products is the fastest, at 2 ms."""
    ticks = iter([0.0, 0.004, 1.0, 1.002, 2.0, 2.003])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(ticks))
    size = 1024 if jax.default_backend() == "cpu" else 8192
    assert machine.matmul_peak(tries=3) == pytest.approx(2 * size**3 / 0.002)
