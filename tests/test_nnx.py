"""The module tree is the pure functions: same parameters, same logits, same gradients, under every option."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmscale.core.config import ModelConfig, RouterConfig
from lmscale.core.errors import UserError
from lmscale.lm.model import transformer as model
from lmscale.lm.model.nnx import Transformer
from lmscale.lm.model.parameters import Params, parameter_table

VARIANTS: dict[str, dict[str, object]] = {
    "scanned and chunked": {"scan_layers": True, "remat": "full", "loss_chunk": 5},
    "gpt2 with dropout": {
        "norm": "layernorm", "positions": "learned", "mlp": "gelu", "biases": True, "init": "gpt2",
        "residual_dropout": 0.2, "attention_dropout": 0.3,
    },
    "grouped": {"kv_heads": 2, "heads": 4, "qk_norm": True, "mlp": "relu2", "norm": "layernorm"},
    "multi-query, ALiBi, soft-cap": {"kv_heads": 1, "positions": "alibi", "logit_softcap": 5.0},
    "no positions, documents": {"positions": "none", "document_end": 3, "tied_embeddings": False},
    "neox": {
        "norm": "layernorm", "mlp": "gelu-erf", "biases": True, "parallel_block": True, "rope_fraction": 0.25,
        "embedding_scale": 1.0,
    },
    "heads of their own width": {"mlp": "geglu", "heads": 3, "head_features": 6, "qkv_biases": True},
    "mup": {
        "parametrization": "mup", "base_width": 8, "base_head_width": 4, "tied_embeddings": False,
        "mlp": "gelu", "mlp_width": 20,
    },
    "completep": {"parametrization": "completep", "base_width": 8, "base_layers": 1, "biases": True, "qk_norm": True},
    "bfloat16": {"compute_dtype": "bfloat16", "param_dtype": "bfloat16"},
    "experts": {
        "experts": 4, "experts_per_token": 2, "shared_experts": 1, "expert_width": 12,
        "router": RouterConfig(gate="sigmoid", bias_rate=0.001),
    },
    "experts with room, bfloat16": {"experts": 3, "router": RouterConfig(capacity=1.0), "compute_dtype": "bfloat16"},
}  # fmt: skip


def tiny(**changed: object) -> ModelConfig:
    return ModelConfig(**{"width": 16, "layers": 2, "heads": 2, "vocab": 32, "context": 12, **changed})


def some_params(config: ModelConfig, seed: int = 0) -> Params:
    """Biases and gains moved off 0 and 1 so that they are seen."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(row.mean + (row.std or 0.1) * rng.standard_normal(row.shape), config.param_dtype)
        for name, row in parameter_table(config).items()
    }


def some_tokens(length: int = 13) -> jax.Array:
    tokens = np.random.default_rng(1).integers(0, 32, (3, length), np.int32)
    tokens[2, 10:] = -1 if length > 12 else 0  # not scored
    return jnp.asarray(tokens)


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return tiny(**request.param)


@pytest.mark.long
def test_there_and_back_changes_no_bit(config: ModelConfig) -> None:
    params = some_params(config)
    again = Transformer(config, params).params()
    assert list(again) == list(params)
    for name, value in params.items():
        assert again[name].dtype == value.dtype
        np.testing.assert_array_equal(again[name], value)


@pytest.mark.long
def test_every_row_of_the_table_is_a_leaf_of_each_layer(config: ModelConfig) -> None:
    leaves = nnx.to_flat_state(nnx.state(Transformer(config, some_params(config)), nnx.Param))
    names = sorted(str(path[-1]) for path, _ in leaves)
    expected = sorted(
        name
        for name, row in parameter_table(config).items()
        for _ in range(config.layers if row.axes[0] == "layers" else 1)
    )
    assert names == expected


@pytest.mark.long
def test_logits_are_those_of_the_pure_functions(config: ModelConfig) -> None:
    params, tokens = some_params(config), some_tokens(12)
    outputs = nnx.jit(lambda transformer, tokens: transformer(tokens))(Transformer(config, params), tokens)
    expected = jax.jit(partial(model.logits, config=config))(params, tokens)
    assert outputs.dtype == jnp.float32 and outputs.shape == expected.shape
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=0.05 if config.compute_dtype == "bfloat16" else 1e-6)


@pytest.mark.long
@pytest.mark.parametrize("variant", ["scanned and chunked", "gpt2 with dropout", "completep"])
def test_losses_and_gradients_are_those_of_the_pure_functions(variant: str) -> None:
    """Dropout included: the same key drops the same numbers."""
    config = tiny(**VARIANTS[variant])
    params, tokens = some_params(config), some_tokens()
    key = jax.random.key(0) if config.residual_dropout else None

    def loss(transformer: Transformer) -> jax.Array:
        return transformer.token_losses(tokens, key)[0].mean()

    def pure(params: Params) -> jax.Array:
        return model.token_losses(params, tokens, config, key)[0].mean()

    transformer = Transformer(config, params)
    mean_loss, grads = nnx.jit(nnx.value_and_grad(loss))(transformer)
    expected, expected_grads = jax.jit(jax.value_and_grad(pure))(params)
    np.testing.assert_allclose(mean_loss, expected, rtol=1e-6)
    nnx.update(transformer, grads)
    for name, value in transformer.params().items():
        tolerance = 1e-5 * np.abs(expected_grads[name]).max()
        np.testing.assert_allclose(value, expected_grads[name], rtol=1e-4, atol=tolerance, err_msg=name)


@pytest.mark.long
def test_dropout_is_off_without_a_key() -> None:
    config, tokens = tiny(layers=1, residual_dropout=0.5, attention_dropout=0.5), some_tokens(12)
    call = nnx.jit(lambda transformer, tokens, key: transformer(tokens, key))
    dropped = Transformer(config, some_params(config))
    expected = jax.jit(partial(model.logits, config=config))(some_params(config), tokens)
    np.testing.assert_allclose(call(dropped, tokens, None), expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(call(dropped, tokens, jax.random.key(0)), call(dropped, tokens, None), atol=0.1)


def test_a_part_of_ones_own_takes_the_place_of_the_packages() -> None:
    class Nothing(nnx.Module):
        def __call__(self, x_BTD: jax.Array) -> jax.Array:
            return jnp.zeros_like(x_BTD)

    config, tokens = tiny(), some_tokens(12)
    params = some_params(config)
    transformer = Transformer(config, params)
    for block in transformer.blocks:
        block.mlp = Nothing()
    without = {**params, "mlp_out": jnp.zeros_like(params["mlp_out"])}
    outputs = nnx.jit(lambda transformer, tokens: transformer(tokens))(transformer, tokens)
    expected = jax.jit(partial(model.logits, config=config))(without, tokens)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    params = some_params(tiny())
    with pytest.raises(UserError, match=r"parameter 'embedding' has shape \(32, 16\), .* has \(32, 8\)"):
        Transformer(tiny(width=8), params)
    with pytest.raises(UserError, match="the parameters lack 'head'"):
        Transformer(tiny(tied_embeddings=False), params)
    with pytest.raises(UserError, match="has no parameter 'heads'; did you mean 'head'"):
        Transformer(tiny(tied_embeddings=False), {**params, "heads": params["embedding"]})
    with pytest.raises(UserError, match="13 tokens do not fit the context of 12; cut them to that many"):
        Transformer(tiny(), params)(jnp.zeros((1, 13), jnp.int32))


@pytest.mark.long
def test_the_core_does_not_load_it() -> None:
    code = "import sys, lmscale.lm.train.loop; print([name for name in sys.modules if name == 'lmscale.lm.model.nnx'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
