"""The machine under a run: its cores, its memory allocator, its compiled programs, its matrix-product peak."""

import ctypes
import os
import sys
import time
from pathlib import Path

from lmscale.files import cache_dir
from lmscale.process import CORES_VARIABLE

_IMPORTED = time.perf_counter()


def set_up() -> None:
    """Prepare this process for training; call it before anything imports JAX."""
    _claim_cores()
    _keep_memory()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _claim_cores() -> None:
    """Run on the cores that the launcher named: XLA sizes its thread pool by this."""
    cores = os.environ.get(CORES_VARIABLE)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})


def _keep_memory() -> None:
    """Have glibc keep what it got from the system instead of giving it back after every training step.

    XLA's CPU backend allocates each step's working memory anew; by default glibc maps and unmaps large blocks, and
    page faults then take a large part of the step.
    """
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**28), (arena_max, 1)):
            libc.mallopt(option, value)
    except (OSError, AttributeError):
        pass  # another C library: slower, not wrong


def matmul_peak(dtype: str = "float32", tries: int = 10) -> float:
    """FLOP/s of the best of a few square matrix products in `dtype` on one device, measured now.

    On a busy machine this is low: take the largest of several measurements.
    """
    import jax
    import jax.numpy as jnp

    size = 1024 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def device_name() -> str:
    """The kind and number of devices, for a person: "cpu x 1 (2 cores)"."""
    import jax

    kind = jax.devices()[0].device_kind
    if jax.default_backend() == "cpu":
        return f"{kind} x {jax.device_count()} ({usable_cores()} cores)"
    return f"{kind} x {jax.device_count()}"


def usable_cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seconds_alive() -> float:
    """Wall time since this process began; where there is no /proc, since this module was imported."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - ticks / os.sysconf("SC_CLK_TCK")
    except OSError:
        return time.perf_counter() - _IMPORTED
