import math
from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.config import ModelConfig, RopeScaling
from lmscale.core.errors import UserError
from lmscale.lm.model import layers, transformer
from lmscale.lm.model.parameters import Params, parameter_table
from lmscale.lm.model.tap import TAPS, record

VARIANTS: dict[str, dict[str, object]] = {
    "plain": {},
    "gelu untied": {"mlp": "gelu", "tied_embeddings": False, "mlp_width": 20},
    "gpt2": {"norm": "layernorm", "positions": "learned", "mlp": "gelu", "biases": True, "init": "gpt2"},
    "grouped": {"kv_heads": 2, "heads": 4, "qk_norm": True, "mlp": "relu2"},
    "multi-query, ALiBi": {"kv_heads": 1, "positions": "alibi", "logit_softcap": 5.0},
    "no positions, documents": {"positions": "none", "document_end": 3, "tied_embeddings": False},
    "neox": {
        "norm": "layernorm",
        "mlp": "gelu-erf",
        "biases": True,
        "parallel_block": True,
        "rope_fraction": 0.25,
        "tied_embeddings": False,
        "embedding_scale": 1.0,
    },
    "gemma": {"mlp": "geglu", "heads": 3, "kv_heads": 1, "head_features": 6, "embedding_scale": 4.0, "qk_norm": True},
    "llama 3": {"qkv_biases": True, "rope_scaling": RopeScaling(factor=8.0, original_context=4)},
    "completep": {"parametrization": "completep", "base_width": 8, "base_layers": 1, "biases": True},
}


def tiny(**changed: object) -> ModelConfig:
    return ModelConfig(**{"width": 16, "layers": 2, "heads": 2, "vocab": 32, "context": 12, **changed})


@cache
def start(config: ModelConfig, seed: int = 0) -> Params:
    """Parameters of the table's scale, biases and gains moved off 0 and 1 so that they are seen."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(row.mean + (row.std or 0.1) * rng.standard_normal(row.shape), config.param_dtype)
        for name, row in parameter_table(config).items()
    }


def losses(params: Params, tokens: jax.Array, config: ModelConfig) -> jax.Array:
    """Cross-entropy alone."""
    return transformer.token_losses(params, tokens, config)[0]


def compiled(function: Callable[..., jax.Array], config: ModelConfig) -> Callable[..., jax.Array]:
    return jax.jit(partial(function, config=config))


def some_tokens(config: ModelConfig, rows: int = 3, length: int = 12) -> np.ndarray:
    return np.random.default_rng(1).integers(0, config.vocab, (rows, length), np.int32)


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return tiny(**request.param)


@pytest.mark.long
def test_token_losses_are_the_log_softmax_of_the_logits(config: ModelConfig) -> None:
    params, tokens = start(config), some_tokens(config, length=13)
    logits = np.asarray(compiled(transformer.logits, config)(params, tokens[:, :-1]), np.float64)
    log_z = np.log(np.exp(logits).sum(axis=-1))
    expected = log_z - np.take_along_axis(logits, np.asarray(tokens)[:, 1:, None], axis=-1)[..., 0]
    nats, log_partition = compiled(transformer.token_losses, config)(params, tokens)
    np.testing.assert_allclose(nats, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_partition, log_z, rtol=1e-5, atol=1e-5)


def test_a_token_below_zero_is_not_scored() -> None:
    config, tokens = tiny(), some_tokens(tiny(), length=13)
    scored = compiled(losses, config)
    whole = np.asarray(scored(start(config), tokens))
    tokens[1, 10:] = -1
    cut = np.asarray(scored(start(config), tokens))
    assert np.all(cut[1, 9:] == 0)
    np.testing.assert_allclose(cut[1, :9], whole[1, :9], rtol=1e-6)
    np.testing.assert_allclose(cut[[0, 2]], whole[[0, 2]], rtol=1e-6)


def reach(config: ModelConfig) -> np.ndarray:
    """How much each position's logits depend on each token [logit position, token position].

    Every position gets a token of its own, so that the gradient at an embedding is that at a position.
    """
    tokens = jnp.arange(12)[None]
    sensitivity = jax.jit(
        jax.jacrev(
            lambda embedding: transformer.logits({**start(config), "embedding": embedding}, tokens, config)[0].sum(-1)
        )
    )(start(config)["embedding"])
    return np.abs(sensitivity).sum(axis=-1)


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_no_logit_depends_on_a_later_token(variant: dict[str, object]) -> None:
    influence = reach(tiny(**{**variant, "vocab": 12, "tied_embeddings": False, "document_end": None}))
    assert np.all(influence[np.triu_indices(12, k=1)] == 0)
    assert np.all(influence[np.tril_indices(12)] > 0)


@pytest.mark.long
def test_no_token_sees_across_the_end_of_a_document() -> None:
    """The end belongs to the document it closes: token 4 sees tokens 0 to 4, token 5 itself alone."""
    influence = reach(tiny(vocab=12, tied_embeddings=False, document_end=4))
    document = np.arange(12) > 4
    assert np.array_equal(influence > 0, np.tril(document[:, None] == document[None]))


@pytest.mark.long
@pytest.mark.parametrize("changed", [{"scan_layers": True}, {"remat": "full"}, {"remat": "dots"}, {"loss_chunk": 5}])
def test_how_it_is_computed_changes_nothing(changed: dict[str, object]) -> None:
    """Scanned layers, rematerialisation and chunks of the loss: the same losses and gradients."""
    plain = tiny(layers=3, **VARIANTS["gpt2"])
    other, tokens = tiny(layers=3, **VARIANTS["gpt2"], **changed), some_tokens(plain, length=13)
    loss_and_grads, expected = (
        jax.jit(jax.value_and_grad(lambda params, config=config: losses(params, tokens, config).mean()))(start(plain))
        for config in (other, plain)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-6), loss_and_grads, expected)


@pytest.mark.long
def test_dropout_needs_a_key_and_keeps_the_mean() -> None:
    config, tokens = tiny(residual_dropout=0.2, attention_dropout=0.2), some_tokens(tiny(), 64, 13)
    plain = compiled(losses, config)(start(config), tokens)
    np.testing.assert_array_equal(plain, compiled(losses, tiny())(start(tiny()), tokens))
    dropped = jax.jit(lambda key: transformer.token_losses(start(config), tokens, config, key)[0])
    first, again, other = dropped(jax.random.key(0)), dropped(jax.random.key(0)), dropped(jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-3) and not np.allclose(first, plain, atol=1e-3)
    x = layers.dropout(jnp.ones((400, 500)), 0.2, jax.random.key(0))
    assert float((x == 0).mean()) == pytest.approx(0.2, abs=0.005)
    assert float(x.mean()) == pytest.approx(1, abs=0.01)


@pytest.mark.long
def test_logits_are_capped() -> None:
    """Gemma 2: c tanh(x / c)."""
    params = {**start(tiny()), "embedding": 30 * start(tiny())["embedding"]}
    free, capped = (
        np.asarray(compiled(transformer.logits, tiny(logit_softcap=c))(params, some_tokens(tiny())))
        for c in (None, 2.0)
    )
    assert np.abs(free).max() > 4
    np.testing.assert_allclose(capped, 2 * np.tanh(free / 2), rtol=1e-5, atol=1e-5)


@pytest.mark.long
def test_multi_query_is_grouped_attention_with_every_head_alike() -> None:
    """A model whose heads all have the same key and value computes what one shared pair does."""
    many, one = tiny(heads=4), tiny(heads=4, kv_heads=1)
    params = dict(start(one))
    grouped = params["attention_qkv"]  # [L, D, 1, 4 + 2, K]
    queries, shared = grouped[:, :, 0, :4, None], jnp.repeat(grouped[:, :, :, 4:], 4, axis=2)
    split = {**params, "attention_qkv": jnp.concatenate([queries, shared], axis=3)}
    tokens = some_tokens(one)
    split_logits, expected = (
        compiled(transformer.logits, many)(split, tokens),
        compiled(transformer.logits, one)(params, tokens),
    )
    np.testing.assert_allclose(split_logits, expected, rtol=1e-5, atol=1e-5)


def test_scores_depend_on_the_distance_alone() -> None:
    config = tiny(context=40)
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 2, config.head_width))
    everywhere = [jnp.broadcast_to(x, (1, 40, 2, config.head_width)) for x in (q, k)]
    turned_q, turned_k = (layers.apply_rope(x, layers.rope_cos_sin(np.arange(40)[None], config)) for x in everywhere)
    scores = np.einsum("thk,shk->hts", turned_q[0], turned_k[0])
    for offset in (-7, 0, 3):
        diagonal = np.diagonal(scores, offset, axis1=1, axis2=2)
        np.testing.assert_allclose(diagonal, diagonal[:, :1] * np.ones_like(diagonal), rtol=1e-4, atol=1e-5)
    assert not np.allclose(scores[:, 0, 0], scores[:, 3, 0], atol=1e-2)
    np.testing.assert_allclose(np.linalg.norm(turned_q, axis=-1), np.linalg.norm(everywhere[0], axis=-1), rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("positions", ["rotary", "learned", "alibi", "none"])
def test_word_order_matters(positions: str) -> None:
    """A bag of words would give the last position the same logits; the second layer sees order by the mask alone."""
    config = tiny(positions=positions)
    tokens = jnp.array([[1, 2, 3, 4], [2, 1, 3, 4]])
    first, second = compiled(transformer.logits, config)(start(config), tokens)[:, -1]
    assert not np.allclose(first, second, atol=1e-3)


@pytest.mark.long
def test_the_mlps_are_what_their_names_say() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 5, 16))
    for mlp in ("swiglu", "gelu", "relu2"):
        config = tiny(mlp=mlp, biases=True)
        layer = transformer.unstack(_stacked(config), config.layers)[1]
        exact = {name: np.asarray(value, np.float64) for name, value in layer.items()}
        hidden = np.einsum("nd,dbf->bnf", np.asarray(x[0], np.float64), exact["mlp_in"])
        hidden += exact["mlp_in_bias"][:, None]
        if mlp == "swiglu":
            hidden = hidden[0] / (1 + np.exp(-hidden[0])) * hidden[1]
        elif mlp == "gelu":
            hidden = hidden[0] / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden[0] + 0.044715 * hidden[0] ** 3)))
        else:
            hidden = np.maximum(hidden[0], 0) ** 2
        expected = hidden @ exact["mlp_out"] + exact["mlp_out_bias"]
        np.testing.assert_allclose(compiled(layers.mlp, config)(layer, x)[0], expected, rtol=1e-4, atol=1e-5)


def _stacked(config: ModelConfig) -> Params:
    return {name: start(config)[name] for name, row in parameter_table(config).items() if row.axes[0] == "layers"}


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
def test_norms_are_of_unit_size_in_half_precision_too(norm: str) -> None:
    """Within what rounding the result alone would cost: a mean square taken in bfloat16 errs three times as much."""
    config, rng = tiny(width=256, norm=norm), np.random.default_rng(0)
    x = jnp.asarray(100 + 300 * rng.standard_normal((4, 8, 256)), jnp.float32)
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 1.5e-3)):
        y = layers.norm(x.astype(dtype), "n", {"n": jnp.full(256, 2, dtype)}, config)
        assert y.dtype == dtype
        y = np.asarray(y, np.float64)
        np.testing.assert_allclose(np.square(y).mean(axis=-1), 4, rtol=tolerance)
        assert (np.abs(y.mean(axis=-1)).max() < 0.01) == (norm == "layernorm")


@pytest.mark.long
def test_layer_norm_adds_its_bias() -> None:
    config, x = tiny(norm="layernorm"), jax.random.normal(jax.random.key(0), (1, 3, 16))
    with_bias, without = (
        layers.norm(x, "n", {"n": jnp.ones(16), **more}, config) for more in ({"n_bias": x[0, 0]}, {})
    )
    np.testing.assert_allclose(with_bias - without, jnp.broadcast_to(x[0, 0], x.shape), atol=1e-5)


@pytest.mark.long
def test_half_precision_compute_keeps_float32_logits_near_the_full_ones() -> None:
    full, half = tiny(), tiny(compute_dtype="bfloat16")
    exact, rounded = (
        compiled(transformer.logits, config)(start(config), some_tokens(config)) for config in (full, half)
    )
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, exact, atol=0.1)


def test_more_tokens_than_the_context_are_refused() -> None:
    config = tiny()
    for function, length in ((transformer.logits, 13), (transformer.token_losses, 14)):
        with pytest.raises(UserError, match="13 tokens do not fit the context of 12; cut them to that many"):
            function(start(config), some_tokens(config, length=length), config)


def test_llama_3_slows_down_the_long_waves_alone() -> None:
    """Each pair of features against the rule of Llama 3.1: wavelengths below s / 4 stay, those above s are `factor`
    times as long, and between the two the frequency is a mean whose weight is linear in s / wavelength."""
    base, factor, context = 500_000.0, 8.0, 8192
    config = tiny(
        heads=1, head_features=128, rope_base=base, rope_scaling=RopeScaling(factor=factor, original_context=context)
    )
    for pair, frequency in enumerate(layers.rope_frequencies(config)):
        plain = base ** (-2 * pair / 128)
        wavelength = 2 * np.pi / plain
        if wavelength < context / 4:
            expected = plain
        elif wavelength > context:
            expected = plain / factor
        else:
            weight = (context / wavelength - 1) / 3
            expected = (1 - weight) * plain / factor + weight * plain
        assert frequency == pytest.approx(expected, rel=1e-12)


@pytest.mark.long
def test_a_parallel_block_adds_both_to_the_stream_at_its_entry() -> None:
    """x + attention(norm(x)) + MLP(norm(x)), from the sites of the tap."""
    config = tiny(layers=1, parallel_block=True)
    params, tokens = start(config), some_tokens(config)
    _, recorded = transformer.forward(params, tokens, config, record(*TAPS))
    entry = recorded["residual_pre"][0]
    layer_params = {name: value[0] for name, value in params.items() if name.startswith("mlp")}
    added = layers.mlp(layer_params, layers.norm(entry, "mlp_norm", layer_params, config), config)
    np.testing.assert_allclose(recorded["mlp_output"][0], added, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        recorded["residual_post"][0], entry + recorded["attention_output"][0] + added, rtol=1e-5, atol=1e-6
    )


def test_only_a_part_of_a_head_turns() -> None:
    """The features behind the first quarter keep their values at every position."""
    config = tiny(heads=1, rope_fraction=0.25)
    x = jax.random.normal(jax.random.key(0), (1, 12, 1, 16))
    rotated = layers.apply_rope(x, layers.rope_cos_sin(np.arange(12)[None], config))
    np.testing.assert_array_equal(rotated[..., 4:], x[..., 4:])
    assert float(jnp.abs(rotated[:, 1:, :, :4] - x[:, 1:, :, :4]).min()) > 0


def test_gelu_by_the_error_function() -> None:
    x = np.linspace(-4, 4, 33)
    expected = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x]
    np.testing.assert_allclose(layers.ACTIVATIONS["gelu-erf"](x), expected, atol=1e-6)
    assert np.abs(np.asarray(layers.ACTIVATIONS["gelu"](x)) - expected).max() > 1e-4
