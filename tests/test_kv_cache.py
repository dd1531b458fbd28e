"""What is read piece by piece is what is read at once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.config import ModelConfig, RouterConfig
from lmscale.lm.model import kv_cache, transformer
from lmscale.lm.model.parameters import init

pytestmark = pytest.mark.long

OPTIONS: list[dict[str, Any]] = [
    {},
    {"positions": "learned", "kv_heads": 2, "norm": "layernorm", "biases": True, "mlp": "gelu"},
    {
        "positions": "alibi", "kv_heads": 1, "document_end": 3, "qk_norm": True, "logit_softcap": 5.0,
        "tied_embeddings": False,
    },
    {"parallel_block": True, "rope_fraction": 0.5, "head_features": 12, "mlp": "geglu", "qkv_biases": True},
    {"experts": 4, "experts_per_token": 2, "shared_experts": 1, "router": RouterConfig(capacity=0.7)},
]  # fmt: skip
ROWS, TIME, ROOM = 3, 12, 16


LOGITS = jax.jit(transformer.logits, static_argnames="config")
LOSSES = jax.jit(transformer.token_losses, static_argnames="config")
EXTEND = jax.jit(kv_cache.extend, static_argnames="config")
SCORE = jax.jit(kv_cache.score, static_argnames="config")


def given(option: dict[str, Any]) -> tuple[ModelConfig, Any, np.ndarray]:
    config = ModelConfig(width=16, layers=2, heads=4, vocab=16, context=TIME, mlp_width=24, **option)
    params = jax.jit(lambda key: init(config, key))(jax.random.key(0))
    params = {
        name: value + 0.05 * jnp.cos(jnp.arange(value.size)).reshape(value.shape) for name, value in params.items()
    }
    return config, params, np.random.default_rng(0).integers(0, 16, (ROWS, TIME), np.int32)


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_pieces_of_any_length_give_the_logits_of_the_whole(option: dict[str, Any]) -> None:
    config, params, tokens = given(option)
    whole = np.asarray(LOGITS(params, jnp.asarray(tokens), config))
    extend = jax.jit(lambda *arguments: kv_cache.extend(params, *arguments, config))
    cache = kv_cache.init_cache(config, ROWS, ROOM)
    done = np.zeros(ROWS, int)
    for counts in ([4, 1, 3], [1, 4, 4], [4, 4, 2], [3, 3, 3]):
        piece = np.zeros((ROWS, 4), np.int32)  # what fills a row up must not be seen
        for row, count in enumerate(counts):
            piece[row, :count] = tokens[row, done[row] : done[row] + count]
        logits, cache = extend(cache, jnp.asarray(piece), jnp.asarray(counts))
        for row, count in enumerate(counts):
            expected = whole[row, done[row] : done[row] + count]
            np.testing.assert_allclose(logits[row, :count], expected, rtol=2e-5, atol=2e-5)
        done += counts
    assert cache.lengths_B.tolist() == done.tolist() == [12, 12, 12]


def test_a_memory_is_shared_and_scores_what_follows() -> None:
    config, params, tokens = given(OPTIONS[2])
    nats = np.asarray(LOSSES(params, jnp.asarray(tokens), config)[0])
    logits = np.asarray(LOGITS(params, jnp.asarray(tokens), config))
    start = tokens[:1, :5]
    _, cache = EXTEND(params, kv_cache.init_cache(config, 1, ROOM), jnp.asarray(start), jnp.array([5]), config)
    rows = np.concatenate([np.repeat(start, ROWS, axis=0), tokens[:, 5:]], axis=1)
    expected = np.asarray(LOSSES(params, jnp.asarray(rows), config)[0])
    targets = np.where(np.arange(5, 11)[None] < 8, -1, rows[:, 6:])  # the tokens from 9 on
    logp, greedy = SCORE(params, cache, jnp.asarray(rows[:, 5:11]), jnp.asarray(targets), config, jnp.zeros(ROWS, int))
    np.testing.assert_allclose(logp, -expected[:, 8:].sum(axis=1), rtol=1e-5)
    assert not greedy.all() and nats.shape == expected.shape and logits.shape[-1] == 16


def test_what_is_written_on_is_the_likeliest_and_scores_as_such() -> None:
    config, params, tokens = given(OPTIONS[0])
    begun = jnp.asarray(tokens[:, :4])
    _, cache = EXTEND(params, kv_cache.init_cache(config, ROWS, ROOM), begun[:, :3], jnp.array([3] * 3), config)
    written, last, _ = kv_cache.generate(params, cache, begun[:, 3], 6, config)
    assert written.shape == (ROWS, 6) and (last == written[:, -1]).all()
    whole = np.concatenate([np.asarray(begun), np.asarray(written)], axis=1)
    likeliest = np.asarray(LOGITS(params, jnp.asarray(whole), config)).argmax(axis=-1)
    assert (likeliest[:, 3:-1] == written).all()
    inputs = jnp.asarray(whole[:, 3:-1])
    _, greedy = SCORE(params, cache, inputs, written, config)
    assert greedy.all()
    _, greedy = SCORE(params, cache, inputs, (written + jnp.eye(6, dtype=int)[-1][None]) % 16, config)
    assert not greedy.any()
