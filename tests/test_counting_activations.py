"""What a step keeps on an accelerator: the estimate within 15 % of what the compiler counts, option by option."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import pytest

from lmscale.core.config import MeshConfig, ModelConfig, OptimizerConfig, RouterConfig, RunConfig
from lmscale.core.counting import (
    Platform,
    memory_bytes,
    params_total,
    reference_bytes,
    state_bytes,
    state_bytes_on_mesh,
)
from lmscale.core.counting.activations import _attention_numbers, activation_bytes, fused_attention
from lmscale.lm.model import attention
from lmscale.lm.model.attention import cudnn

BASE = ModelConfig(width=768, layers=12, heads=12, context=1024, vocab=50_304, compute_dtype="bfloat16")
GPT2 = {"mlp": "gelu", "norm": "layernorm", "biases": True, "positions": "learned"}
SMALL = {"width": 512, "layers": 8, "heads": 8, "context": 512, "vocab": 8192}
TINY = {"width": 256, "layers": 4, "heads": 4, "context": 256, "vocab": 1024, "rows": 8}
CAPACITY = {"experts": 8, "experts_per_token": 2, "router": RouterConfig(capacity=1.25)}
GOAL = 0.15

COMPILED: list[tuple[Platform, dict[str, Any], dict[str, int], float]] = [
    ("gpu", {}, {}, 20.4),
    ("gpu", {"kv_heads": 4, "qk_norm": True}, {}, 21.7),
    ("gpu", GPT2, {}, 25.5),
    ("gpu", {"attention_dropout": 0.1}, {}, 72.0),
    ("gpu", {"remat": "dots"}, {}, 9.09),
    ("gpu", {"remat": "full"}, {}, 3.72),
    ("gpu", {"compute_dtype": "float32"}, {}, 91.6),
    ("gpu", {}, {"tensor": 4}, 9.16),
    ("gpu", {}, {"fsdp": 4}, 5.69),
    ("gpu", {}, {"sequence": 4}, 7.04),
    ("gpu", {}, {"fsdp": 2, "sequence": 2}, 6.16),
    ("gpu", {"experts": 8, "experts_per_token": 2, "expert_width": 512}, {}, 22.2),
    ("gpu", CAPACITY, {}, 46.5),
    ("gpu", CAPACITY, {"expert": 4}, 12.6),
    ("gpu", {"residual_dropout": 0.1}, {}, 21.1),
    ("gpu", {"micro_batches": 2}, {}, 12.0),
    ("gpu", {"kind": "muon"}, {}, 20.0),
    ("gpu", {"document_end": 0}, {}, 20.6),
    ("gpu", {**SMALL, "rows": 16, "packed": 8}, {}, 22.3),
    ("gpu", {"document_end": 0, "context": 8192, "rows": 4}, {}, 20.6),
    ("gpu", {}, {"data": 4}, 7.16),
    ("gpu", TINY, {}, 0.207),
    ("gpu", {**TINY, "scan_layers": False}, {}, 0.130),
    ("tpu", {}, {}, 7.28),
    ("tpu", {"kv_heads": 4, "qk_norm": True}, {}, 7.51),
    ("tpu", GPT2, {}, 8.50),
    ("tpu", {"attention_dropout": 0.1}, {}, 15.2),
    ("tpu", {"remat": "dots"}, {}, 3.89),
    ("tpu", {"remat": "full"}, {}, 2.50),
    ("tpu", {"compute_dtype": "float32"}, {}, 12.2),
    ("tpu", {"micro_batches": 2}, {}, 5.47),
    ("tpu", {"experts": 8, "experts_per_token": 2, "expert_width": 512}, {}, 8.13),
    ("tpu", CAPACITY, {}, 18.6),
    ("tpu", {}, {"data": 4}, 3.56),
    ("tpu", {}, {"fsdp": 4}, 2.42),
    ("tpu", {}, {"tensor": 4}, 3.08),
    ("tpu", {}, {"sequence": 4}, 3.51),
    ("tpu", TINY, {}, 0.234),
    ("tpu", {**TINY, "layers": 16}, {}, 0.803),
    ("tpu", {**TINY, "vocab": 50_304}, {}, 0.786),
    ("tpu", {**TINY, "vocab": 16_384, "rows": 32}, {}, 1.22),
    ("tpu", {**TINY, "context": 512, "vocab": 4096}, {}, 0.471),
    ("tpu", {**TINY, **CAPACITY}, {}, 0.640),
    ("tpu", {**TINY, "remat": "full"}, {}, 0.096),
    ("tpu", {**TINY, "scan_layers": False}, {}, 0.148),
]
"""Options, mesh, GB per device that XLA counts for the training step, or for that of `packed` runs in one program: of
32 sequences on H100s, of 8 on v5es (JAX 0.10.2, libtpu 0.0.42, `experiments/bench_memory.py --target`; the last with
little effort)."""


def run(platform: Platform, options: dict[str, Any], mesh: dict[str, int]) -> RunConfig:
    options = dict(options)
    settings = {name: options.pop(name) for name in ("micro_batches", "kind", "ema_decay") if name in options}
    rows = options.pop("rows", 32 if platform == "gpu" else 8)
    model = replace(BASE, **options)
    optimizer = OptimizerConfig(peak_lr=1e-3, batch_sequences=rows, **settings)
    return RunConfig(model=model, optimizer=optimizer, mesh=MeshConfig(**mesh), tokens=rows * model.context)


@pytest.mark.parametrize(("platform", "options", "mesh", "compiled_gb"), COMPILED, ids=str)
def test_the_estimate_is_within_15_percent_of_the_compiler(
    platform: Platform, options: dict[str, Any], mesh: dict[str, int], compiled_gb: float
) -> None:
    packed = options.get("packed", 1)
    config = run(platform, {name: value for name, value in options.items() if name != "packed"}, mesh)
    estimate_gb = packed * memory_bytes(config, platform) / config.mesh.devices / 1e9
    assert estimate_gb == pytest.approx(compiled_gb, rel=GOAL)


@pytest.mark.parametrize(("rows", "vocab", "compiled_gb"), [(8, 1024, 0.354), (32, 8192, 1.495)])
def test_a_teacher_beside_the_step(rows: int, vocab: int, compiled_gb: float) -> None:
    """A model of 8 layers x 512 read by one of 4 x 256, compiled for an H100: its forward pass keeps one layer."""
    config = run("gpu", {**TINY, "vocab": vocab, "rows": rows}, {})
    teacher = replace(config.model, width=512, layers=8, heads=8)
    estimate_gb = (memory_bytes(config, "gpu") + reference_bytes(teacher, config, "gpu")) / 1e9
    assert estimate_gb == pytest.approx(compiled_gb, rel=GOAL)


def test_a_tpu_pads_heads_to_whole_registers() -> None:
    """Twelve heads of 64 features keep queries, keys, values, the output, and that as the next matrix reads it."""
    assert _attention_numbers(BASE, "gpu", MeshConfig()) == 4 * 12 * 64 + 12 * 64
    assert _attention_numbers(BASE, "tpu", MeshConfig()) == 4 * 12 * 128 + 12 * 64


def test_what_rematerialisation_saves() -> None:
    """A loop keeps the residual stream of each layer with "full", and with "dots" the outputs of its matrices too;
    beside them stand the layers' matrices and their gradients in bfloat16."""
    tokens, bytes_of_stream = 32 * 1024, 2 * 768
    none, dots, full = (activation_bytes(replace(BASE, remat=remat), 32, "gpu") for remat in ("none", "dots", "full"))
    assert full < dots < none
    deeper = activation_bytes(replace(BASE, layers=24, remat="full"), 32, "gpu") - full
    matrices = 2 * 2 * (params_total(replace(BASE, layers=24)) - params_total(BASE))
    assert deeper == pytest.approx(12 * tokens * bytes_of_stream + matrices, rel=1e-3)
    written_out = replace(BASE, scan_layers=False)
    full, plain = (activation_bytes(replace(written_out, remat=remat), 32, "gpu") for remat in ("full", "none"))
    assert full == plain < none


def test_each_axis_divides_what_it_divides() -> None:
    """The axis of experts divides the experts, data and sequence nothing of the state."""
    for axis, copies in (("data", 4), ("sequence", 4), ("fsdp", 1), ("tensor", 1)):
        config = run("gpu", {}, {axis: 4})
        assert state_bytes_on_mesh(config) == copies * state_bytes(config)
    config = run("gpu", CAPACITY, {"expert": 4})
    assert state_bytes(config) < state_bytes_on_mesh(config) < 2 * state_bytes(config)


@pytest.mark.long
@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_a_kernel_is_expected_where_the_model_takes_one(platform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudnn, "capability", lambda: (9, 0))
    seen = set()
    for dtype in ("bfloat16", "float32"):
        for context in (1000, 1024):
            for features in (60, 64, 128, 256, 264):
                for positions in ("rotary", "alibi"):
                    shape = {"compute_dtype": dtype, "context": context, "head_features": features}
                    model = replace(BASE, positions=positions, **shape)
                    q = jnp.zeros((2, context, 4, features), dtype)
                    chosen = attention.implementation(platform, q, 4, positions == "alibi", False)
                    assert fused_attention(model, platform, MeshConfig()) == (chosen != "plain"), (shape, positions)
                    seen.add(chosen)
    assert len(seen) == 2
    assert not fused_attention(replace(BASE, attention_dropout=0.1), platform, MeshConfig())
