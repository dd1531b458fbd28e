import math
from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale import model
from lmscale.config import ModelConfig
from lmscale.counting import params_total
from lmscale.errors import UserError

VARIANTS = {
    "swiglu tied": {"mlp": "swiglu", "tied_embeddings": True},
    "gelu untied": {"mlp": "gelu", "tied_embeddings": False, "mlp_width": 20},
}


def tiny(**changed: object) -> ModelConfig:
    return ModelConfig(**{"width": 16, "layers": 2, "heads": 2, "vocab": 32, "context": 12, **changed})


@cache
def start(config: ModelConfig, seed: int = 0) -> model.Params:
    """Parameters of the table's scale; `model.init` makes such, but takes seconds to compile."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(1.0 if row.std == "ones" else row.std, config.param_dtype)
        * jnp.asarray(np.ones(row.shape) if row.std == "ones" else rng.standard_normal(row.shape), config.param_dtype)
        for name, row in model.parameter_table(config).items()
    }


def compiled(function: Callable[..., jax.Array], config: ModelConfig) -> Callable[..., jax.Array]:
    return jax.jit(partial(function, config=config))


def some_tokens(config: ModelConfig, rows: int = 3, length: int = 12) -> np.ndarray:
    return np.random.default_rng(1).integers(0, config.vocab, (rows, length), np.int32)


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return tiny(**request.param)


def test_the_table_is_what_is_built(config: ModelConfig) -> None:
    table, params = model.parameter_table(config), jax.eval_shape(partial(model.init, config), jax.random.key(0))
    assert {name: row.shape for name, row in table.items()} == {name: value.shape for name, value in params.items()}
    assert all(len(row.axes) == len(row.shape) for row in table.values())
    assert sum(value.size for value in params.values()) == params_total(config)
    assert ("head" in table) == (not config.tied_embeddings)
    assert {name for name, row in table.items() if not row.is_matrix} == {"attention_norm", "mlp_norm", "final_norm"}


def test_initial_values_have_the_tables_scale_and_follow_the_seed() -> None:
    config = tiny(width=64, vocab=256, tied_embeddings=False)
    init = jax.jit(partial(model.init, config))
    params, again, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    for name, row in model.parameter_table(config).items():
        value = np.asarray(params[name])
        assert np.array_equal(value, again[name])
        if row.std == "ones":
            assert np.all(value == 1)
            continue
        np.testing.assert_allclose([value.mean() / row.std, value.std() / row.std], [0, 1], atol=0.05)
        assert not np.array_equal(value, other[name])
        assert row.axes[0] != "layers" or not np.array_equal(value[0], value[1])


def test_parameters_of_one_size_do_not_start_alike() -> None:
    params = jax.jit(partial(model.init, tiny(layers=1, tied_embeddings=False)))(jax.random.key(0))
    assert params["embedding"].size == params["head"].size
    assert not np.array_equal(params["embedding"].ravel(), params["head"].ravel())


def first_loss(config: ModelConfig) -> float:
    """Mean over four sets of initial parameters."""
    losses, tokens = compiled(model.token_losses, config), some_tokens(config, 8, config.context + 1)
    return float(np.mean([losses(start(config, seed), tokens).mean() for seed in range(4)]))


@pytest.mark.parametrize(("width", "mlp"), [(16, "swiglu"), (96, "gelu")])
def test_loss_at_initialisation(width: int, mlp: str) -> None:
    """Logits of unit variance that know nothing cost ln V and half their variance: E ln sum exp = ln V + 1/2."""
    config = tiny(width=width, vocab=256, context=64, tied_embeddings=False, mlp=mlp)
    assert first_loss(config) == pytest.approx(math.log(256) + 0.5, abs=0.15)


def test_with_tied_embeddings_only_the_token_just_read_starts_above_the_others() -> None:
    """The stream still carries its vector, so its logit is near sqrt(D); without it the loss would be ln V + 1/2."""
    config = tiny(width=96, vocab=256, context=64)
    tokens = some_tokens(config, length=64)
    logits = np.asarray(compiled(model.logits, config)(start(config), tokens), np.float64)
    own = np.take_along_axis(logits, np.asarray(tokens)[..., None], axis=-1)[..., 0]
    assert 0.7 * math.sqrt(96) < own.mean() < math.sqrt(96)
    others = (np.exp(logits).sum(axis=-1) - np.exp(own)) / 255
    assert np.log(others).mean() == pytest.approx(0.5, abs=0.15)


def test_token_losses_are_the_log_softmax_of_the_logits(config: ModelConfig) -> None:
    params, tokens = start(config), some_tokens(config, length=13)
    logits = np.asarray(compiled(model.logits, config)(params, tokens[:, :-1]), np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = -np.take_along_axis(log_softmax, np.asarray(tokens)[:, 1:, None], axis=-1)[..., 0]
    np.testing.assert_allclose(compiled(model.token_losses, config)(params, tokens), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
def test_no_logit_depends_on_a_later_token(mlp: str) -> None:
    """Every position gets a token of its own, so that the gradient at an embedding is that at a position."""
    config = tiny(vocab=12, mlp=mlp, tied_embeddings=False)
    tokens = jnp.arange(12)[None]
    sensitivity = jax.jit(
        jax.jacrev(lambda embedding: model.logits({**start(config), "embedding": embedding}, tokens, config)[0].sum(-1))
    )(start(config)["embedding"])
    reach = np.abs(sensitivity).sum(axis=-1)  # [logit position, token position]
    assert np.all(reach[np.triu_indices(12, k=1)] == 0)
    assert np.all(reach[np.tril_indices(12)] > 0)


def test_scores_depend_on_the_distance_alone() -> None:
    config = tiny(context=40)
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 2, config.head_width))
    everywhere = [jnp.broadcast_to(x, (1, 40, 2, config.head_width)) for x in (q, k)]
    turned_q, turned_k = (model._rotate(x, model._rotation(40, config)) for x in everywhere)
    scores = np.einsum("thk,shk->hts", turned_q[0], turned_k[0])
    for offset in (-7, 0, 3):
        diagonal = np.diagonal(scores, offset, axis1=1, axis2=2)
        np.testing.assert_allclose(diagonal, diagonal[:, :1] * np.ones_like(diagonal), rtol=1e-4, atol=1e-5)
    assert not np.allclose(scores[:, 0, 0], scores[:, 3, 0], atol=1e-2)
    np.testing.assert_allclose(np.linalg.norm(turned_q, axis=-1), np.linalg.norm(everywhere[0], axis=-1), rtol=1e-5)


def test_word_order_matters() -> None:
    """A bag of words would give the last position the same logits; two layers, since one sees no order but rotary's."""
    config = tiny()
    tokens = jnp.array([[1, 2, 3, 4], [2, 1, 3, 4]])
    first, second = compiled(model.logits, config)(start(config), tokens)[:, -1]
    assert not np.allclose(first, second, atol=1e-3)


def test_the_mlps_are_what_their_names_say() -> None:
    x = jax.random.normal(jax.random.key(0), (5, 16))
    for mlp in ("swiglu", "gelu"):
        config = tiny(mlp=mlp)
        layer = model._unstack(start(config), config.layers)[1]
        weight_in, weight_out = np.asarray(layer["mlp_in"], np.float64), np.asarray(layer["mlp_out"], np.float64)
        hidden = np.einsum("nd,dbf->bnf", np.asarray(x, np.float64), weight_in)
        if mlp == "swiglu":
            hidden = hidden[0] / (1 + np.exp(-hidden[0])) * hidden[1]
        else:
            hidden = hidden[0] / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden[0] + 0.044715 * hidden[0] ** 3)))
        np.testing.assert_allclose(model._mlp(layer, x, config), hidden @ weight_out, rtol=1e-4, atol=1e-5)


def test_rms_norm_is_of_unit_size_in_half_precision_too() -> None:
    """Within what rounding the result alone would cost: a mean square taken in bfloat16 errs three times as much."""
    config, x = tiny(width=256), jnp.asarray(300 * np.random.default_rng(0).standard_normal((32, 256)), jnp.float32)
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 1.5e-3)):
        y = model.rms_norm(x.astype(dtype), jnp.full(256, 2, dtype), config)
        assert y.dtype == dtype
        np.testing.assert_allclose(np.square(y.astype(jnp.float32)).mean(axis=-1), 4, rtol=tolerance)


def test_half_precision_compute_keeps_float32_logits_near_the_full_ones() -> None:
    full, half = tiny(), tiny(compute_dtype="bfloat16")
    exact, rounded = (compiled(model.logits, config)(start(config), some_tokens(config)) for config in (full, half))
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, exact, atol=0.1)


def test_parameters_of_their_own_type() -> None:
    params = jax.eval_shape(partial(model.init, tiny(param_dtype="bfloat16")), jax.random.key(0))
    assert {value.dtype for value in params.values()} == {jnp.dtype("bfloat16")}


def test_more_tokens_than_the_context_are_refused() -> None:
    config = tiny()
    for function, length in ((model.logits, 13), (model.token_losses, 14)):
        with pytest.raises(UserError, match="13 tokens do not fit the context of 12"):
            function(start(config), some_tokens(config, length=length), config)
