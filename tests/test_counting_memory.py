"""Bytes of state and of a step: against the arrays as built, the docstring's terms and the compiler's figure."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from lmscale.core import counting
from lmscale.core.config import MeshConfig, ModelConfig, OptimizerConfig, RouterConfig, RunConfig
from lmscale.core.counting import Platform, activations, chunks
from lmscale.core.counting.memory import _second_moments
from lmscale.lm.devices import machine
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.model.attention import chunked
from lmscale.lm.model.cross_entropy import default_chunk
from lmscale.lm.train.optimizer import Hyperparameters, make_optimizer
from lmscale.lm.train.step import init_state, make_step

SHAPES = [
    ModelConfig(width=256, layers=2, heads=4, vocab=1024, context=256),
    ModelConfig(width=256, layers=3, heads=2, vocab=512, context=192, mlp="gelu"),
    ModelConfig(width=192, layers=2, heads=3, vocab=640, context=128, tied_embeddings=False, mlp_width=320),
    ModelConfig(width=192, layers=2, heads=6, kv_heads=2, vocab=512, context=128, mlp="relu2", positions="alibi"),
]


def named(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.long
@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd", "lion", "muon", "adafactor", "rmsprop"])
@pytest.mark.parametrize("ema", [None, 0.99])
@pytest.mark.parametrize("width", [192, 128, 120])  # Adafactor factors a matrix of width 128, and none of width 120
def test_a_checkpoint_holds_the_state(kind: Any, ema: float | None, width: int) -> None:
    """Within a thousandth of the arrays of the state as built: counters and placeholders are left out."""
    settings = OptimizerConfig(peak_lr=0.01, batch_sequences=8, kind=kind, ema_decay=ema, weight_decay=0.0)
    run = RunConfig(model=replace(SHAPES[2], width=width, heads=2), optimizer=settings, tokens=2048 * 100)
    state = jax.eval_shape(partial(init_state, run, make_optimizer(run)), jax.random.key(0))
    built = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert counting.state_bytes(run) == pytest.approx(built, rel=1e-3)


@pytest.mark.parametrize("kind", ["adamw", "muon", "adafactor"])
def test_a_checkpoint_holds_the_state_of_all_experts(kind: Any) -> None:
    shape = {"experts": 8, "experts_per_token": 2, "shared_experts": 2, "expert_width": 128}
    model = replace(SHAPES[0], **shape, router=RouterConfig(bias_rate=0.001))
    settings = OptimizerConfig(peak_lr=0.01, batch_sequences=8, kind=kind)
    run = RunConfig(model=model, optimizer=settings, tokens=2048 * 100)
    state = jax.eval_shape(partial(init_state, run, make_optimizer(run)), jax.random.key(0))
    built = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert counting.state_bytes(run) == pytest.approx(built, rel=1e-3)


def test_adafactor_factors_from_an_axis_of_128_on() -> None:
    """Means over rows and over columns of [count, rows, columns], whichever of the three are the two largest."""
    assert _second_moments((2, 127, 640)) == 2 * 127 * 640
    assert _second_moments((2, 128, 640)) == 2 * 128 + 2 * 640
    assert _second_moments((300, 16, 640)) == 16 * 300 + 16 * 640


def memory_of(batch: int = 8, platform: Platform = "cpu", settings: dict[str, Any] | None = None, **shape: Any) -> int:
    config = replace(SHAPES[0], **shape)
    optimizer = OptimizerConfig(peak_lr=0.01, batch_sequences=batch, **(settings or {}))
    return counting.memory_bytes(RunConfig(model=config, optimizer=optimizer, tokens=batch * config.context), platform)


def test_what_takes_less_memory_is_estimated_to() -> None:
    """Against the compiler's own figures: experiments/bench_memory.py, and the slow test below."""
    platforms: tuple[Platform, ...] = ("cpu", "gpu", "tpu")
    for platform in platforms:
        base = memory_of(64, platform)
        assert memory_of(64, platform, settings={"micro_batches": 4}) < base < memory_of(128, platform)
    loop = {"scan_layers": True, "layers": 8}
    full, dots, none = (memory_of(**loop, remat=remat) for remat in ("full", "dots", "none"))
    assert full < dots < none and memory_of(layers=8, remat="full") == memory_of(layers=8)
    narrow = {"compute_dtype": "bfloat16"}
    assert memory_of(platform="gpu", **narrow) < memory_of(**narrow) < memory_of()
    assert memory_of(64, vocab=2**15, loss_chunk=8) < memory_of(64, vocab=2**15)
    large: dict[str, Any] = {"platform": "gpu", "vocab": 2**17, "context": 2048, **narrow}
    assert memory_of(64, **large) < 2 * memory_of(32, **large)  # the logits are cut at 512 MiB


LAYERS, WIDTH, HIDDEN, HEADS, CONTEXT, SEQUENCES = 3, 64, 320, 4, 128, 5
LOGITS = 2 * 4 * SEQUENCES * CONTEXT * 256
NUMBERS = {"swiglu": 10 * WIDTH + 5 * HIDDEN, "gelu": 10 * WIDTH + 4 * HIDDEN, "relu2": 10 * WIDTH + 3 * HIDDEN}
"""That a layer saves of a token, attention apart."""
CHUNKED = HEADS * 96 + 2 * 32 * 1.5
"""Numbers that two chunks of 64 queries save of a token: weights on 64 or 128 keys; keys and values, copied 1 or 2
times, of 2 of the 4 heads."""


@pytest.mark.parametrize(
    ("shape", "layers_save", "number_bytes"),
    [
        ({}, LAYERS * (NUMBERS["swiglu"] + CHUNKED), 4),
        ({"mlp": "gelu"}, LAYERS * (NUMBERS["gelu"] + CHUNKED), 4),
        ({"mlp": "relu2"}, LAYERS * (NUMBERS["relu2"] + CHUNKED), 4),
        ({"mlp": "geglu"}, LAYERS * (NUMBERS["swiglu"] + CHUNKED), 4),
        ({"mlp": "gelu-erf"}, LAYERS * (NUMBERS["gelu"] + CHUNKED), 4),
        ({"compute_dtype": "bfloat16"}, LAYERS * (NUMBERS["swiglu"] + CHUNKED), 3),
        ({"remat": "full", "scan_layers": True}, LAYERS * WIDTH + NUMBERS["swiglu"] + CHUNKED, 4),
    ],
    ids=lambda value: named(value) if isinstance(value, dict) else str(value),
)
def test_the_estimated_activations_are_those_of_the_docstring(
    shape: dict[str, Any], layers_save: float, number_bytes: int
) -> None:
    base = ModelConfig(width=WIDTH, layers=LAYERS, heads=HEADS, kv_heads=2, vocab=256, context=CONTEXT)
    model = replace(base, mlp_width=HIDDEN, **shape)
    estimate = activations.activation_bytes(model, SEQUENCES)
    assert estimate == SEQUENCES * CONTEXT * (layers_save + 4 * WIDTH) * number_bytes + LOGITS


def test_a_steps_memory_is_its_state_gradients_and_activations() -> None:
    model = SHAPES[0]
    params = counting.params_total(model)
    for micro_batches, gradients in ((1, 4 * params), (4, 8 * params)):  # of several, their sum and the next ones
        settings = OptimizerConfig(peak_lr=0.01, batch_sequences=8, micro_batches=micro_batches)
        run = RunConfig(model=model, optimizer=settings, tokens=2048 * 100)
        saved = activations.activation_bytes(model, 8 // micro_batches)
        assert counting.memory_bytes(run) == 3 * 4 * params + gradients + saved


def test_parameters_in_two_bytes_halve_state_and_gradients() -> None:
    settings = OptimizerConfig(peak_lr=0.01, batch_sequences=8, micro_batches=2)
    model = replace(SHAPES[0], param_dtype="bfloat16")
    wide, narrow = (RunConfig(model=one, optimizer=settings, tokens=2048 * 100) for one in (SHAPES[0], model))
    assert counting.state_bytes(wide) == 2 * counting.state_bytes(narrow) == 3 * 4 * counting.params_total(model)
    gradients = 2 * 2 * counting.params_total(model)
    assert counting.memory_bytes(narrow) == counting.state_bytes(narrow) + gradients + activations.activation_bytes(
        model, 4
    )


def test_each_device_holds_logits_of_its_own() -> None:
    model = replace(SHAPES[0], vocab=2**17, context=2048, compute_dtype="bfloat16")
    settings = OptimizerConfig(peak_lr=0.01, batch_sequences=8)
    one, two = (RunConfig(model=model, optimizer=settings, mesh=MeshConfig(fsdp=fsdp), tokens=2**20) for fsdp in (1, 2))
    assert counting.memory_bytes(two) - counting.memory_bytes(one) == 2 * 2**29
    logits, head = 4 * 2**27, 2**17 * model.width  # with derivatives and copies in bfloat16
    grown = counting.memory_bytes(two, "gpu") - counting.memory_bytes(one, "gpu")
    assert grown == 1.5 * logits + (4 + 2) * head


def test_how_finely_attention_and_logits_are_cut() -> None:
    """At least 64 queries and at most 8 chunks; 512 MiB of logits at once on each device."""
    lengths = {16: 1, 127: 1, 128: 2, 511: 7, 512: 8, 4096: 8}
    assert {length: chunks.attention_chunks(length) for length in lengths} == lengths
    assert [chunks.loss_chunks(size) for size in (1, 2**29, 2**29 + 1)] == [1, 1, 2]
    assert chunks.peak_logits_bytes(2**22, length=1024, devices=4) == 2**31
    assert chunks.peak_logits_bytes(2**10, length=1024, devices=4) == 2**20
    assert chunks.even_loss_chunks(2048, 13 * 2**29) == 16  # 13 would do, 16 divide the length
    assert chunks.peak_logits_bytes(13 * 2**18, length=2048, devices=1) == 13 * 2**18 * 128
    for loss_chunk, positions in ((16, 16), (999, SHAPES[0].context)):  # of 3 sequences, a vocabulary of 1024
        assert activations.logits_bytes(replace(SHAPES[0], loss_chunk=loss_chunk), 3, 1) == 4 * 3 * positions * 1024


def test_attention_and_its_memory_estimate_are_cut_into_the_same_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = replace(SHAPES[0], context=512)
    for shortest, most, number in ((64, 8, 8), (128, 8, 4), (64, 2, 2)):
        monkeypatch.setattr(chunks, "SHORTEST_CHUNK", shortest)
        monkeypatch.setattr(chunks, "MOST_CHUNKS", most)
        cut = chunked._chunks(model.context)
        scores = model.heads * sum((stop - start) * stop for start, stop in cut)
        copies = 2 * model.num_kv_heads * model.head_width * sum(stop for _, stop in cut)
        assert len(cut) == number
        assert activations._chunked_attention(model) * model.context == pytest.approx(scores + copies)


def test_chunks_that_do_not_divide_the_context_are_counted_at_their_longest() -> None:
    """200 positions in 3 chunks of up to 67, each of which attends to 2 chunks on average."""
    model = replace(SHAPES[0], context=200, kv_heads=2)
    copies = 2 * 2 * model.head_width
    assert activations._chunked_attention(model) == 2 * (model.heads * 67 + copies)


def test_the_loss_and_its_memory_estimate_are_cut_at_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sequences = replace(SHAPES[0], context=512), 8
    for limit in (2**20, 2**22):
        monkeypatch.setattr(chunks, "LOGITS_BYTES", limit)
        chunk = default_chunk(sequences, model.context, model.vocab)
        assert chunk is not None
        assert 4 * sequences * chunk * model.vocab == activations.logits_bytes(model, sequences, devices=1) == limit


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the estimate is of a CPU")
def test_the_estimate_is_within_15_percent_of_the_compilers_figure() -> None:
    shape = ModelConfig(width=48, layers=2, heads=3, vocab=256, context=128)
    settings = OptimizerConfig(peak_lr=0.01, batch_sequences=8)
    config = RunConfig(model=shape, optimizer=settings, tokens=1024)
    mesh = make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        programs = make_step(config, mesh)
        tokens = jax.ShapeDtypeStruct((8, 129), jnp.int32)
        hyper = jax.eval_shape(lambda: Hyperparameters.of(config))
        compiled = programs.step.lower(programs.state, tokens, hyper, ()).compile()
    assert counting.memory_bytes(config) == pytest.approx(machine.peak_memory_bytes(compiled), rel=0.15)
