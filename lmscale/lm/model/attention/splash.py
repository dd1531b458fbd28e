"""Attention by JAX's splash kernel on TPUs, and the kernel's requirements."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lmscale.lm.model.attention.alibi import as_features
from lmscale.lm.model.attention.per_device import on_each_device

LANES = 128
BLOCKS = (512, 256, 128)
"""Queries and keys of one block: the first that divides the length."""


def restriction(dtype: jnp.dtype, time: int) -> str | None:
    """Why the splash kernel cannot compute this, or None.

    After `_splash_attention_forward` (blocks of whole lanes) and `_process_mask` (blocks divide the length) in
    jax/experimental/pallas/ops/tpu/splash_attention (JAX 0.10.2). Any number of features works:
    `attend` pads them.
    """
    if dtype not in (jnp.bfloat16, jnp.float32):
        return f"splash attention takes bfloat16 or float32, not {dtype}"
    if time % LANES != 0:
        return f"splash attention takes lengths of a multiple of {LANES}, not {time}"
    return None


def attend(
    q_BTHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGK: jax.Array,
    scale: float,
    slopes: tuple[float, ...] | None = None,
    segments_BT: jax.Array | None = None,
    interpret: bool = False,
) -> jax.Array:
    """The splash kernel on each device's share of batch and heads.

    Features are padded to whole lanes, as the registers of a TPU are anyway.

    `interpret` runs the kernel step by step on any device, for tests.
    """
    features = q_BTHK.shape[-1]
    q_BTHK = q_BTHK * scale
    if slopes is not None:
        q_BTHK, k_BSGK, v_BSGK = as_features(q_BTHK, k_BSGK, v_BSGK, slopes, scale=1.0)
    padding = ((0, 0), (0, 0), (0, 0), (0, -q_BTHK.shape[-1] % LANES))
    padded = [jnp.pad(x, padding) for x in (q_BTHK, k_BSGK, v_BSGK)]

    def local(q: jax.Array, k: jax.Array, v: jax.Array, segments_BT: jax.Array | None) -> jax.Array:
        heads_first = [x.swapaxes(1, 2) for x in (q, k, v)]
        return jax.vmap(_kernel(q.shape[1], q.shape[2], interpret))(*heads_first, segments_BT).swapaxes(1, 2)

    return on_each_device(local, *padded, segments_BT)[..., :features]


def _kernel(time: int, heads: int, interpret: bool) -> Callable[..., jax.Array]:
    """Attention of one row: queries [H, T, K], keys and values [G, S, K], segments [T] or None."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    block = next(size for size in BLOCKS if time % size == 0)
    sizes = splash.BlockSizes(
        block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
    )
    mask = splash.MultiHeadMask([splash.CausalMask((time, time))] * heads)
    kernel = splash.make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret)

    def attend_row(q_HTK: jax.Array, k_GSK: jax.Array, v_GSK: jax.Array, segments_T: jax.Array | None) -> jax.Array:
        ids = None if segments_T is None else splash.SegmentIds(segments_T, segments_T)
        return kernel(q_HTK, k_GSK, v_GSK, ids)

    return attend_row
