"""What compilers make of training steps for accelerators that are not here: kernels, memory, what is sent.

    make test ARGS="-m compiled"        # with the extras tpu and cuda; each is skipped where its compiler is missing

Outcome (29 November 2026, JAX 0.10.2, libtpu 0.0.42.1, CUDA 13 plugin 0.10.2): all 22 for H100s and all 22 for
v5es pass. A TPU's programs are compiled with little effort, as `plan --compile` does: about 15 seconds of a processor
each, and 12 for an H100; the 22 for v5es took 19 minutes of a busy machine. CI compiles one of a TPU (`.ci/run`).
"""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lmscale.core.compiled import CompiledRun
from lmscale.core.config import MeshConfig, ModelConfig, OptimizerConfig, RouterConfig, RunConfig
from lmscale.core.counting import memory_bytes, params_total
from lmscale.core.errors import UserError
from lmscale.core.machines import machine, target_text
from lmscale.core.plans import PlannedRun
from lmscale.study.compiled import compile_runs

pytestmark = pytest.mark.compiled

MODEL = ModelConfig(width=256, layers=2, heads=4, context=512, vocab=4096, compute_dtype="bfloat16")
HAS_TPU = find_spec("libtpu") is not None
HAS_CUDA = any(find_spec(f"jax_cuda{major}_plugin") for major in (12, 13))
MACHINES = [
    pytest.param("v5e-4", marks=pytest.mark.skipif(not HAS_TPU, reason="no libtpu")),
    pytest.param("h100x4", marks=pytest.mark.skipif(not HAS_CUDA, reason="no CUDA plugin")),
]
FUSED = {"tpu": "splash", "gpu": "cudnn"}


@pytest.fixture(autouse=True)
def as_users_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimisations of users' programs."""
    monkeypatch.setenv("XLA_FLAGS", "")


def config_of(mesh: MeshConfig | None = None, batch: int = 8, micro_batches: int = 1, **model: Any) -> RunConfig:
    settings = OptimizerConfig(peak_lr=1e-3, batch_sequences=batch, micro_batches=micro_batches)
    shape = replace(MODEL, **model)
    return RunConfig(model=shape, optimizer=settings, mesh=mesh or MeshConfig(), tokens=batch * shape.context)


def compile_one(name: str, mesh: MeshConfig | None = None, **options: Any) -> CompiledRun:
    (outcome,) = compile_runs([PlannedRun(config_of(mesh, **options))], machine(name))
    return outcome


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kv_heads": 2},
        {"qk_norm": True},
        {"positions": "alibi"},
        {"norm": "layernorm", "biases": True, "mlp": "gelu"},
        {"document_end": 255},
        {"scan_layers": False},
        {"remat": "full"},
        {"heads": 2, "head_features": 256},
    ],
    ids=lambda options: " ".join(f"{name}={value}" for name, value in options.items()) or "plain",
)
def test_attention_is_fused_forward_and_backward(name: str, options: dict[str, Any]) -> None:
    outcome = compile_one(name, **options)
    assert outcome.attention == FUSED[machine(name).platform], outcome.train.kernels
    assert outcome.fits and outcome.bytes_per_device > 0


@pytest.mark.parametrize("name", MACHINES)
def test_documents_apart_take_no_mask(name: str) -> None:
    """Each kernel is told of documents by numbers of [B, T], never by an array of [B, T, T]."""
    context = 8192
    together, apart = (compile_one(name, batch=1, context=context, document_end=end) for end in (None, 255))
    assert apart.attention == FUSED[machine(name).platform]
    assert apart.train.bytes_per_device - together.train.bytes_per_device < 2 * context**2


@pytest.mark.parametrize("name", MACHINES)
def test_dropout_of_attention_is_computed_by_the_formula(name: str) -> None:
    assert compile_one(name, attention_dropout=0.1).attention == "plain"


@pytest.mark.parametrize("name", MACHINES)
def test_sharded_weights_are_gathered_in_the_compute_dtype(name: str) -> None:
    """Each weight travels to the other devices at most twice as bfloat16, once per pass, and its gradient once as
    float32."""
    outcome = compile_one(name, MeshConfig(fsdp=4))
    sent = sum(one["bytes"] for one in outcome.train.collectives.values())
    assert set(outcome.train.collectives) & {"all-gather", "collective-permute"}
    assert 0 < sent < 1.5 * (2 * 2 + 4) * params_total(MODEL)


@pytest.mark.parametrize("name", MACHINES)
def test_state_is_donated(name: str) -> None:
    """Parameters and moments stand in memory once, so temporaries are less than another copy of them."""
    outcome = compile_one(name, batch=4)
    state = outcome.train.memory["parameters"] + outcome.train.memory["optimizer"]
    assert state == pytest.approx(12 * params_total(MODEL), rel=0.01)
    assert outcome.bytes_per_device < 2 * state + 2**29


@pytest.mark.parametrize("name", MACHINES)
def test_four_devices_hold_a_quarter(name: str) -> None:
    one, four = compile_one(name), compile_one(name, MeshConfig(fsdp=4))
    assert four.train.memory["parameters"] == pytest.approx(one.train.memory["parameters"] / 4, rel=0.1)
    assert four.bytes_per_device < 0.5 * one.bytes_per_device


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(
    "mesh", [MeshConfig(data=4), MeshConfig(tensor=4), MeshConfig(data=2, sequence=2), MeshConfig(fsdp=2, tensor=2)]
)
def test_meshes_compile(name: str, mesh: MeshConfig) -> None:
    assert compile_one(name, mesh).train.collectives


@pytest.mark.parametrize("name", MACHINES)
def test_experts_on_an_axis_of_their_own(name: str) -> None:
    outcome = compile_one(
        name, MeshConfig(expert=4), experts=8, experts_per_token=2, router=RouterConfig(capacity=1.25)
    )
    assert "all-to-all" in "".join(outcome.train.collectives), outcome.train.collectives


@pytest.mark.parametrize("name", MACHINES)
def test_eight_runs_in_one_program(name: str) -> None:
    """Runs that differ in seed and rate are one program with a fused kernel, on GPUs of the memory that is planned."""
    config = config_of(batch=4)
    rates = [replace(config.optimizer, peak_lr=2.0**-number) for number in range(8, 16)]
    runs = [PlannedRun(replace(config, optimizer=rate, seed=seed)) for seed, rate in enumerate(rates)]
    outcomes = compile_runs(runs, machine(name), pack=8)
    outcome, platform = outcomes[0], machine(name).platform
    assert outcomes == [outcome] * 8 and outcome.packed == 8
    assert outcome.attention == FUSED[platform], outcome.train.kernels
    assert outcome.train.memory["parameters"] == 8 * 4 * params_total(MODEL)
    assert 8 * memory_bytes(config, platform) == pytest.approx(outcome.train.bytes_per_device, rel=0.15)


@pytest.mark.parametrize("name", MACHINES)
def test_a_model_that_is_too_large_says_what_it_needs(name: str) -> None:
    outcome = compile_one(name, layers=48, width=8192, heads=64, context=2048, batch=4)
    assert not outcome.fits and outcome.memory_limit_bytes is not None
    assert outcome.bytes_per_device > outcome.memory_limit_bytes


@pytest.mark.parametrize("name", MACHINES)
def test_the_bound_is_no_longer_than_a_step_at_the_peak_of_products_needs(name: str) -> None:
    bound = compile_one(name).bound
    assert bound is not None and 0 < bound.compute_seconds <= bound.seconds < 1


@pytest.mark.skipif(not HAS_CUDA, reason="no CUDA plugin")
def test_a_description_of_another_version(tmp_path: Path) -> None:
    file = tmp_path / "old.txtpb"
    file.write_text(target_text("h100").replace("core_count", "cores_of_another_version"), "utf-8")
    settings = OptimizerConfig(peak_lr=1e-3, batch_sequences=8)
    config = RunConfig(model=MODEL, optimizer=settings, tokens=8 * MODEL.context)
    with pytest.raises(UserError, match="is of another version; write it again with this one, or name a machine"):
        compile_runs([PlannedRun(config)], machine(str(file)))
