"""The table of parameters, and the values that a model starts from."""

import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.config import ModelConfig
from lmscale.core.counting import (
    params_bias,
    params_embedding,
    params_head,
    params_norm,
    params_positions,
    params_total,
)
from lmscale.lm.model import parameters, transformer
from lmscale.lm.model.parameters import Params, init, parameter_table

KINDS: dict[str, dict[str, object]] = {
    "plain": {},
    "untied": {"tied_embeddings": False, "mlp": "gelu"},
    "gpt2": {"norm": "layernorm", "positions": "learned", "mlp": "gelu", "biases": True, "init": "gpt2"},
    "grouped": {"kv_heads": 2, "heads": 4, "qk_norm": True, "mlp": "relu2"},
    "everything": {
        "kv_heads": 1, "heads": 4, "qk_norm": True, "biases": True, "norm": "layernorm", "tied_embeddings": False,
        "positions": "learned", "parametrization": "completep", "base_width": 8, "base_layers": 1,
    },
}  # fmt: skip


def tiny(**changed: object) -> ModelConfig:
    return ModelConfig(**{"width": 16, "layers": 2, "heads": 2, "vocab": 32, "context": 12, **changed})


@cache
def started(config: ModelConfig, seed: int = 0) -> Params:
    return jax.jit(partial(init, config))(jax.random.key(seed))


@pytest.mark.parametrize("changed", KINDS.values(), ids=KINDS.keys())
def test_the_table_is_what_is_built_and_counted(changed: dict[str, object]) -> None:
    config = tiny(**changed)
    table, params = parameter_table(config), jax.eval_shape(partial(init, config), jax.random.key(0))
    assert {name: row.shape for name, row in table.items()} == {name: value.shape for name, value in params.items()}
    sizes = {name: math.prod(row.shape) for name, row in table.items()}
    norms = sum(size for name, size in sizes.items() if "norm" in name)
    biases = sum(size for name, size in sizes.items() if name.endswith("_bias") and "norm" not in name)
    assert sum(sizes.values()) == params_total(config)
    assert (norms, biases) == (params_norm(config), params_bias(config))
    assert sizes["embedding"] == params_embedding(config)
    assert sizes.get("positions", 0) == params_positions(config)
    assert sizes.get("head", 0) == params_head(config)


@pytest.mark.parametrize("changed", KINDS.values(), ids=KINDS.keys())
def test_every_row_says_which_axes_are_summed_over(changed: dict[str, object]) -> None:
    """Inputs times outputs times the number of separate matrices is the size, and only vectors have neither."""
    for name, row in parameter_table(tiny(**changed)).items():
        assert len(row.axes) == len(row.shape), name
        named = row.inputs + row.outputs
        assert len(set(named)) == len(named)
        assert bool(row.inputs) == bool(row.outputs) == (row.role != "vector"), name
        assert (row.decay_multiplier == 0) == (row.role == "vector"), name
        assert (row.role == "vector") == ("norm" in name or name.endswith("_bias")), name


def test_initial_values_have_the_tables_scale_and_follow_the_seed() -> None:
    config = tiny(width=64, vocab=256, tied_embeddings=False, biases=True)
    params, again, other = started(config), jax.jit(partial(init, config))(jax.random.key(0)), started(config, 1)
    for name, row in parameter_table(config).items():
        value = np.asarray(params[name])
        assert np.array_equal(value, again[name])
        if not row.std:
            assert np.all(value == row.mean)
            continue
        np.testing.assert_allclose([value.mean() / row.std, value.std() / row.std], [0, 1], atol=0.05)
        assert not np.array_equal(value, other[name])
        assert row.axes[0] != "layers" or not np.array_equal(value[0], value[1])


@pytest.mark.long
@pytest.mark.parametrize("one_draw", [parameters.ONE_DRAW, 0], ids=["one draw", "one for each"])
def test_parameters_of_one_size_do_not_start_alike(one_draw: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "ONE_DRAW", one_draw)
    params = jax.jit(partial(init, tiny(layers=1, tied_embeddings=False)))(jax.random.key(0))
    assert params["embedding"].size == params["head"].size
    assert not np.array_equal(params["embedding"].ravel(), params["head"].ravel())
    assert float(params["embedding"].std()) == pytest.approx(1 / 4, rel=0.1)


def test_initial_schemes() -> None:
    """Fan-in 1 / sqrt(inputs), GPT-2 .02, both over sqrt(2 L) into the stream (Radford 2019); zero into the stream."""
    fan_in, gpt2, zero = (parameter_table(tiny(init=scheme, mlp_width=40)) for scheme in ("fan-in", "gpt2", "zero-out"))
    assert [table["attention_qkv"].std for table in (fan_in, gpt2, zero)] == [1 / 4, 0.02, 1 / 4]
    assert [table["mlp_out"].std for table in (fan_in, gpt2, zero)] == [40**-0.5 / 2, 0.01, 0]
    assert [table["attention_out"].std for table in (fan_in, gpt2, zero)] == [1 / 8, 0.01, 0]
    assert [table["embedding"].std for table in (fan_in, gpt2, zero)] == [1 / 4, 0.02, 1 / 4]


def first_loss(config: ModelConfig) -> float:
    """Mean over four sets of initial parameters, on random tokens."""
    tokens = np.random.default_rng(1).integers(0, config.vocab, (8, config.context + 1), np.int32)
    losses = jax.jit(lambda params: transformer.token_losses(params, tokens, config)[0].mean())
    return float(np.mean([losses(started(config, seed)) for seed in range(4)]))


@pytest.mark.long
@pytest.mark.parametrize(("width", "mlp"), [(16, "swiglu"), (96, "gelu")])
def test_loss_at_initialisation(width: int, mlp: str) -> None:
    """Logits of unit variance that know nothing cost ln V and half their variance: E ln sum exp = ln V + 1/2."""
    config = tiny(width=width, vocab=256, context=64, tied_embeddings=False, mlp=mlp)
    assert first_loss(config) == pytest.approx(math.log(256) + 0.5, abs=0.15)


def test_with_tied_embeddings_only_the_token_just_read_starts_above_the_others() -> None:
    """The stream still carries its vector, so its logit is near sqrt(D); without it the loss would be ln V + 1/2."""
    config = tiny(width=96, vocab=256, context=64)
    tokens = np.random.default_rng(1).integers(0, 256, (3, 64), np.int32)
    logits = np.asarray(jax.jit(partial(transformer.logits, config=config))(started(config), tokens), np.float64)
    own = np.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    assert 0.7 * math.sqrt(96) < own.mean() < math.sqrt(96)
    others = (np.exp(logits).sum(axis=-1) - np.exp(own)) / 255
    assert np.log(others).mean() == pytest.approx(0.5, abs=0.15)


def test_parameters_of_their_own_type() -> None:
    params = jax.eval_shape(partial(init, tiny(param_dtype="bfloat16", biases=True)), jax.random.key(0))
    assert {value.dtype for value in params.values()} == {jnp.dtype("bfloat16")}
