"""The machine of a run: its cores, memory, compiled programs and matrix-product peak."""

import ctypes
import os
import stat
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from lmscale.core.accelerators import OVERLAP_FLAG, by_jax_kind
from lmscale.core.config import ModelConfig, RunConfig
from lmscale.core.counting import Platform, memory_bytes, reference_bytes, state_bytes_on_mesh
from lmscale.core.errors import MemoryShortage, UserError
from lmscale.core.files import cache_dir
from lmscale.core.host import CORES_VARIABLE, available_memory_bytes, memory_share_bytes, start_ticks, usable_cores
from lmscale.core.quantities import counted

_IMPORTED = time.perf_counter()

PROGRAM_BYTES = 2**31
"""Compiled programs kept on disk; one of a small model is some 100 kB."""


def set_up() -> None:
    """Prepare this process for training; call it before anything imports JAX."""
    _claim_cores()
    _keep_freed_memory()
    _overlap_communication()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    import jax

    programs = cache_dir() / "xla"
    if problem := _untrusted(programs):
        print(f"compiled programs are neither read nor kept: {problem}", flush=True)
        jax.config.update("jax_compilation_cache_dir", None)
        return
    _evict_programs(programs)
    jax.config.update("jax_compilation_cache_dir", str(programs))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _untrusted(folder: Path) -> str:
    """Why somebody else may have made or may replace the compiled programs in `folder`; "" where nobody can have.

    A program that is read from there runs as this user. The folder is made if it is absent. It must be this user's;
    the folder around it, in which another could be put in its place, may be the system's too.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        inner = folder.resolve()
        for place, owners in ((inner, {os.geteuid()}), (inner.parent, {os.geteuid(), 0})):
            status = place.stat()
            if status.st_uid not in owners:
                return f"{place} belongs to another user; set LMSCALE_CACHE to a folder of your own"
            own_group = status.st_gid == os.getegid() == os.geteuid()  # many systems give every user such a group
            shared = status.st_mode & (stat.S_IWOTH if own_group else stat.S_IWOTH | stat.S_IWGRP)
            if shared and not (place == inner.parent and status.st_mode & stat.S_ISVTX):
                return f"others may write to {place}; `chmod go-w` it, or set LMSCALE_CACHE to a folder of your own"
    except OSError as error:
        return f"{folder} cannot be used ({error.strerror})"
    return ""


def _claim_cores() -> None:
    """Run on the cores that the launcher assigned, or on all that are usable: XLA sizes its thread pool by them.

    Raises `UserError` where those assigned are none of this machine.
    """
    assigned = os.environ.get(CORES_VARIABLE)
    if not hasattr(os, "sched_setaffinity"):
        return
    try:
        os.sched_setaffinity(0, {int(core) for core in assigned.split(",")} if assigned else set(usable_cores()))
    except (OSError, ValueError, OverflowError):
        raise UserError(
            f"{CORES_VARIABLE}={assigned}: give numbers of processors of this machine, as in 0,1, or unset it"
        ) from None


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory instead of returning it to the system after every training step.

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


def _evict_programs(folder: Path, most_bytes: int = PROGRAM_BYTES) -> None:
    """Delete the least recently used compiled programs until the rest take at most `most_bytes`.

    JAX's own bound (jax_compilation_cache_max_size) keeps the time of use in a second file beside each program: after a
    run that is killed between writing the two, no process can write to the cache again. Here the file system keeps
    it, and a process whose program was deleted by another compiles it again.
    """
    programs = []
    for path in folder.glob("*-cache"):
        with suppress(OSError):
            programs.append((max((stat := path.stat()).st_atime, stat.st_mtime), stat.st_size, path))
    total = sum(size for _, size, _ in programs)
    for _, size, path in sorted(programs):
        if total <= most_bytes:
            break
        with suppress(OSError):
            path.unlink()
        total -= size


def _overlap_communication() -> None:
    """Set `OVERLAP_FLAG` where there are several GPUs, unless XLA_FLAGS has it: XLA ends on a flag it does not know."""
    flags = os.environ.get("XLA_FLAGS", "")
    if OVERLAP_FLAG not in flags and len(list(Path("/dev").glob("nvidia[0-9]*"))) > 1:
        os.environ["XLA_FLAGS"] = f"{flags} {OVERLAP_FLAG}=true".strip()


def matmul_peak(dtype: str = "float32", tries: int = 10) -> float:
    """FLOP/s of the best of a few square matrix products in `dtype` on one device, measured now.

    On a busy machine this is low: take the largest of several measurements. An accelerator computes several products
    in a row, so that launch time does not count, and on random numbers: zeros and ones draw less power, and the clock
    then runs faster than in training.
    """
    import jax
    import jax.numpy as jnp

    size, products = (1024, 1) if jax.default_backend() == "cpu" else (8192, 8)
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype) / jnp.asarray(size**0.5, dtype)
    multiply = _multiply(products)
    multiply(matrix).block_until_ready()
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        multiply(matrix).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return products * 2 * size**3 / best


@cache
def _multiply(products: int) -> Any:
    """A matrix multiplied by itself `products` times, compiled once in a process."""
    import jax

    return jax.jit(lambda matrix: jax.lax.fori_loop(0, products, lambda _, power: power @ matrix, matrix))


def datasheet_peak(dtype: str) -> float | None:
    """FLOP/s of one device in `dtype` as its maker states them, None for an unknown device or dtype."""
    import jax

    accelerator = by_jax_kind(jax.devices()[0].device_kind)
    return accelerator.bfloat16 if accelerator is not None and dtype == "bfloat16" else None


def step_bytes(config: RunConfig, reference: ModelConfig | None = None) -> int:
    """`counting.memory_bytes` on the kind of device that this process has, with a `reference` that is read beside."""
    return memory_bytes(config, _platform()) + _beside(config, reference)


def _beside(config: RunConfig, reference: ModelConfig | None, whole_batch: bool = False) -> int:
    return 0 if reference is None else reference_bytes(reference, config, _platform(), whole_batch)


def _platform() -> Platform:
    import jax

    name = jax.default_backend()
    return "cpu" if name == "cpu" else "tpu" if name == "tpu" else "gpu"


def check_memory(
    config: RunConfig, runs: int = 1, reference: ModelConfig | None = None, reward: ModelConfig | None = None
) -> None:
    """Raise `MemoryShortage` where a step of `runs` runs like `config` would need more memory than is free.

    `reference` and `reward` are models that all of them read beside their own.
    """
    models = {"reference" if config.reference else "teacher": reference, "reward model": reward}
    by_name = {name: _beside(config, model, name == "reward model") for name, model in models.items() if model}
    beside = sum(by_name.values())
    need, free = runs * step_bytes(config) + beside, free_memory_bytes(config.mesh.devices)
    if free is None or need <= free:
        return
    settings = config.optimizer
    rows = settings.batch_sequences // config.mesh.batch_devices
    for number in (number for number in range(settings.micro_batches + 1, rows + 1) if rows % number == 0):
        smaller = replace(config, optimizer=replace(settings, micro_batches=number))
        if runs * step_bytes(smaller) + beside <= free:
            fix = f"set optimizer.micro_batches = {number}"
            break
    else:
        fix = f"take a smaller model, or spread it over more devices with {config.spread_by}"
    if runs > 1 and (fitting := max(0, free - beside) // step_bytes(config)):
        fix = f"train at most {fitting} of the {runs} runs in one program, or {fix}"
    parts = f"{runs * state_bytes_on_mesh(config) / 2**30:.1f} of it for parameters and optimizer"
    parts += "".join(f", {size / 2**30:.1f} for the {name}" for name, size in by_name.items())
    raise MemoryShortage(
        f"a training step needs about {need / 2**30:.1f} GiB, {parts}, but {free / 2**30:.1f} GiB are free; {fix}"
    )


def free_memory_bytes(devices: int) -> int | None:
    """Free bytes on `devices` devices together, None where the system does not say.

    On a CPU this is what the system and the limits of its container leave, and at most the share that a launcher has
    assigned to this run.
    """
    import jax

    if jax.default_backend() != "cpu":
        stats = jax.local_devices()[0].memory_stats() or {}
        limit = stats.get("bytes_limit")
        return None if limit is None else devices * (limit - stats.get("bytes_in_use", 0))
    limits = [available_memory_bytes(), memory_share_bytes()]
    return min((limit for limit in limits if limit is not None), default=None)


def peak_memory_bytes(program: Any) -> int:
    """Peak bytes in use so far on all local devices; on a CPU, the compiler's count for a compiled program."""
    import jax

    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("peak_bytes_in_use" in one for one in stats):
        return sum(one["peak_bytes_in_use"] for one in stats)
    return program_bytes(program.memory_analysis(), _platform())


def program_bytes(counted: Any, platform: Platform) -> int:
    """Bytes on a device of arguments, results and temporaries of a compiled program, from its `memory_analysis`, where
    results that share memory with arguments count once.

    A TPU's compiler counts donated arguments as temporaries too where temporaries take their place later, so that the
    sum is up to the whole state too large. The peak that it also states leaves out gaps between arrays: it was 0 to 4 %
    below the compiler's own report of 46 training steps for a v5e, 2 to 15 % where layers are written out (libtpu
    0.0.42.1). The smaller of the two is taken.
    """
    whole = counted.argument_size_in_bytes + counted.temp_size_in_bytes + counted.output_size_in_bytes
    whole -= counted.alias_size_in_bytes
    return int(min(whole, counted.peak_memory_in_bytes) if platform == "tpu" else whole)


def resident_bytes() -> int:
    """Peak resident memory of this process."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def device_name() -> str:
    """The kind and number of devices, for a person: "cpu x 1 (2 cores)"."""
    import jax

    kind = jax.devices()[0].device_kind
    if jax.default_backend() == "cpu":
        return f"{kind} x {jax.device_count()} ({counted(len(usable_cores()), 'core')})"
    return f"{kind} x {jax.device_count()}"


def seconds_alive() -> float:
    """Wall time since this process began; where there is no /proc, since this module was imported."""
    ticks = start_ticks(os.getpid())
    if ticks is None:
        return time.perf_counter() - _IMPORTED
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return uptime - ticks / os.sysconf("SC_CLK_TCK")
