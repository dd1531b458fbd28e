"""A run compiled for a machine that is not here: its programs traced, lowered, compiled and read, never run."""

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh

from lmscale.core.accelerators import GPU_POOL
from lmscale.core.compiled import CompiledProgram, CompiledRun, Effort
from lmscale.core.config import ModelConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.core.extras import installed
from lmscale.core.machines import Machine, StepBound, step_bound
from lmscale.core.machines.gpu_targets import memory_bytes
from lmscale.lm.aot import hlo, hlo_costs
from lmscale.lm.aot.devices import check_traced_for, compile_only_devices, cudnn_of
from lmscale.lm.aot.programs import AbstractProgram, training_step, validation_batch
from lmscale.lm.aot.traced_flops import matmul_flops
from lmscale.lm.devices.machine import program_bytes, resident_bytes
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.model.cross_entropy import default_chunk

TEMPORARIES = re.compile(r"HLO temporaries \(([\d.]+)([KMG]?)\) exceeds available HBM \(([\d.]+)([KMG]?)\)", re.I)
USED = re.compile(r"Used ([\d.]+)([KMG]?) of ([\d.]+)([KMG]?) hbm", re.IGNORECASE)
"""How XLA says that a program is too large for a TPU. What it calls temporaries is all of the program, arguments and
results included: products of matrices of 38,000 x 38,000, two of them arguments and two results, take 21.53 GiB by this
sentence and by the compiler's own report, of which 21.52 are those four."""
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
COMPILERS = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin", "jax-cuda12-plugin", "nvidia-cudnn-cu13")
LEAST_EFFORT = {"exec_time_optimization_effort": -1.0}
"""XLA's option, from -1 to 1, of how hard it tries to make a program fast."""
SURELY_FITS, SURELY_TOO_LARGE = 0.95, 1.25
"""Memory of a program that was compiled with little effort, over that of a device, up to which it fits with full effort
too, and from which it does not. The four training steps for v5es that were compiled both ways took 1.0 to 4.4 % more
with little effort by the compiler's report (8 sequences: 124M parameters 7.46 instead of 7.37 GB, 2.58 instead of 2.51
with `remat="full"`, 2.46 instead of 2.36 with fsdp = 4; eight experts 8.19 instead of 8.10), and 0.2 % less to 2.5 %
more by the figures that are taken here."""
ATTENTION_FLOPS = {True: 6, False: 2}
"""FLOPs of attention per token, over all layers times the width of attention and the context: those of a training step
and of a forward pass (`counting.flops`)."""


def compile_run(
    config: RunConfig,
    machine: Machine,
    reference: ModelConfig | None = None,
    effort: Effort = "full",
    packed: int = 1,
) -> CompiledRun:
    """Compile the training step and the validation of `config`, which may read the model `reference`, for `machine`;
    or of `packed` runs like it in one program.

    With little effort only where that decides whether a program fits: one whose memory is near that of a device is
    compiled again as in training.

    Raises `UserError` where the mesh does not fit the machine, and for what the compiler refuses for another reason
    than the size of the memory.
    """
    machine.check_mesh(config.mesh.devices, f"of run {config.run_id}")
    mesh = make_mesh(config.mesh, compile_only_devices(machine))
    check_traced_for(machine, mesh)
    limit = memory_limit(machine)

    def compiled(program: AbstractProgram, training: bool) -> CompiledProgram:
        return with_effort(partial(compile_program, program, config, mesh, machine, training), effort, machine)

    with cudnn_of(machine):
        train = compiled(training_step(config, mesh, reference, packed), training=True)
        validation = compiled(validation_batch(config, mesh, reference, packed), training=False)
    largest = max(train.bytes_per_device, validation.bytes_per_device)
    return CompiledRun(
        machine=machine.name,
        fits=train.fits and validation.fits,
        bytes_per_device=largest,
        memory_limit_bytes=limit,
        attention=hlo_costs.attention_kernel(train.kernels, training=True),
        loss=_loss(config, mesh),
        train=train,
        validation=validation,
        bound=_bound(config, machine, train),
        devices=config.mesh.devices,
        packed=packed,
        versions={name: installed(name) for name in COMPILERS if installed(name)},
        peak_bytes_here=resident_bytes(),
    )


def with_effort(compiled: Callable[[Effort], CompiledProgram], effort: Effort, machine: Machine) -> CompiledProgram:
    """The program as `compiled` makes it with that effort; with full effort where it is for GPUs or little effort
    leaves open whether it fits."""
    if effort == "low" and machine.platform == "tpu":
        program, limit = compiled("low"), memory_limit(machine)
        if limit is None or not SURELY_FITS < program.bytes_per_device / limit < SURELY_TOO_LARGE:
            return program
    return compiled("full")


def memory_limit(machine: Machine) -> int | None:
    """Bytes that a program may take on a device: of a GPU the share that JAX takes for its arrays."""
    if machine.platform == "gpu" and (whole := memory_bytes(machine.target)) is not None:
        return int(GPU_POOL * whole)
    return None if machine.accelerator is None else machine.accelerator.usable_bytes


def compile_program(
    program: AbstractProgram, config: RunConfig, mesh: Mesh, machine: Machine, training: bool, effort: Effort = "full"
) -> CompiledProgram:
    """Compile one program for the devices of `mesh`. Raises `UserError` as `compile_run` does."""
    arguments, beside, start = program.argument_bytes(), program.bytes_beside(), time.perf_counter()
    what, flops = "training step" if training else "validation", 0.0
    kernels: dict[str, int] = {}
    try:
        with jax.set_mesh(mesh):
            traced = program.trace()
            lowered = traced.lower()
            kernels = _lowered_kernels(lowered)
            flops = _flops(traced.jaxpr, kernels, config, program.tokens, training)
            compiled = lowered.compile(LEAST_EFFORT if effort == "low" else None)
    except jax.errors.JaxRuntimeError as error:
        seconds = time.perf_counter() - start
        if (needed := needed_bytes(str(error), sum(arguments.values()), sum(beside.values()))) is None:
            raise UserError(
                f"the {what} of run {config.run_id} does not compile for {machine.name}: {_first_line(error)}"
            ) from error
        return CompiledProgram(
            fits=False, bytes_per_device=needed, memory={**arguments, **beside}, flops=flops,
            compile_seconds=seconds, effort=effort, problem=_first_line(error), kernels=kernels,
        )  # fmt: skip
    except NotImplementedError as error:
        raise UserError(
            f"the {what} of run {config.run_id} has no form on {machine.name}: {_first_line(error)}"
        ) from error
    seconds = time.perf_counter() - start
    read = hlo.parse(compiled.as_text())
    counted = compiled.memory_analysis()
    total, memory = _memory(counted, program_bytes(counted, machine.platform), arguments, beside)
    limit = memory_limit(machine)
    return CompiledProgram(
        fits=limit is None or total <= limit,
        bytes_per_device=total,
        memory=memory,
        kernels=hlo_costs.kernels(read),
        collectives=hlo_costs.collectives(read, mesh.size, machine.linked),
        flops=flops,
        traffic_bytes=hlo_costs.traffic_bytes(read),
        compile_seconds=seconds,
        effort=effort,
    )


def needed_bytes(message: str, argument_bytes: int, bytes_beside: int = 0) -> int | None:
    """What a program that the compiler refused for want of memory needs on a device, with what lies there beside it;
    None for another reason."""
    if match := TEMPORARIES.search(message) or USED.search(message):
        return bytes_beside + int(float(match[1]) * UNITS[match[2].upper()])
    if "RESOURCE_EXHAUSTED" in message and "memory" in message.lower():
        numbers = [float(size) * UNITS[unit.upper()] for size, unit in re.findall(r"([\d.]+)([KMG])i?B?\b", message)]
        return bytes_beside + int(max([*numbers, argument_bytes]))
    return None


def _memory(
    counted: Any, program: int, arguments: dict[str, int], beside: dict[str, int]
) -> tuple[int, dict[str, int]]:
    """Bytes of a compiled program of `program` bytes, its code, and what stays beside it; and by kind."""
    code = int(counted.generated_code_size_in_bytes)
    temporaries = max(0, program - sum(arguments.values()))
    memory = {**arguments, **beside, "temporaries": temporaries, "code": code}
    return program + code + sum(beside.values()), memory


def _flops(jaxpr: Any, kernels: dict[str, int], config: RunConfig, tokens: int, training: bool) -> float:
    """On each device: the matrix products of the trace, and attention where a kernel computes it."""
    products = matmul_flops(jaxpr)
    if hlo_costs.attention_kernel(kernels, training) != "plain":
        model = config.model
        products += ATTENTION_FLOPS[training] * model.layers * model.attention_width * model.context * tokens
    return products / config.mesh.devices


def _lowered_kernels(lowered: Any) -> dict[str, int]:
    """Kernels in the program before it is compiled, for one that is too large to be."""
    text = lowered.as_text()
    targets = re.findall(r"custom_call @?\"?([\w$.]+)\"?\(", text) + re.findall(
        r"call_target_name = \"([\w$.]+)\"", text
    )
    names = [name for name in targets if "fmha" in name or name == "tpu_custom_call"]
    splash = re.findall(r"splash\w*(?:fwd|dkv|dq)\w*", text)
    return {**{name: names.count(name) for name in set(names)}, **{name: splash.count(name) for name in set(splash)}}


def _loss(config: RunConfig, mesh: Mesh) -> str:
    """How the logits of a micro-batch are computed."""
    model = config.model
    if model.scalar_head:
        return "no logits"
    rows = config.optimizer.batch_sequences // config.optimizer.micro_batches
    with jax.set_mesh(mesh):
        chunk = model.loss_chunk or default_chunk(rows, model.context, model.vocab)
    return "at once" if chunk is None or chunk >= model.context else f"in {-(-model.context // chunk)} chunks"


def _bound(config: RunConfig, machine: Machine, train: CompiledProgram) -> StepBound | None:
    if machine.accelerator is None or train.problem:
        return None
    return step_bound(
        machine.accelerator, config.model.compute_dtype, train.flops, train.traffic_bytes, train.collectives
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
