"""How fast a configuration trains here, and how close that is to what the machine can do.

The step measured is the one that `train` runs, fed from the same batches in the same way: step n + 1 is dispatched
before step n is waited for. MFU is the exact count of training FLOPs over the matmul peak measured in this process.
`machine` says which XLA flags are set for several GPUs and which others are worth a try.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lmscale.core.config import (
    READ_ROLES,
    ModelConfig,
    OptimizerConfig,
    Reinforcement,
    RunConfig,
    check,
    from_json,
)
from lmscale.core.counting import active_params_total, flops_per_token, params_total, reference_flops
from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.lm import data
from lmscale.lm.data import Manifest, Tokens
from lmscale.lm.devices import machine
from lmscale.lm.devices.sharding import make_mesh, replicated
from lmscale.lm.objectives import Batch, Reference, make_objective
from lmscale.lm.train.batch_source import BatchSource, TextBatches
from lmscale.lm.train.optimizer import Hyperparameters
from lmscale.lm.train.references import random_reference
from lmscale.lm.train.rewards import Checker
from lmscale.lm.train.sampled_answers import SampledAnswers
from lmscale.lm.train.step import Compiled, make_step

WARM_STEPS = 3
"""Steps before the clock starts: the first ones fill caches and allocators."""
DATA_SECONDS = 0.5
"""How long batches are made and placed with nothing else to do."""
PROFILED_STEPS = 5
DEFAULT_SHAPE = {"layers": 4, "width": 128, "heads": 4, "context": 256, "vocab": 256}
DEFAULT_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class TrainingSpeed:
    """A measured training speed; FLOPs are exact ones of training and of reading a teacher or reference, peaks and
    memory those of all devices of the mesh."""

    tokens_per_second: float
    """Tokens of a batch over the median step."""
    flops_per_second: float
    matmul_peak_flops_per_second: float
    """FLOP/s of square matrix products in the compute dtype, the best of two measurements after the steps."""
    mfu: float
    mfu_of_datasheet: float | None
    """`flops_per_second` over the maker's figure; None where it is not known or the dtype is not bfloat16."""
    compile_seconds: float
    """Time from Python to a program of the step, with no compilation cache."""
    step_seconds_median: float
    step_seconds_min: float
    step_seconds_max: float
    steps: int
    peak_memory_bytes: int
    """On an accelerator the most that was in use; on a CPU what the compiler counts for the step."""
    resident_bytes: int
    """The most that this process held of the machine's memory."""
    memory_estimate_bytes: int
    """`counting.memory_bytes`, which decides whether a run is started."""
    data_tokens_per_second: float
    """Tokens that are read and placed on the device with no step to wait for."""
    data: str
    """Where they come from."""
    params: int
    active_params: int
    """Parameters that a token passes, by which its FLOPs are counted: fewer than `params` in a model with experts."""
    device: str

    @property
    def data_headroom(self) -> float:
        """How many times as fast as the step the input is."""
        return self.data_tokens_per_second / self.tokens_per_second


def configuration(file: Path | None, batch: int | None, **shape: Any) -> RunConfig:
    """The run in `file`, or one of this shape: fields of `ModelConfig` and sequences per batch, None for the default.

    Raises `UserError` where both are given.
    """
    given = {name: value for name, value in {"batch": batch, **shape}.items() if value is not None}
    if file is not None:
        check(
            not given,
            f"--config {file} brings its own shape, so {', '.join(given)} cannot be given with it; leave out "
            f"the one or the other",
        )
        return from_json(RunConfig, read_json(file, "run configuration"), where=str(file))
    model = ModelConfig(**DEFAULT_SHAPE | {name: value for name, value in given.items() if name != "batch"})
    optimizer = OptimizerConfig(peak_lr=1e-3, batch_sequences=DEFAULT_BATCH if batch is None else batch)
    return RunConfig(model=model, optimizer=optimizer, tokens=optimizer.batch_sequences * model.context)


def measure(
    config: RunConfig, steps: int = 30, profile: Path | None = None, other: ModelConfig | None = None
) -> TrainingSpeed:
    """The speed of a few training steps of `config`; its own number of steps does not matter.

    `other` is the shape of the teacher or reference that it reads, by default its own; the parameters of both are
    random. Answers are drawn from those, and judged by the checker of their task whatever the run names. `profile` is a
    folder that gets a trace of some more steps, for TensorBoard or XProf. Raises `UserError` for fewer than 2 steps and
    where `train` would for the mesh and the memory.
    """
    check(steps >= 2, f"--steps {steps}: a spread needs at least 2")
    mesh = make_mesh(config.mesh)
    reads = any(role in config.parents for role in READ_ROLES)
    other = (other or config.model) if reads else None
    machine.check_memory(config, reference=other)
    with _tokens(config, steps) as tokens, jax.set_mesh(mesh):
        reference: Reference = () if other is None else random_reference(other, mesh)
        programs = make_step(config, mesh, make_objective(config, other), reference)
        batches = _batches(config, tokens, mesh)
        drawn_from = programs.start(jax.random.key(0)).params if batches.reads_params else {}

        def batch(t: int) -> Batch:
            return batches(t, drawn_from)

        hyper = jax.device_put(Hyperparameters.of(config), replicated(mesh))
        step, compile_seconds = _compiled(programs, batch(0), hyper, reference)
        seconds = _step_seconds(programs, step, batch, hyper, reference, steps, profile)
        used = machine.peak_memory_bytes(step)  # before the large matrices of the peak
        peak = _peak(config)
        data_rate = config.batch_tokens / _batch_seconds(batch, min(steps, PROFILED_STEPS))
        source = tokens.manifest.source
    peak = max(peak, _peak(config))
    rate = config.batch_tokens / statistics.median(seconds)
    beside = (0 if other is None else reference_flops(other, config, 1)) + batches.flops_per_batch / config.batch_tokens
    flops = rate * (flops_per_token(config.model) + beside)
    stated = machine.datasheet_peak(config.model.compute_dtype)
    return TrainingSpeed(
        tokens_per_second=rate,
        flops_per_second=flops,
        matmul_peak_flops_per_second=peak,
        mfu=flops / peak,
        mfu_of_datasheet=None if stated is None else flops / (stated * config.mesh.devices),
        compile_seconds=compile_seconds,
        step_seconds_median=statistics.median(seconds),
        step_seconds_min=min(seconds),
        step_seconds_max=max(seconds),
        steps=steps,
        peak_memory_bytes=used,
        resident_bytes=machine.resident_bytes(),
        memory_estimate_bytes=machine.step_bytes(config, other),
        data_tokens_per_second=data_rate,
        data=source,
        params=params_total(config.model),
        active_params=active_params_total(config.model),
        device=machine.device_name(),
    )


def _batches(config: RunConfig, tokens: Tokens, mesh: Mesh) -> BatchSource:
    """The batches of a run: of its text, or answers that are drawn."""
    if isinstance(config.objective, Reinforcement):
        return SampledAnswers(config, tokens, mesh, Checker("exact"))
    return TextBatches(config, tokens, mesh)


def _peak(config: RunConfig) -> float:
    return machine.matmul_peak(config.model.compute_dtype) * config.mesh.devices


def _compiled(
    programs: Compiled, tokens: Batch, hyper: Hyperparameters, reference: Reference
) -> tuple[jax.stages.Compiled, float]:
    """The step, and how long it took to make: a program from the cache would say nothing."""
    from jax.experimental.compilation_cache import compilation_cache

    before = getattr(jax.config, "jax_enable_compilation_cache")  # noqa: B009 - not every JAX tells its type
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # JAX asks once per process whether there is one
        start = time.perf_counter()
        step = programs.step.lower(programs.state, tokens, hyper, reference).compile()
        return step, time.perf_counter() - start
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _step_seconds(
    programs: Compiled,
    step: jax.stages.Compiled,
    batch: Callable[[int], Batch],
    hyper: Hyperparameters,
    reference: Reference,
    steps: int,
    profile: Path | None,
) -> list[float]:
    """Time from the end of one step to the end of the next, of `steps` of them."""
    state = programs.start(jax.random.key(0))
    state, newest = step(state, batch(0), hyper, reference)
    ends = []
    for t in range(1, WARM_STEPS + steps + 1):
        before = newest
        state, newest = step(state, batch(t), hyper, reference)
        before.loss_nats.block_until_ready()
        ends.append(time.perf_counter())
    if profile is not None:
        with jax.profiler.trace(str(profile)):
            for t in range(PROFILED_STEPS):
                state, newest = step(state, batch(t), hyper, reference)
            jax.block_until_ready(state)
    jax.block_until_ready(state)
    return [end - start for start, end in zip(ends[WARM_STEPS - 1 :], ends[WARM_STEPS:])]


def _batch_seconds(batch: Callable[[int], Batch], least: int) -> float:
    """The median time to make one batch and place it."""
    jax.block_until_ready(batch(0))
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < least or time.perf_counter() - began < DATA_SECONDS:
        start = time.perf_counter()
        jax.block_until_ready(batch(len(seconds)))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@contextlib.contextmanager
def _tokens(config: RunConfig, steps: int) -> Iterator[Tokens]:
    """The run's own tokens where they are prepared and of its vocabulary, else random ones in a file beside them.

    Nothing is downloaded and no text read: input costs the same whatever the tokens mean. Only pairs of answers
    and prompts to draw answers to are prepared here, which random tokens are not. Raises `UserError` where they cannot
    be.
    """
    if config.data.pairs or (config.data.prompts and isinstance(config.objective, Reinforcement)):
        yield data.prepare(config.data)
        return
    manifest = None
    with contextlib.suppress(UserError):  # a source that is not there
        manifest = data.find_manifest(config.data)
    if manifest is not None:
        with contextlib.suppress(UserError):
            data.check_enough(manifest, replace(config, tokens=config.batch_tokens))
            yield data.prepare(config.data)
            return
    with tempfile.TemporaryDirectory() as folder:
        yield _random(config, steps, Path(folder))


def _random(config: RunConfig, steps: int, folder: Path) -> Tokens:
    """Random tokens for a few steps more than `steps`, mapped from a file as those of a corpus are."""
    vocab = config.model.vocab
    count = (steps + WARM_STEPS + 2) * config.batch_tokens + 1
    dtype = np.dtype(np.uint16 if vocab <= 2**16 else np.uint32)
    path = folder / "train.bin"
    np.random.default_rng(0).integers(0, vocab, count, dtype).tofile(path)
    manifest = Manifest(
        source="random tokens",
        fingerprint="",
        corpus_fingerprint="",
        tokenizer="",
        vocab=vocab,
        end_of_document=vocab - 1,
        dtype=dtype.name,
        train_tokens=count,
        validation_tokens=0,
        train_documents=1,
        validation_documents=0,
        train_bytes=0,
        validation_bytes=0,
        duplicates_removed=0,
        empty_removed=0,
        skipped=(),
        versions={},
    )
    return Tokens(manifest, train=np.asarray(np.memmap(path, dtype, "r")), train_starts=np.array([0, count]))


def lines(speed: TrainingSpeed) -> Iterator[tuple[str, str]]:
    """Name and value of every line that `lmscale bench` prints."""
    milliseconds = [1e3 * getattr(speed, f"step_seconds_{name}") for name in ("min", "median", "max")]
    active = f", {speed.active_params:,} of them active" if speed.active_params != speed.params else ""
    yield "model", f"{speed.params:,} parameters{active} on {speed.device}"
    yield "tokens/s", f"{speed.tokens_per_second:,.0f}"
    yield "FLOP/s, exact count", f"{speed.flops_per_second:.3g}"
    yield "matmul peak, FLOP/s", f"{speed.matmul_peak_flops_per_second:.3g}"
    yield "MFU", f"{speed.mfu:.3f}"
    if speed.mfu_of_datasheet is not None:
        yield "MFU of the data sheet", f"{speed.mfu_of_datasheet:.3f}"
    yield "compile time", f"{speed.compile_seconds:.2f} s"
    yield f"step, {speed.steps} of them", "min {:.2f}, median {:.2f}, max {:.2f} ms".format(*milliseconds)
    used, estimated, resident = (
        f"{size / 2**20:,.0f} MiB"
        for size in (speed.peak_memory_bytes, speed.memory_estimate_bytes, speed.resident_bytes)
    )
    yield "peak memory", f"{used} (estimated {estimated})"
    yield "process memory", f"{resident} at most"
    yield "input", f"{speed.data_tokens_per_second:,.0f} tokens/s ({speed.data}), {speed.data_headroom:,.0f} x the step"
