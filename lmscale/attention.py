"""Causal self-attention: one function, with the fast way on each kind of device.

Letters: B batch, T time (queries), S time (keys), H heads, K features of a head.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

QUERY_CHUNK = 128
MASKED = -1e30
"""Stands for minus infinity in a masked score: finite, so that no NaN can arise from a difference."""

# XLA's CPU backend folds a transposition into a matrix product and then leaves its fast kernel. A barrier keeps the two
# apart; it costs nothing else.
_apart = jax.lax.optimization_barrier


def causal_attention(q_BTHK: jax.Array, k_BSHK: jax.Array, v_BSHK: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(K)) v over the keys up to each query's own position (Vaswani 2017, equation 1).

    Shapes [batch, time, heads, features], the result alike. On an accelerator this is `jax.nn.dot_product_attention`
    (cuDNN's fused kernel for half-precision inputs on a GPU); on a CPU, chunks of queries against their own prefix with
    a hand-written gradient.
    """
    backend = jax.default_backend()
    if backend == "cpu":
        return _chunked(q_BTHK, k_BSHK, v_BSHK)
    fused = backend == "gpu" and q_BTHK.dtype in (jnp.bfloat16, jnp.float16)
    return jax.nn.dot_product_attention(
        q_BTHK, k_BSHK, v_BSHK, is_causal=True, implementation="cudnn" if fused else None
    )


def _chunked(q_BTHK: jax.Array, k_BSHK: jax.Array, v_BSHK: jax.Array) -> jax.Array:
    scale = q_BTHK.shape[-1] ** -0.5
    heads_first = [_apart(x.transpose(0, 2, 1, 3)) for x in (q_BTHK * scale, k_BSHK, v_BSHK)]
    return _apart(_chunked_heads_first(*heads_first)).transpose(0, 2, 1, 3)


def _chunks(time: int) -> list[tuple[int, int]]:
    return [(start, min(start + QUERY_CHUNK, time)) for start in range(0, time, QUERY_CHUNK)]


@jax.custom_vjp
def _chunked_heads_first(q_BHTK: jax.Array, k_BHSK: jax.Array, v_BHSK: jax.Array) -> jax.Array:
    return _forward(q_BHTK, k_BHSK, v_BHSK)[0]


def _forward(q_BHTK: jax.Array, k_BHSK: jax.Array, v_BHSK: jax.Array) -> tuple[jax.Array, Any]:
    outputs, weights = [], []
    for start, stop in _chunks(q_BHTK.shape[2]):
        visible = np.arange(start, stop)[:, None] >= np.arange(stop)[None, :]
        scores_BHTS = _apart(jnp.einsum("bhtk,bhsk->bhts", q_BHTK[:, :, start:stop], k_BHSK[:, :, :stop]))
        weights_BHTS = _apart(jax.nn.softmax(jnp.where(visible, scores_BHTS, MASKED), axis=-1))
        outputs.append(_apart(jnp.einsum("bhts,bhsk->bhtk", weights_BHTS, v_BHSK[:, :, :stop])))
        weights.append(weights_BHTS)
    output_BHTK = jnp.concatenate(outputs, axis=2)
    return output_BHTK, (q_BHTK, k_BHSK, v_BHSK, weights, output_BHTK)


def _backward(saved: Any, d_output_BHTK: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradient of softmax attention (Dao 2022, appendix B.2), chunk by chunk.

    Gradients of keys and values are made as [features, time]: XLA's product that gives [time, features] is slower on a
    CPU.
    """
    q_BHTK, k_BHSK, v_BHSK, weights, output_BHTK = saved
    time = q_BHTK.shape[2]
    d_output_BHTK = _apart(d_output_BHTK)
    rowsum_BHT1 = jnp.sum(d_output_BHTK * output_BHTK, axis=-1, keepdims=True)
    d_q, d_k, d_v = [], [], []
    for (start, stop), weights_BHTS in zip(_chunks(time), weights):
        d_out = d_output_BHTK[:, :, start:stop]
        d_weights_BHTS = _apart(jnp.einsum("bhtk,bhsk->bhts", d_out, v_BHSK[:, :, :stop]))
        d_scores_BHTS = _apart(weights_BHTS * (d_weights_BHTS - rowsum_BHT1[:, :, start:stop]))
        d_q.append(_apart(jnp.einsum("bhts,bhsk->bhtk", d_scores_BHTS, k_BHSK[:, :, :stop])))
        d_k.append(_apart(jnp.einsum("bhtk,bhts->bhks", q_BHTK[:, :, start:stop], d_scores_BHTS)))
        d_v.append(_apart(jnp.einsum("bhtk,bhts->bhks", d_out, weights_BHTS)))
    return jnp.concatenate(d_q, axis=2), _sum_of_prefixes(d_k, time), _sum_of_prefixes(d_v, time)


def _sum_of_prefixes(parts: list[jax.Array], time: int) -> jax.Array:
    """Add arrays [B, H, K, S] of growing S, each from key 0 on; returns [B, H, time, K]."""
    padded = [jnp.pad(part, ((0, 0), (0, 0), (0, 0), (0, time - part.shape[-1]))) for part in parts]
    return sum(padded[1:], padded[0]).swapaxes(2, 3)


_chunked_heads_first.defvjp(_forward, _backward)
