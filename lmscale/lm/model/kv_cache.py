"""The KV cache: keys and values of the tokens read so far, so that the next ones are read without those again.

Letters as in `transformer`; S positions of the cache, at least as many as tokens are read in all.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lmscale.core.config import ModelConfig
from lmscale.lm.devices.sharding import constrain
from lmscale.lm.model.attention import alibi_slopes
from lmscale.lm.model.attention.plain import attend_at
from lmscale.lm.model.experts import Occupancy, load
from lmscale.lm.model.layers import norm, rope_cos_sin
from lmscale.lm.model.parameters import (
    Params,
    attention_scale,
    cast,
    embedding_multiplier,
    parameter_table,
)
from lmscale.lm.model.transformer import Reports, block, head, layer_functions, scanned, unembed, unstack


class KVCache(NamedTuple):
    """Keys and values of the tokens read so far, row by row."""

    keys: tuple[jax.Array, ...]
    """One array [B, G, S, K] per layer; where layers are a loop of one compiled layer, a single one [L, B, G, S, K]."""
    values: tuple[jax.Array, ...]
    """Arrays of the shapes of `keys`."""
    segments_BS: jax.Array
    """Which document of its row a position belongs to."""
    lengths_B: jax.Array
    """Tokens read; positions behind them are never attended to."""
    documents_B: jax.Array
    """Documents that have ended."""
    occupied: tuple[jax.Array, ...] = ()
    """Tokens of a row that chose an expert, int32 [B, E] per layer or [L, B, E]; empty unless experts have a
    capacity."""


class CastParams(NamedTuple):
    """Parameters in the compute dtype, those of the layers apart."""

    outer: Params
    layers: tuple[Params, ...]
    """One mapping per layer; where layers are a loop of one compiled layer, a single one with a leading axis L."""


def cast_params(params: Params, config: ModelConfig) -> CastParams:
    """The parameters as `extend_cast` takes them. Whoever calls it many times casts and cuts them once."""
    params = cast(params, config)
    in_layers = {name for name, row in parameter_table(config).items() if row.axes[0] == "layers"}
    stacked = {name: params[name] for name in in_layers}
    outer = {name: value for name, value in params.items() if name not in in_layers}
    return CastParams(outer, (stacked,) if scanned(config) else tuple(unstack(stacked, config.layers)))


def init_cache(config: ModelConfig, rows: int, positions: int) -> KVCache:
    """The empty cache, with room for `positions` tokens in each row."""
    shape: tuple[int, ...] = rows, config.num_kv_heads, positions, config.head_width
    arrays = 1 if scanned(config) else config.layers
    empty = jnp.zeros((config.layers, *shape) if scanned(config) else shape, config.compute_dtype)
    zero = jnp.zeros(rows, jnp.int32)
    segments_BS = jnp.zeros((rows, positions), jnp.int32)
    return KVCache((empty,) * arrays, (empty,) * arrays, segments_BS, zero, zero, _unoccupied(config, rows))


def _unoccupied(config: ModelConfig, rows: int) -> tuple[jax.Array, ...]:
    if config.expert_capacity is None:
        return ()
    empty_LBE = jnp.zeros((config.layers, rows, config.experts), jnp.int32)
    return (empty_LBE,) if scanned(config) else tuple(empty_LBE)


def extend(
    params: Params,
    cache: KVCache,
    tokens_BT: jax.Array,
    counts_B: jax.Array,
    config: ModelConfig,
    source_B: jax.Array | None = None,
) -> tuple[jax.Array, KVCache]:
    """Logits [B, T, V] after each of the next tokens [B, T], and the cache extended by the first `counts_B` of them.

    Row b continues row `source_B[b]` of the cache, by default its own; several rows may continue the same one. Tokens
    behind the first `counts_B` of a row are padding: their logits mean nothing. The cache must have room for T more.
    """
    return extend_cast(cast_params(params, config), cache, tokens_BT, counts_B, config, source_B)


def extend_cast(
    params: CastParams,
    cache: KVCache,
    tokens_BT: jax.Array,
    counts_B: jax.Array,
    config: ModelConfig,
    source_B: jax.Array | None = None,
) -> tuple[jax.Array, KVCache]:
    """What `extend` gives, for parameters that are cast and cut already."""

    def source_rows(rows: jax.Array) -> jax.Array:
        return rows if source_B is None else rows[source_B]

    segments_BS, lengths_B, documents_B = map(source_rows, (cache.segments_BS, cache.lengths_B, cache.documents_B))
    positions_BT = lengths_B[:, None] + jnp.arange(tokens_BT.shape[1])[None]
    residual_BTD = constrain(params.outer["embedding"], "vocab", None)[tokens_BT]
    if config.positions == "learned":
        residual_BTD = residual_BTD + params.outer["positions"][jnp.minimum(positions_BT, config.context - 1)]
    residual_BTD = residual_BTD * embedding_multiplier(config)
    ends_BT = (tokens_BT == (-1 if config.document_end is None else config.document_end)).astype(jnp.int32)
    segments_BT = documents_B[:, None] + jnp.cumsum(ends_BT, axis=1) - ends_BT
    segments_BS = _write_at(segments_BS, segments_BT, lengths_B, axis=0)
    slopes = alibi_slopes(config.heads) if config.positions == "alibi" else None
    rope = rope_cos_sin(positions_BT, config) if config.positions == "rotary" else None
    segments = None if config.document_end is None else (segments_BT, segments_BS)

    counted_BT = jnp.arange(tokens_BT.shape[1])[None] < counts_B[:, None]

    def layer(residual_BTD: jax.Array, arrays: tuple[Any, ...]) -> tuple[jax.Array, Reports]:
        layer_params, *past, occupied_BE = arrays
        occupied_BE = None if occupied_BE is None else source_rows(occupied_BE)

        def attend(
            q_BTHK: jax.Array, k_BTGK: jax.Array, v_BTGK: jax.Array, key: jax.Array | None
        ) -> tuple[jax.Array, Reports]:
            k_BGSK, v_BGSK = (
                constrain(
                    _write_at(source_rows(old), new.swapaxes(1, 2), lengths_B, axis=1), "batch", "heads", None, None
                )
                for old, new in zip(past, (k_BTGK, v_BTGK))
            )
            k_BSGK, v_BSGK = k_BGSK.swapaxes(1, 2), v_BGSK.swapaxes(1, 2)
            heads_BTHK = attend_at(positions_BT, q_BTHK, k_BSGK, v_BSGK, attention_scale(config), slopes, segments)
            return heads_BTHK, {"keys": k_BGSK, "values": v_BGSK}

        occupancy = Occupancy(occupied_BE=occupied_BE)
        functions = layer_functions(layer_params, rope, attend, config, occupancy=occupancy)
        residual_BTD, reports = block(residual_BTD, functions, config, axes=("batch", None, None))
        extended = {name: reports[name] for name in ("keys", "values")}
        if occupied_BE is not None:
            extended["occupied"] = occupied_BE + load(reports["experts_BTJ"], counted_BT, config)
        return residual_BTD, extended

    if scanned(config):
        stacked = params.layers[0], cache.keys[0], cache.values[0], cache.occupied[0] if cache.occupied else None
        residual_BTD, reports = jax.lax.scan(layer, residual_BTD, stacked)
        by_layer = [reports]
    else:
        by_layer = []
        for arrays in zip(params.layers, cache.keys, cache.values, cache.occupied or (None,) * config.layers):
            residual_BTD, reports = layer(residual_BTD, arrays)
            by_layer.append(reports)
    keys, values = (tuple(reports[name] for reports in by_layer) for name in ("keys", "values"))
    occupied = tuple(reports["occupied"] for reports in by_layer) if cache.occupied else ()
    ended_B = documents_B + jnp.where(counted_BT, ends_BT, 0).sum(axis=1)
    extended = KVCache(keys, values, segments_BS, lengths_B + counts_B, ended_B, occupied)
    final_BTD = norm(residual_BTD, "final_norm", params.outer, config)
    return unembed(final_BTD, head(params.outer, config), config), extended


def _write_at(old_BS: jax.Array, new_BT: jax.Array, at_B: jax.Array, axis: int) -> jax.Array:
    """Each row of [B, ...] overwritten by that of `new_BT` from position `at_B` on, along `axis` of a row."""

    def row(old_S: jax.Array, new_T: jax.Array, at: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(old_S, new_T.astype(old_S.dtype), at, axis=axis)

    return jax.vmap(row)(old_BS, new_BT, at_B)


def score(
    params: Params,
    cache: KVCache,
    tokens_BT: jax.Array,
    targets_BT: jax.Array,
    config: ModelConfig,
    source_B: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Summed ln p of each row's targets, and whether every target is the likeliest token; both [B].

    `targets_BT` are `tokens_BT` shifted by one; a target below 0 is not scored. `source_B` as in `extend`.
    """
    logits_BTV, _ = extend(params, cache, tokens_BT, jnp.zeros(tokens_BT.shape[0], jnp.int32), config, source_B)
    index_BT1 = jnp.maximum(targets_BT, 0)[:, :, None]
    logprobs_BT = jnp.take_along_axis(jax.nn.log_softmax(logits_BTV, axis=-1), index_BT1, axis=-1)[:, :, 0]
    scored_BT = targets_BT >= 0
    likeliest_BT = jnp.argmax(logits_BTV, axis=-1) == targets_BT
    return jnp.where(scored_BT, logprobs_BT, 0).sum(axis=1), (likeliest_BT | ~scored_BT).all(axis=1)


def generate(
    params: Params, cache: KVCache, last_B: jax.Array, tokens: int, config: ModelConfig
) -> tuple[jax.Array, jax.Array, KVCache]:
    """Greedy continuation [B, tokens] after the token `last_B` of each row; its last token; the extended cache.

    `last_B` is not yet in the cache, and neither is the last token of the continuation.
    """

    def step(state: tuple[jax.Array, KVCache], _: None) -> tuple[tuple[jax.Array, KVCache], jax.Array]:
        last_B, cache = state
        logits_BTV, cache = extend(params, cache, last_B[:, None], jnp.ones_like(last_B), config)
        next_B = jnp.argmax(logits_BTV[:, -1], axis=-1).astype(last_B.dtype)
        return (next_B, cache), next_B

    (last_B, cache), generated_TB = jax.lax.scan(step, (last_B, cache), None, length=tokens)
    return generated_TB.T, last_B, cache
