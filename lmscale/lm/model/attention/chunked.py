"""Attention on a CPU: chunks of queries against their own prefix of keys, with a hand-written gradient.

Letters as in `attention`; C is the rows of one chunk: its queries for each of the R heads that share a key.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.core.counting.chunks import attention_chunks
from lmscale.lm.model.attention.plain import MASKED

# XLA's CPU backend folds a transposition into a matrix product and then leaves its fast kernel. The barrier prevents
# that and costs nothing else.
_barrier = jax.lax.optimization_barrier


def attend(
    q_BTHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGK: jax.Array,
    scale: float,
    slopes: tuple[float, ...] | None = None,
    segments_BT: jax.Array | None = None,
) -> jax.Array:
    """`plain.attend` without dropout. Above the diagonal only one triangle of scores per chunk is computed.

    The softmax weights are kept for the gradient: memory for about half of [B, H, T, S].
    """
    heads_first = [_barrier(x.transpose(0, 2, 1, 3)) for x in (q_BTHK * scale, k_BSGK, v_BSGK)]
    return _barrier(_heads_first(*heads_first, segments_BT, slopes)).transpose(0, 2, 1, 3)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _heads_first(
    q_BHTK: jax.Array,
    k_BGSK: jax.Array,
    v_BGSK: jax.Array,
    segments_BT: jax.Array | None,
    slopes: tuple[float, ...] | None,
) -> jax.Array:
    return _forward(q_BHTK, k_BGSK, v_BGSK, segments_BT, slopes)[0]


def _chunks(time: int) -> list[tuple[int, int]]:
    """First query and end of each chunk."""
    chunk = -(-time // attention_chunks(time))
    return [(start, min(start + chunk, time)) for start in range(0, time, chunk)]


def _rows(x_BHTK: jax.Array, kv_heads: int, start: int, stop: int) -> jax.Array:
    """The queries of a chunk as rows of one matrix per key/value head: [B, G, C, K]."""
    return x_BHTK[:, :, start:stop].reshape(x_BHTK.shape[0], kv_heads, -1, x_BHTK.shape[3])


def _concatenate(chunks: list[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """Chunks [B, G, C, K] as one array of `shape` [B, H, T, K]."""
    return jnp.concatenate([rows.reshape(*shape[:2], -1, shape[3]) for rows in chunks], axis=2)


def _forward(
    q_BHTK: jax.Array,
    k_BGSK: jax.Array,
    v_BGSK: jax.Array,
    segments_BT: jax.Array | None,
    slopes: tuple[float, ...] | None,
) -> tuple[jax.Array, Any]:
    exact = jnp.promote_types(q_BHTK.dtype, jnp.float32)
    kv_heads = k_BGSK.shape[1]
    outputs, weights = [], []
    for start, stop in _chunks(q_BHTK.shape[2]):
        q_BGCK, k, v = _rows(q_BHTK, kv_heads, start, stop), k_BGSK[:, :, :stop], v_BGSK[:, :, :stop]
        scores_BGCS = _barrier(jnp.einsum("bgck,bgsk->bgcs", q_BGCK, k, preferred_element_type=exact))
        scores_BGCS = _masked(scores_BGCS, start, segments_BT, slopes)
        weights_BGCS = _barrier(jax.nn.softmax(scores_BGCS, axis=-1).astype(v.dtype))
        outputs.append(_barrier(jnp.einsum("bgcs,bgsk->bgck", weights_BGCS, v)))
        weights.append(weights_BGCS)
    output_BHTK = _concatenate(outputs, q_BHTK.shape)
    return output_BHTK, (q_BHTK, k_BGSK, v_BGSK, weights, output_BHTK)


def _masked(
    scores_BGCS: jax.Array, start: int, segments_BT: jax.Array | None, slopes: tuple[float, ...] | None
) -> jax.Array:
    """The scores of the chunk from query `start` on: biased, and `MASKED` where a key is not visible."""
    _, kv_heads, rows, stop = scores_BGCS.shape
    queries = stop - start
    sharing = rows // queries
    if slopes is not None:
        # -slope (t - s) less what all keys of a query share, on which the softmax does not depend: an outer product.
        slope_GC = np.repeat(np.reshape(slopes, (kv_heads, sharing)), queries, axis=1)
        away_S = np.arange(stop) - stop + 1
        slope, away = (jnp.asarray(x, scores_BGCS.dtype) for x in (slope_GC, away_S))
        scores_BGCS = scores_BGCS + slope[None, :, :, None] * away[None, None, None, :]
    visible = np.tile(np.arange(start, stop)[:, None] >= np.arange(stop)[None, :], (sharing, 1))[None, None]
    if segments_BT is not None:
        same_BTS = segments_BT[:, start:stop, None] == segments_BT[:, None, :stop]
        visible = visible & jnp.tile(same_BTS, (1, sharing, 1))[:, None]
    return jnp.where(visible, scores_BGCS, MASKED)


def _backward(
    slopes: tuple[float, ...] | None, saved: Any, d_output_BHTK: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    """The gradient of softmax attention (Dao 2022, appendix B.2), chunk by chunk.

    Gradients of keys and values are computed as [features, time], from rows transposed beforehand: XLA's CPU backend
    has a fast kernel for that one of the possible products over a chunk's queries.
    """
    del slopes  # a constant added to a score leaves its gradient alone
    q_BHTK, k_BGSK, v_BGSK, weights, output_BHTK = saved
    kv_heads, time = k_BGSK.shape[1], q_BHTK.shape[2]
    d_output_BHTK = _barrier(d_output_BHTK)
    rowsum_BHT1 = jnp.sum(d_output_BHTK * output_BHTK, axis=-1, keepdims=True)
    d_q, d_k, d_v = [], [], []
    for (start, stop), weights_BGCS in zip(_chunks(time), weights):
        d_out_BGCK, rowsum_BGC1 = _rows(d_output_BHTK, kv_heads, start, stop), _rows(rowsum_BHT1, kv_heads, start, stop)
        d_weights_BGCS = _barrier(jnp.einsum("bgck,bgsk->bgcs", d_out_BGCK, v_BGSK[:, :, :stop]))
        d_scores_BGCS = _barrier(weights_BGCS * (d_weights_BGCS - rowsum_BGC1))
        d_q.append(_barrier(jnp.einsum("bgcs,bgsk->bgck", d_scores_BGCS, k_BGSK[:, :, :stop])))
        q_BGKC = _barrier(_rows(q_BHTK, kv_heads, start, stop).swapaxes(2, 3))
        d_k.append(_barrier(jnp.einsum("bgkc,bgcs->bgks", q_BGKC, d_scores_BGCS)))
        d_v.append(_barrier(jnp.einsum("bgkc,bgcs->bgks", _barrier(d_out_BGCK.swapaxes(2, 3)), weights_BGCS)))
    return _concatenate(d_q, q_BHTK.shape), _sum_of_prefixes(d_k, time), _sum_of_prefixes(d_v, time), None


def _sum_of_prefixes(prefixes: list[jax.Array], time: int) -> jax.Array:
    """Add arrays [B, G, K, S] of growing S, each from key 0 on; returns [B, G, time, K]."""
    padded = [jnp.pad(prefix, ((0, 0), (0, 0), (0, 0), (0, time - prefix.shape[-1]))) for prefix in prefixes]
    return sum(padded[1:], padded[0]).swapaxes(2, 3)


_heads_first.defvjp(_forward, _backward)
