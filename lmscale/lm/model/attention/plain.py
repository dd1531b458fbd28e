"""Attention by its formula, compiled by XLA: it supports every option, device and sharding."""

import jax
import jax.numpy as jnp

from lmscale.lm.devices.sharding import constrain, mesh_axis_size
from lmscale.lm.model.tap import NO_TAP, BoundTap

MASKED = -1e30
"""Stands for minus infinity in a masked score: finite, so that no difference of scores is NaN."""


def attend(
    q_BTHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGK: jax.Array,
    scale: float,
    slopes: tuple[float, ...] | None = None,
    segments_BT: jax.Array | None = None,
    dropout: float = 0.0,
    key: jax.Array | None = None,
    tap: BoundTap = NO_TAP,
) -> jax.Array:
    """`causal_attention`, with scores and softmax in at least float32; takes memory for [B, H, T, S] of them.

    On a mesh that divides time, queries stay divided and keys and values are gathered.
    """
    return attend_at(
        jnp.arange(q_BTHK.shape[1])[None],
        q_BTHK,
        k_BSGK,
        v_BSGK,
        scale,
        slopes,
        None if segments_BT is None else (segments_BT, segments_BT),
        dropout,
        key,
        tap,
    )


def attend_at(
    positions_BT: jax.Array,
    q_BTHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGK: jax.Array,
    scale: float,
    slopes: tuple[float, ...] | None = None,
    segments: tuple[jax.Array, jax.Array] | None = None,
    dropout: float = 0.0,
    key: jax.Array | None = None,
    tap: BoundTap = NO_TAP,
) -> jax.Array:
    """`attend` of queries at `positions_BT` [1 or B, T] among the keys; segments are those of queries and of keys."""
    batch, time, heads, features = q_BTHK.shape
    kv_heads = k_BSGK.shape[2]
    exact = jnp.promote_types(q_BTHK.dtype, jnp.float32)
    if mesh_axis_size("sequence") > 1:
        q_BTHK = constrain(q_BTHK, "batch", "time", "heads", None)
        k_BSGK, v_BSGK = (constrain(x, "batch", None, "heads", None) for x in (k_BSGK, v_BSGK))
    q_BTGRK = q_BTHK.reshape(batch, time, kv_heads, heads // kv_heads, features)
    scores_BGRTS = scale * jnp.einsum("btgrk,bsgk->bgrts", q_BTGRK, k_BSGK, preferred_element_type=exact)
    distance_BTS = positions_BT[:, :, None] - jnp.arange(k_BSGK.shape[1])[None, None, :]
    if slopes is not None:
        slope_GR11 = jnp.asarray(slopes, exact).reshape(kv_heads, -1, 1, 1)
        scores_BGRTS -= slope_GR11[None] * distance_BTS[:, None, None]
    visible_BTS = distance_BTS >= 0
    if segments is not None:
        visible_BTS &= segments[0][:, :, None] == segments[1][:, None, :]
    masked_BGRTS = jnp.where(visible_BTS[:, None, None], scores_BGRTS, MASKED)
    masked_BGRTS = _tapped(tap, "attention_scores", masked_BGRTS)
    weights_BGRTS = _tapped(tap, "attention_weights", jax.nn.softmax(masked_BGRTS, axis=-1).astype(v_BSGK.dtype))
    if key is not None and dropout > 0:
        keep_BGRTS = jax.random.bernoulli(key, 1 - dropout, weights_BGRTS.shape)
        weights_BGRTS = jnp.where(keep_BGRTS, weights_BGRTS / (1 - dropout), 0)
    output_BTGRK = jnp.einsum("bgrts,bsgk->btgrk", weights_BGRTS, v_BSGK)
    return output_BTGRK.reshape(q_BTHK.shape)


def _tapped(tap: BoundTap, name: str, x_BGRTS: jax.Array) -> jax.Array:
    """A tap sees [B, H, T, S]."""
    if not tap.taps(name):
        return x_BGRTS
    batch, kv_heads, sharing, *rest = x_BGRTS.shape
    return tap(name, x_BGRTS.reshape(batch, kv_heads * sharing, *rest)).reshape(x_BGRTS.shape)
