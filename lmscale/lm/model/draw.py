"""Answers drawn at temperature 1, with a cache of keys and values, all of them in one compiled program.

Letters: B rows, P positions of the padded prompts, R tokens of an answer, V vocabulary.
"""

from functools import partial

import jax
import jax.numpy as jnp

from lmscale.core.config import ModelConfig
from lmscale.lm.model import kv_cache
from lmscale.lm.model.kv_cache import KVCache
from lmscale.lm.model.parameters import Params


@partial(jax.jit, static_argnames=("config", "answer_tokens", "end_of_document"))
def draw(
    params: Params,
    prompts_BP: jax.Array,
    lengths_B: jax.Array,
    numbers_B: jax.Array,
    key: jax.Array,
    *,
    config: ModelConfig,
    answer_tokens: int,
    end_of_document: int,
) -> jax.Array:
    """Answers [B, R] up to and with their end of document, then -1. Token r of a row is drawn with a key that
    follows from (key, the row's number, r), so an answer does not depend on the rows beside it.

    `prompts_BP` are padded at the right to any token; each has `lengths_B` >= 1 tokens.
    """
    rows = prompts_BP.shape[0]
    cast = kv_cache.cast_params(params, config)
    cache = kv_cache.init_cache(config, rows, prompts_BP.shape[1] + answer_tokens)
    _, cache = kv_cache.extend_cast(cast, cache, prompts_BP, lengths_B - 1, config)
    last_B = jnp.take_along_axis(prompts_BP, lengths_B[:, None] - 1, axis=1)[:, 0]
    keys_B = jax.vmap(partial(jax.random.fold_in, key))(numbers_B)

    def step(
        state: tuple[jax.Array, jax.Array, KVCache], number: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array, KVCache], jax.Array]:
        last_B, over_B, cache = state
        logits_B1V, cache = kv_cache.extend_cast(cast, cache, last_B[:, None], jnp.ones_like(last_B), config)
        token_keys_B = jax.vmap(lambda row_key: jax.random.fold_in(row_key, number))(keys_B)
        logits_BV = logits_B1V[:, -1].astype(jnp.float32)
        next_B = jax.vmap(jax.random.categorical)(token_keys_B, logits_BV).astype(last_B.dtype)
        return (next_B, over_B | (next_B == end_of_document), cache), jnp.where(over_B, -1, next_B)

    start = last_B, jnp.zeros(rows, bool), cache
    _, answers_RB = jax.lax.scan(step, start, jnp.arange(answer_tokens))
    return answers_RB.T
