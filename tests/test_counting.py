"""Counts against published numbers, against the parameters that are built, and against the compiler's own count."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from lmscale.core import counting
from lmscale.core.config import MeshConfig, ModelConfig, OptimizerConfig, RouterConfig, RunConfig
from lmscale.core.counting import chunks, memory
from lmscale.lm.devices import machine
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.model import transformer
from lmscale.lm.model.attention import chunked
from lmscale.lm.model.cross_entropy import default_chunk
from lmscale.lm.model.experts import grouped
from lmscale.lm.model.parameters import init, parameter_table
from lmscale.lm.train.optimizer import Hyperparameters, make_optimizer
from lmscale.lm.train.step import init_state, make_step

GPT2 = ModelConfig(width=768, layers=12, heads=12, vocab=50_257, context=1024, mlp="gelu")
GPT2_UNTIED = ModelConfig(width=768, layers=12, heads=12, vocab=50_257, context=1024, mlp="gelu", tied_embeddings=False)
SHAPES = [
    ModelConfig(width=256, layers=2, heads=4, vocab=1024, context=256),
    ModelConfig(width=256, layers=3, heads=2, vocab=512, context=192, mlp="gelu"),
    ModelConfig(width=192, layers=2, heads=3, vocab=640, context=128, tied_embeddings=False, mlp_width=320),
    ModelConfig(width=192, layers=2, heads=6, kv_heads=2, vocab=512, context=128, mlp="relu2", positions="alibi"),
]


def causal_attention(config: ModelConfig) -> int:
    """6 L h k s."""
    return 6 * config.layers * config.heads * config.head_width * config.context


@pytest.mark.parametrize(
    ("convention", "flops_per_token"),
    [
        (counting.flops_per_token_kaplan(GPT2), 509_607_936),
        (counting.flops_per_token_with_head(GPT2), 741_192_192),
        (counting.flops_per_token(GPT2), 797_815_296),
        (counting.flops_per_token_full_attention(GPT2), 854_438_400),
        (counting.flops_per_token_6n(GPT2_UNTIED) - 6 * counting.params_norm(GPT2_UNTIED), 972_776_448),
        (counting.flops_per_token_deepseek(GPT2), 622_854_144),
        (counting.TRAIN_OVER_FORWARD * counting.flops_per_token_forward(GPT2), 797_815_296),
    ],
    ids=["Kaplan", "with the head", "causal", "full attention", "6 N untied, no norms", "DeepSeek M", "3 x forward"],
)
def test_published_conventions(convention: int, flops_per_token: int) -> None:
    assert convention == flops_per_token


def test_published_parameters_of_mixtures() -> None:
    """Mixtral 8x7B: 46.7 B parameters, 12.9 B active (Jiang 2024, table 2); Qwen3-30B-A3B: 30.5 B."""
    mixtral = ModelConfig(
        width=4096, layers=32, heads=32, kv_heads=8, vocab=32_000, context=32_768, mlp_width=14_336,
        tied_embeddings=False, experts=8, experts_per_token=2,
    )  # fmt: skip
    assert counting.params_total(mixtral) == 46_702_792_704
    assert counting.active_params_total(mixtral) == 12_879_925_248
    qwen = ModelConfig(
        width=2048, layers=48, heads=32, kv_heads=4, head_features=128, vocab=151_936, context=32_768, qk_norm=True,
        tied_embeddings=False, experts=128, experts_per_token=8, expert_width=768,
    )  # fmt: skip
    assert counting.params_total(qwen) == 30_532_122_624


def test_a_token_counts_the_experts_that_read_it() -> None:
    """As one MLP of their width together, and the router; what it does not take is in the total alone."""
    sparse = replace(SMALL, experts=8, experts_per_token=2, shared_experts=1, expert_width=40)
    dense = replace(SMALL, mlp_width=3 * 40)
    router, idle = 2 * 96 * 8, 2 * (8 - 2) * 3 * 96 * 40
    for active, total in (
        (counting.active_params_total, counting.params_total),
        (counting.active_params_non_embedding, counting.params_non_embedding),
        (counting.active_params_with_head, counting.params_with_head),
    ):
        assert active(dense) == total(dense)
        assert (active(sparse), total(sparse)) == (total(dense) + router, total(dense) + router + idle)
    for flops in (counting.flops_per_token, counting.flops_per_token_6n, counting.flops_per_token_deepseek):
        assert flops(sparse) - flops(dense) == 6 * router


def test_published_parameters() -> None:
    assert counting.params_non_embedding(GPT2) == 84_934_656
    assert counting.params_embedding(GPT2) == 38_597_376
    assert (counting.params_head(GPT2), counting.params_head(GPT2_UNTIED)) == (0, 38_597_376)
    for shape in (GPT2, GPT2_UNTIED):
        assert counting.params_with_head(shape) == 84_934_656 + 38_597_376


OPTIONS: list[dict[str, Any]] = [
    {"norm": "layernorm"}, {"norm": "layernorm", "biases": True}, {"biases": True}, {"positions": "learned"},
    {"positions": "alibi"}, {"positions": "none"}, {"mlp": "gelu"}, {"mlp": "relu2"}, {"mlp_width": 320},
    {"qk_norm": True}, {"tied_embeddings": False}, {"logit_softcap": 30.0}, {"document_end": 3}, {"kv_heads": 1},
    {"kv_heads": 2}, {"parametrization": "mup", "base_width": 64}, {"init": "gpt2"}, {"remat": "full"},
    {"compute_dtype": "bfloat16"}, {"residual_dropout": 0.1},
    {"mlp": "geglu"}, {"mlp": "gelu-erf", "parallel_block": True, "biases": True}, {"qkv_biases": True},
    {"head_features": 40}, {"heads": 5, "head_features": 16, "kv_heads": 1, "biases": True}, {"rope_fraction": 0.25},
    {"embedding_scale": 1.0},
]  # fmt: skip


EXPERTS: list[dict[str, Any]] = [
    {"experts": 4}, {"experts": 4, "experts_per_token": 2}, {"experts": 6, "experts_per_token": 3, "expert_width": 40},
    {"experts": 4, "shared_experts": 2, "mlp": "gelu"}, {"experts": 2, "experts_per_token": 2, "mlp": "relu2"},
    {"experts": 4, "experts_per_token": 2, "router": RouterConfig(gate="sigmoid", bias_rate=0.001, normalized=False)},
    {"experts": 4, "experts_per_token": 2, "router": RouterConfig(capacity=1.25, z_loss=0.001)},
    {"experts": 4, "parametrization": "mup", "base_width": 64, "tied_embeddings": False, "qkv_biases": True},
]  # fmt: skip


def named(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.parametrize("options", [*OPTIONS, *EXPERTS], ids=named)
def test_every_option_is_counted_as_it_is_built(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters against the table that the model is made from; forward products against the program's, exactly."""
    monkeypatch.setattr(grouped, "default_method", lambda: "ragged")  # the length of the other's loop is no constant
    config = replace(SMALL, **options)
    sizes = {name: math.prod(row.shape) for name, row in parameter_table(config).items()}
    assert counting.params_total(config) == sum(sizes.values())
    matrices = [*counting.layer_matrices(config), *counting.outer_matrices(config)]
    built = sum(math.prod(row.shape) for row in parameter_table(config).values() if row.role != "vector")
    assert sum(map(math.prod, matrices)) == built
    params, tokens = abstract(config, 2, config.context + 1)
    program = jax.make_jaxpr(lambda params, tokens: transformer.token_losses(params, tokens, config)[0])(params, tokens)
    forward = 2 * config.context * (counting.flops_per_token_forward(config) + computed_beyond_need(config))
    assert matmul_flops(program.jaxpr) == forward + flops_of_empty_rows(config, 2)


SMALL = ModelConfig(width=96, layers=2, heads=4, vocab=192, context=128)


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the attention of the CPU is the one that is counted here")
@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_the_compilers_count_of_every_option(options: dict[str, Any]) -> None:
    """Unrolled, so that no layer is counted once for all. Up to 8 % at this width are norms, softmax and the like,
    up to 11 % with the polynomial of the error function."""
    config = replace(SMALL, **options, scan_layers=False)
    params, tokens = abstract(config, 2, config.context)
    lowered = jax.jit(partial(transformer.logits, config=config)).lower(params, tokens)
    per_token = lowered.cost_analysis()["flops"] / (2 * config.context)
    computed = counting.flops_per_token_forward(config) + computed_beyond_need(config)
    assert 1.0 < per_token / computed < (1.12 if config.mlp == "gelu-erf" else 1.08)


def matmul_flops(jaxpr: Any) -> int:
    """Two per multiply-add of every matrix product in a program, those in its sub-programs included."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval
            inner = 1
            for axis in contracted:
                inner *= left.shape[axis]
            total += 2 * inner * equation.outvars[0].aval.size
        if equation.primitive.name == "ragged_dot_general":  # each row with the matrix of its group
            rows, groups = (operand.aval for operand in equation.invars[:2])
            total += 2 * rows.size * groups.shape[2]
        for value in equation.params.values():
            if inner_jaxpr := getattr(value, "jaxpr", value if hasattr(value, "eqns") else None):
                total += matmul_flops(inner_jaxpr)
    return total


def computed_beyond_need(config: ModelConfig) -> int:
    """Attention FLOPs of one forward token above `counting`'s: a chunk of queries also meets masked keys of its own."""
    keys = sum((stop - start) * stop for start, stop in chunked._chunks(config.context))
    return config.layers * 4 * config.heads * config.head_width * keys // config.context - causal_attention(config) // 3


def flops_of_empty_rows(config: ModelConfig, sequences: int) -> int:
    """Forward FLOPs of rows that experts multiply and that are no token's."""
    if not config.sparse:
        return 0
    choices = sequences * config.context * config.experts_per_token
    if config.expert_capacity is None:
        rows = grouped.block_rows(choices, config.experts)
    else:
        rows = sequences * config.experts * config.expert_capacity - choices
    return 2 * config.layers * rows * counting.params.mlp_branches(config) * config.width * config.expert_hidden


def abstract(config: ModelConfig, sequences: int, tokens: int) -> tuple[Any, jax.ShapeDtypeStruct]:
    """Parameters and tokens as shapes."""
    params = jax.eval_shape(partial(init, config), jax.random.key(0))
    return params, jax.ShapeDtypeStruct((sequences, tokens), jnp.int32)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the attention of the CPU is the one that is counted here")
@pytest.mark.parametrize("config", SHAPES)
def test_matrix_products_of_a_step_are_counted_exactly(config: ModelConfig) -> None:
    """Forward as counted, masked keys apart; forward and backward three times that."""

    def loss(params: Any, tokens: jax.Array) -> jax.Array:
        return transformer.token_losses(params, tokens, config)[0].mean()

    params, tokens = abstract(config, 2, config.context + 1)
    per_token = counting.flops_per_token_forward(config) + computed_beyond_need(config)
    forward = 2 * config.context * per_token
    assert matmul_flops(jax.make_jaxpr(loss)(params, tokens).jaxpr) == forward
    gradient = jax.make_jaxpr(jax.grad(loss))(params, tokens)
    assert matmul_flops(gradient.jaxpr) == counting.TRAIN_OVER_FORWARD * forward


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the attention of the CPU is the one that is counted here")
@pytest.mark.parametrize("config", SHAPES)
def test_the_compilers_count_is_a_little_higher(config: ModelConfig) -> None:
    """XLA also counts norms, softmax, activations and rotations, O(width) beside O(width^2): 0.5 to 2 % at these sizes.

    The layers are unrolled, so none is counted once for all.
    """
    params, tokens = abstract(config, 2, config.context)
    lowered = jax.jit(partial(transformer.logits, config=config)).lower(params, tokens)
    per_token = lowered.cost_analysis()["flops"] / (2 * config.context)
    computed = counting.flops_per_token_forward(config) + computed_beyond_need(config)
    assert 1.002 < per_token / computed < 1.025


def test_a_runs_counts_agree_with_each_other() -> None:
    run = RunConfig(model=SHAPES[0], optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=8), tokens=2048 * 100)
    counts = counting.count(run)
    assert counts.params == counting.params_total(run.model)
    assert counts.flops == run.tokens * counting.flops_per_token(run.model)
    assert counts.flops_6n == 6 * counts.params * run.tokens
    assert counts.flops_kaplan == 6 * counts.params_non_embedding * run.tokens
    assert counts.flops_with_head == 6 * counts.params_with_head * run.tokens
    attention = causal_attention(run.model) * run.tokens
    assert counts.flops == counts.flops_with_head + attention == counts.flops_full_attention - attention
    assert counts.flops_deepseek == counts.flops_kaplan + 2 * attention
    assert counts.forward_flops * 3 == counts.flops
    assert counts.tokens_per_param == run.tokens / counts.params
    half = counting.count(run, run.tokens // 2)
    assert (half.tokens, half.flops, half.params) == (run.tokens // 2, counts.flops // 2, counts.params)
    checked = replace(run, validation_tokens=2560, validations=3)
    assert counting.validation_flops(checked) == 3 * 2560 * counting.flops_per_token_forward(run.model)
    assert counting.memory_bytes(run) > counting.state_bytes(run)


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


def memory_of(batch: int = 8, accelerator: bool = False, settings: dict[str, Any] | None = None, **shape: Any) -> int:
    config = replace(SHAPES[0], **shape)
    optimizer = OptimizerConfig(peak_lr=0.01, batch_sequences=batch, **(settings or {}))
    return counting.memory_bytes(
        RunConfig(model=config, optimizer=optimizer, tokens=batch * config.context), accelerator
    )


def test_what_takes_less_memory_is_estimated_to() -> None:
    """Against the compiler's own figures: experiments/bench_memory.py, and the slow test below."""
    for accelerator in (False, True):
        base = memory_of(accelerator=accelerator)
        assert memory_of(settings={"micro_batches": 4}, accelerator=accelerator) < base < memory_of(16, accelerator)
    loop = {"scan_layers": True, "layers": 8}
    full, dots, none = (memory_of(**loop, remat=remat) for remat in ("full", "dots", "none"))
    assert full < dots < none and memory_of(layers=8, remat="full") == memory_of(layers=8)
    narrow = {"compute_dtype": "bfloat16"}
    assert memory_of(accelerator=True, **narrow) < memory_of(**narrow) < memory_of()
    assert memory_of(64, vocab=2**15, loss_chunk=8) < memory_of(64, vocab=2**15)
    large = {"accelerator": True, "vocab": 2**17, "context": 2048, **narrow}
    assert memory_of(64, **large) < 2 * memory_of(32, **large)  # the logits are cut at 512 MiB


LAYERS, WIDTH, HIDDEN, HEADS, CONTEXT, SEQUENCES = 3, 64, 320, 4, 128, 5
LOGITS = 2 * 4 * SEQUENCES * CONTEXT * 256
NUMBERS = {"swiglu": 10 * WIDTH + 5 * HIDDEN, "gelu": 10 * WIDTH + 4 * HIDDEN, "relu2": 10 * WIDTH + 3 * HIDDEN}
"""That a layer saves of a token, attention apart."""
CHUNKED = HEADS * 96 + 2 * 32 * 1.5
"""Numbers that two chunks of 64 queries save of a token: weights on 64 or 128 keys; keys and values, copied 1 or 2
times, of 2 of the 4 heads."""


@pytest.mark.parametrize(
    ("shape", "accelerator", "layers_save", "number_bytes"),
    [
        ({}, False, LAYERS * (NUMBERS["swiglu"] + CHUNKED), 4),
        ({"mlp": "gelu"}, False, LAYERS * (NUMBERS["gelu"] + CHUNKED), 4),
        ({"mlp": "relu2"}, False, LAYERS * (NUMBERS["relu2"] + CHUNKED), 4),
        ({"compute_dtype": "bfloat16"}, False, LAYERS * (NUMBERS["swiglu"] + CHUNKED), 3),
        ({"compute_dtype": "bfloat16"}, True, LAYERS * NUMBERS["swiglu"], 2),
        ({}, True, LAYERS * (NUMBERS["swiglu"] + 2 * HEADS * CONTEXT), 4),
        (
            {"compute_dtype": "bfloat16", "remat": "dots"},
            True,
            LAYERS * (5 * WIDTH + 2 * HIDDEN) + NUMBERS["swiglu"],
            2,
        ),
        (
            {"compute_dtype": "bfloat16", "remat": "dots", "mlp": "gelu"},
            True,
            LAYERS * (5 * WIDTH + HIDDEN) + NUMBERS["gelu"],
            2,
        ),
        ({"compute_dtype": "bfloat16", "remat": "full"}, True, LAYERS * WIDTH + NUMBERS["swiglu"], 2),
        ({"remat": "full", "scan_layers": True}, False, LAYERS * WIDTH + NUMBERS["swiglu"] + CHUNKED, 4),
        ({"remat": "full", "scan_layers": False}, True, LAYERS * (NUMBERS["swiglu"] + 2 * HEADS * CONTEXT), 4),
    ],
    ids=lambda value: named(value) if isinstance(value, dict) else str(value),
)
def test_the_estimated_activations_are_those_of_the_docstring(
    shape: dict[str, Any], accelerator: bool, layers_save: float, number_bytes: int
) -> None:
    base = ModelConfig(width=WIDTH, layers=LAYERS, heads=HEADS, kv_heads=2, vocab=256, context=CONTEXT)
    model = replace(base, mlp_width=HIDDEN, **shape)
    estimate = memory.activation_bytes(model, SEQUENCES, accelerator)
    assert estimate == SEQUENCES * CONTEXT * (layers_save + 4 * WIDTH) * number_bytes + LOGITS


def test_a_steps_memory_is_its_state_gradients_and_activations() -> None:
    model = SHAPES[0]
    params = counting.params_total(model)
    for micro_batches, gradients in ((1, 4 * params), (4, 8 * params)):  # of several, their sum and the next ones
        settings = OptimizerConfig(peak_lr=0.01, batch_sequences=8, micro_batches=micro_batches)
        run = RunConfig(model=model, optimizer=settings, tokens=2048 * 100)
        activations = memory.activation_bytes(model, 8 // micro_batches)
        assert counting.memory_bytes(run) == 3 * 4 * params + gradients + activations


def test_how_finely_attention_and_logits_are_cut() -> None:
    """At least 64 queries and at most 8 chunks; 512 MiB of logits at once on each device."""
    lengths = {16: 1, 127: 1, 128: 2, 511: 7, 512: 8, 4096: 8}
    assert {length: chunks.attention_chunks(length) for length in lengths} == lengths
    assert [chunks.loss_chunks(size) for size in (1, 2**29, 2**29 + 1)] == [1, 1, 2]
    assert chunks.peak_logits_bytes(2**32, devices=4) == 2**31
    assert chunks.peak_logits_bytes(2**20, devices=4) == 2**20
    for loss_chunk, positions in ((16, 16), (999, SHAPES[0].context)):  # of 3 sequences, a vocabulary of 1024
        assert memory._logits_bytes(replace(SHAPES[0], loss_chunk=loss_chunk), 3, 1) == 4 * 3 * positions * 1024


def test_attention_and_its_memory_estimate_are_cut_into_the_same_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = replace(SHAPES[0], context=512)
    for shortest, most, number in ((64, 8, 8), (128, 8, 4), (64, 2, 2)):
        monkeypatch.setattr(chunks, "SHORTEST_CHUNK", shortest)
        monkeypatch.setattr(chunks, "MOST_CHUNKS", most)
        cut = chunked._chunks(model.context)
        scores = model.heads * sum((stop - start) * stop for start, stop in cut)
        copies = 2 * model.num_kv_heads * model.head_width * sum(stop for _, stop in cut)
        assert len(cut) == number
        assert memory._chunked_attention(model) * model.context == pytest.approx(scores + copies)


def test_the_loss_and_its_memory_estimate_are_cut_at_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sequences = replace(SHAPES[0], context=512), 8
    for limit in (2**20, 2**22):
        monkeypatch.setattr(chunks, "LOGITS_BYTES", limit)
        chunk = default_chunk(sequences, model.context, model.vocab)
        assert chunk is not None
        assert 4 * sequences * chunk * model.vocab == memory._logits_bytes(model, sequences, devices=1) == limit


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the estimate without `accelerator` is of a CPU")
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
