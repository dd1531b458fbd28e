"""Reading on: a model keeps the keys and values of what it has read, and reads what follows without the start again.

Letters as in `model`; S positions of the memory, at least those that are read in all.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmscale.core.config import ModelConfig
from lmscale.lm.devices.sharding import constrain
from lmscale.lm.model import transformer
from lmscale.lm.model.attention import alibi_slopes
from lmscale.lm.model.attention.plain import attend_at
from lmscale.lm.model.parameters import (
    Params,
    attention_scale,
    embedding_multiplier,
    parameter_table,
    residual_multiplier,
)


class Memory(NamedTuple):
    """What has been read, row by row."""

    k_LBSGK: jax.Array
    v_LBSGK: jax.Array
    segments_BS: jax.Array
    """Which document a position belongs to."""
    read_B: jax.Array
    """Tokens read; what stands in the memory behind them is never looked at."""
    ended_B: jax.Array
    """Documents that ended in them."""


def nothing_read(config: ModelConfig, rows: int, positions: int) -> Memory:
    """The memory before the first token, with room for `positions` tokens."""
    shape = config.layers, rows, positions, config.num_kv_heads, config.head_width
    empty, zero = jnp.zeros(shape, config.compute_dtype), jnp.zeros(rows, jnp.int32)
    return Memory(empty, empty, jnp.zeros((rows, positions), jnp.int32), zero, zero)


def read(
    params: Params,
    memory: Memory,
    tokens_BT: jax.Array,
    counts_B: jax.Array,
    config: ModelConfig,
    after_B: jax.Array | None = None,
) -> tuple[jax.Array, Memory]:
    """Logits [B, T, V] after each of the next tokens [B, T], and the memory with the first `counts_B` of them.

    Row b goes on after row `after_B[b]` of the memory, any number of rows after one; unset, after row b. A row's
    further tokens fill it up to T: their logits mean nothing. The memory must have room for T more.
    """

    def taken(rows: jax.Array) -> jax.Array:
        return rows if after_B is None else rows[after_B]

    segments_BS, read_B, ended_B = taken(memory.segments_BS), taken(memory.read_B), taken(memory.ended_B)
    dtype = jnp.dtype(config.compute_dtype)
    params = {name: value.astype(dtype) for name, value in params.items()}
    place_BT = read_B[:, None] + jnp.arange(tokens_BT.shape[1])[None]
    x_BTD = constrain(params["embedding"], "vocab", None)[tokens_BT]
    if config.positions == "learned":
        x_BTD = x_BTD + params["positions"][jnp.minimum(place_BT, config.context - 1)]
    x_BTD = x_BTD * embedding_multiplier(config)
    ends_BT = (tokens_BT == (-1 if config.document_end is None else config.document_end)).astype(jnp.int32)
    segments_BT = ended_B[:, None] + jnp.cumsum(ends_BT, axis=1) - ends_BT
    segments_BS = _written(segments_BS, segments_BT, read_B)
    attend = partial(
        attend_at,
        place_BT,
        scale=attention_scale(config),
        slopes=alibi_slopes(config.heads) if config.positions == "alibi" else None,
        segments=(segments_BT, segments_BS),
    )
    turn = transformer.rotation(place_BT, config) if config.positions == "rotary" else None
    scale = residual_multiplier(config)

    def layer(
        x_BTD: jax.Array, own: tuple[Params, jax.Array, jax.Array]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        part, *past = own
        q_BTHK, *new = transformer.queries_keys_values(
            part, transformer.norm(x_BTD, "attention_norm", part, config), turn, config
        )
        k_BSGK, v_BSGK = (
            constrain(_written(taken(old), fresh, read_B), "batch", None, "heads", None)
            for old, fresh in zip(past, new)
        )
        added = transformer.product(
            attend(q_BTHK, k_BSGK, v_BSGK), part["attention_out"], part.get("attention_out_bias")
        )
        x_BTD = constrain(x_BTD + scale * added, "batch", None, None)
        added = transformer.mlp(part, transformer.norm(x_BTD, "mlp_norm", part, config), config)
        return constrain(x_BTD + scale * added, "batch", None, None), (k_BSGK, v_BSGK)

    stacked = {name: params[name] for name, row in parameter_table(config).items() if row.axes[0] == "layers"}
    x_BTD, (k_LBSGK, v_LBSGK) = jax.lax.scan(layer, x_BTD, (stacked, memory.k_LBSGK, memory.v_LBSGK))
    read_BT = jnp.arange(tokens_BT.shape[1])[None] < counts_B[:, None]
    now = Memory(
        k_LBSGK,
        v_LBSGK,
        segments_BS,
        read_B + counts_B,
        ended_B + jnp.where(read_BT, ends_BT, 0).sum(axis=1),
    )
    return transformer.logits_of(transformer.norm(x_BTD, "final_norm", params, config), params, config), now


def _written(old_BS: jax.Array, new_BT: jax.Array, at_B: jax.Array) -> jax.Array:
    """[B, S, ...] with [B, T, ...] from position `at_B` of each row on."""

    def row(old_S: jax.Array, new_T: jax.Array, at: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(old_S, new_T.astype(old_S.dtype), at, axis=0)

    return jax.vmap(row)(old_BS, new_BT, at_B)


def score(
    params: Params,
    memory: Memory,
    tokens_BT: jax.Array,
    targets_BT: jax.Array,
    config: ModelConfig,
    after_B: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """ln p of each row's targets, summed, and whether every one is the likeliest token; both [B].

    `targets_BT` stands one token further than `tokens_BT`; a target below 0 is not scored. `after_B` as in `read`.
    """
    logits_BTV, _ = read(params, memory, tokens_BT, jnp.zeros(tokens_BT.shape[0], jnp.int32), config, after_B)
    chosen_BT1 = jnp.maximum(targets_BT, 0)[:, :, None]
    nats_BT = jnp.take_along_axis(jax.nn.log_softmax(logits_BTV, axis=-1), chosen_BT1, axis=-1)[:, :, 0]
    scored_BT = targets_BT >= 0
    likeliest_BT = jnp.argmax(logits_BTV, axis=-1) == targets_BT
    return jnp.where(scored_BT, nats_BT, 0).sum(axis=1), (likeliest_BT | ~scored_BT).all(axis=1)


def write_on(
    params: Params, memory: Memory, last_B: jax.Array, tokens: int, config: ModelConfig
) -> tuple[jax.Array, jax.Array, Memory]:
    """The `tokens` likeliest next tokens [B, tokens], one after the other, after `last_B`; the last; the memory."""

    def step(state: tuple[jax.Array, Memory], _: None) -> tuple[tuple[jax.Array, Memory], jax.Array]:
        last_B, memory = state
        logits_BTV, memory = read(params, memory, last_B[:, None], jnp.ones_like(last_B), config)
        next_B = jnp.argmax(logits_BTV[:, -1], axis=-1).astype(last_B.dtype)
        return (next_B, memory), next_B

    (last_B, memory), written_TB = jax.lax.scan(step, (last_B, memory), None, length=tokens)
    return written_TB.T, last_B, memory
