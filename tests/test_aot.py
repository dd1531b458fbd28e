"""Programs of a run without numbers: their arrays, FLOPs and memory, and the devices that they are traced for."""

import inspect
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers.compiled import PROGRAM
from helpers.outcomes import RUN
from helpers.tiny_runs import run, write_corpus
from jax.sharding import AbstractMesh

from lmscale.core.compiled import CompiledProgram, Effort
from lmscale.core.config import MeshConfig, ModelConfig, RunConfig
from lmscale.core.counting import flops_per_token_full_attention, params_total
from lmscale.core.machines import machine
from lmscale.lm import data
from lmscale.lm.aot.compile import compile_program, memory_limit, needed_bytes, with_effort
from lmscale.lm.aot.programs import abstract_batch, training_step, validation_batch
from lmscale.lm.aot.traced_flops import matmul_flops
from lmscale.lm.devices.sharding import make_mesh, platform
from lmscale.lm.model.attention import cudnn
from lmscale.lm.train import pack
from lmscale.lm.train.batch_source import TextBatches
from lmscale.lm.train.optimizer import Hyperparameters
from lmscale.lm.train.step import make_step
from lmscale.study.compiled.pool import Job

MODEL = ModelConfig(width=32, layers=2, heads=2, context=16, vocab=64)
V5E = machine("v5e-1")
H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"


def of(model: ModelConfig) -> RunConfig:
    return replace(RUN, model=model)


def on(kind: str, name: str) -> AbstractMesh:
    more = {"platform": kind} if "platform" in inspect.signature(jax.sharding.AbstractDevice).parameters else {}
    device = jax.sharding.AbstractDevice(device_kind=name, num_cores=1, **more)
    return AbstractMesh((1,), ("data",), abstract_device=device)


def traced_flops(model: ModelConfig) -> float:
    mesh, config = make_mesh(MeshConfig()), of(model)
    with jax.set_mesh(mesh):
        return matmul_flops(training_step(config, mesh, None).trace().jaxpr)


def test_a_program_is_traced_for_the_devices_of_its_mesh() -> None:
    assert platform() == jax.default_backend()
    for kind, name, answer in (("tpu", "TPU v5 lite", "tpu"), ("gpu", H100, "gpu"), ("cuda", A100, "gpu")):
        with jax.sharding.use_abstract_mesh(on(kind, name)):
            assert platform() == answer


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="the GPU that is here is asked")
def test_the_capability_of_a_gpu_that_is_not_here() -> None:
    for kind, name, capability in (("gpu", H100, (9, 0)), ("gpu", A100, (8, 0)), ("tpu", "TPU v5 lite", None)):
        with jax.sharding.use_abstract_mesh(on(kind, name)):
            assert cudnn.capability() == capability


def test_a_batch_without_numbers_is_that_of_the_run(tmp_path: Path) -> None:
    config, mesh = run(write_corpus(tmp_path), 2), make_mesh(MeshConfig())
    batch = TextBatches(config, data.prepare(config.data), mesh)(0, {})
    abstract = abstract_batch(config, mesh)
    assert (abstract.shape, abstract.dtype) == (batch.shape, batch.dtype)
    assert abstract.sharding.is_equivalent_to(batch.sharding, batch.ndim)


@pytest.mark.long
def test_the_flops_of_a_trace_are_those_that_are_counted() -> None:
    """A short context is one chunk, in which every query meets every key: PaLM's count."""
    expected = flops_per_token_full_attention(MODEL) * of(MODEL).batch_tokens
    assert traced_flops(MODEL) == pytest.approx(expected, rel=0.01)
    assert traced_flops(replace(MODEL, scan_layers=True)) == pytest.approx(expected, rel=0.01)
    twice = traced_flops(replace(MODEL, scan_layers=True, remat="full"))
    assert 1.15 * expected < twice < 4 / 3 * expected, "the layers' forward pass again"


def test_matrix_products_inside_of_control_flow() -> None:
    def product(x: jax.Array) -> jax.Array:
        return x @ x

    def looped(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, _: (product(x), None), x, length=5)[0]

    x = jnp.zeros((8, 8))
    one = 2 * 8**3
    assert matmul_flops(jax.make_jaxpr(product)(x)) == one
    assert matmul_flops(jax.make_jaxpr(looped)(x)) == 5 * one
    assert matmul_flops(jax.make_jaxpr(jax.jit(looped))(x)) == 5 * one
    either = jax.make_jaxpr(lambda x: jax.lax.cond(x[0, 0] > 0, looped, product, x))(x)
    assert matmul_flops(either) == 5 * one
    batched = jax.make_jaxpr(jax.vmap(product))(jnp.zeros((3, 8, 8)))
    assert matmul_flops(batched) == 3 * one


def test_a_program_of_several_runs_without_numbers() -> None:
    """Its arrays are those that `pack.stack` makes, but for what is shared; validation leaves all of them in memory."""
    mesh, config, runs = make_mesh(MeshConfig()), of(MODEL), 3
    one, three = training_step(config, mesh, None), training_step(config, mesh, None, runs)
    assert three.tokens == runs * one.tokens
    assert three.argument_bytes() == {kind: runs * size for kind, size in one.argument_bytes().items()}
    with jax.set_mesh(mesh):
        assert matmul_flops(three.trace().jaxpr) == runs * matmul_flops(one.trace().jaxpr)
    state, batch, *_ = one.arguments
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (state, batch))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (pack.stack([zeros] * runs)))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), three.arguments[:2]) == shapes
    beside = validation_batch(config, mesh, None, runs).bytes_beside()
    parameters, moments = (one.argument_bytes()[kind] for kind in ("parameters", "optimizer"))
    assert beside["state of all runs"] == pytest.approx(runs * (parameters + moments), rel=0.01)


@pytest.mark.long
def test_the_memory_is_the_compilers_by_kind() -> None:
    mesh, config = make_mesh(MeshConfig()), of(MODEL)
    outcome = compile_program(training_step(config, mesh, None), config, mesh, machine("h100x1"), training=True)
    with jax.set_mesh(mesh):
        programs = make_step(config, mesh)
        hyper = jax.eval_shape(lambda: Hyperparameters.of(config))
        counted = (
            programs.step.lower(programs.state, abstract_batch(config, mesh), hyper, ()).compile().memory_analysis()
        )
    whole = counted.argument_size_in_bytes + counted.output_size_in_bytes + counted.temp_size_in_bytes
    assert outcome.bytes_per_device == whole - counted.alias_size_in_bytes + counted.generated_code_size_in_bytes
    assert outcome.memory["parameters"] == 4 * params_total(MODEL)
    assert outcome.memory["optimizer"] == pytest.approx(8 * params_total(MODEL), rel=0.01)
    assert sum(outcome.memory.values()) == pytest.approx(outcome.bytes_per_device, rel=0.01)
    assert outcome.fits and outcome.compile_seconds > 0 and not outcome.collectives and outcome.traffic_bytes > 0


def test_validation_is_compiled_too() -> None:
    mesh, config = make_mesh(MeshConfig()), of(MODEL)
    outcome = compile_program(validation_batch(config, mesh, None), config, mesh, V5E, training=False)
    assert set(outcome.memory) == {"parameters", "optimizer", "batch", "temporaries", "code"}
    assert outcome.memory["optimizer"] == pytest.approx(8 * params_total(MODEL), rel=0.01), "it stays there meanwhile"
    assert outcome.flops > 0 and outcome.fits


@pytest.mark.parametrize(
    ("name", "effort", "share", "efforts"),
    [
        ("v5e-1", "low", 0.5, ["low"]),
        ("v5e-1", "low", 0.97, ["low", "full"]),
        ("v5e-1", "low", 1.2, ["low", "full"]),
        ("v5e-1", "low", 1.3, ["low"]),
        ("v5e-1", "full", 0.5, ["full"]),
        ("h100x1", "low", 0.5, ["full"]),
    ],
)
def test_little_effort_is_enough_where_it_decides_whether_a_program_fits(
    name: str, effort: Effort, share: float, efforts: list[Effort]
) -> None:
    target, attempts = machine(name), list[Effort]()
    limit = memory_limit(target)
    assert limit is not None

    def compiled(tried: Effort) -> CompiledProgram:
        attempts.append(tried)
        return replace(PROGRAM, bytes_per_device=int(share * limit), effort=tried)

    outcome = with_effort(compiled, effort, target)
    assert attempts == efforts and outcome.effort == efforts[-1]


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (64.00G) "
            "exceeds available HBM (31.25G).",
            64 * 2**30,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 21.95G "
            "of 15.48G hbm. Exceeded hbm capacity by 6.47G.",
            int(21.95 * 2**30),
        ),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 90.5GiB", int(90.5 * 2**30)),
        ("INTERNAL: Mosaic failed to compile TPU kernel", None),
        ("RESOURCE_EXHAUSTED: too many requests", None),
    ],
)
def test_what_a_program_needs_that_is_too_large(message: str, needed: int | None) -> None:
    assert needed_bytes(message, 1000) == needed


@pytest.mark.long
@pytest.mark.skipif(find_spec("libtpu") is not None, reason="libtpu is here")
def test_a_process_without_the_compiler_says_so(tmp_path: Path) -> None:
    request = Job(RUN, effort="low").request(V5E)
    done = subprocess.run(
        [sys.executable, "-m", "lmscale.lm.aot.worker", str(tmp_path / "reply.json")],
        input=request, capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 2 and not (tmp_path / "reply.json").exists()
    assert done.stderr.splitlines()[-1].startswith("lmscale: JAX") and "lmscale[tpu]" in done.stderr
