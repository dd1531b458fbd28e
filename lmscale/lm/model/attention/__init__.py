"""Causal self-attention: one function that takes the fastest implementation on each kind of device.

Letters: B batch, T time (queries), S time (keys), H query heads, G key/value heads, R = H / G query heads that share
one key/value head, K features of a head. Query head h reads key/value head h // R (Ainslie 2023).
"""

from typing import Literal

import jax

from lmscale.lm.devices.sharding import mesh_axis_size, platform
from lmscale.lm.model.attention import chunked, cudnn, plain, splash
from lmscale.lm.model.attention.alibi import FEATURES, alibi_slopes
from lmscale.lm.model.attention.per_device import divides
from lmscale.lm.model.tap import NO_TAP, BoundTap

__all__ = ["alibi_slopes", "causal_attention", "implementation"]


def causal_attention(
    q_BTHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGK: jax.Array,
    *,
    scale: float,
    slopes: tuple[float, ...] | None = None,
    segments_BT: jax.Array | None = None,
    dropout: float = 0.0,
    key: jax.Array | None = None,
    tap: BoundTap = NO_TAP,
) -> jax.Array:
    """softmax(scale q k^T + bias) v over the keys up to each query's own position (Vaswani 2017, equation 1).

    Shapes [batch, time, heads, features]; the result is like the queries. `slopes`, one per query head, adds
    -slope (t - s) to the scaled score (ALiBi, Press 2022). With `segments_BT`, integers from 0 that never fall along a
    row and rise by 1, a query sees only keys of its own segment: documents packed into one row do not see each other.
    `dropout` is the share of attention weights dropped, the others are scaled up to make up for it; without a `key`
    nothing is dropped. A `tap` of scores or weights takes the plain path, the only one on which they exist.
    """
    heads, kv_heads = q_BTHK.shape[2], k_BSGK.shape[2]
    assert heads % kv_heads == 0 and k_BSGK.shape == v_BSGK.shape
    assert slopes is None or len(slopes) == heads
    arrays, options = (q_BTHK, k_BSGK, v_BSGK), (scale, slopes, segments_BT)
    if (key is not None and dropout > 0) or tap.taps("attention_scores", "attention_weights"):
        return plain.attend(*arrays, *options, dropout, key, tap)
    match implementation(platform(), q_BTHK, kv_heads, slopes is not None, segments_BT is not None):
        case "chunked":
            return chunked.attend(*arrays, *options)
        case "cudnn":
            return cudnn.attend(*arrays, *options)
        case "splash":
            return splash.attend(*arrays, *options)
    return plain.attend(*arrays, *options)


def implementation(
    backend: str, q_BTHK: jax.Array, kv_heads: int, biased: bool, segmented: bool
) -> Literal["chunked", "cudnn", "splash", "plain"]:
    """The fastest implementation that supports this on the current mesh. Only shape and dtype of the queries count.

    A kernel needs batch and heads that divide evenly; heads also over the devices that time is divided over.
    """
    batch, time, heads, features = q_BTHK.shape
    if backend == "cpu":
        return "plain" if mesh_axis_size("sequence") > 1 else "chunked"
    features += FEATURES if biased else 0
    even = divides(batch, heads, kv_heads)
    if backend == "gpu" and even and not cudnn.restriction(cudnn.capability(), q_BTHK.dtype, time, features, segmented):
        return "cudnn"
    if backend == "tpu" and even and not splash.restriction(q_BTHK.dtype, time):
        return "splash"
    return "plain"
