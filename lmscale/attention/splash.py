"""Attention by JAX's splash kernel on TPUs, and what it asks for."""

import jax
import jax.numpy as jnp

from lmscale.attention.alibi import as_features
from lmscale.attention.placement import on_each_device

LANES = 128
BLOCKS = (512, 256, 128)
"""Queries and keys of one block, the largest first that divides the length."""


def restriction(dtype: jnp.dtype, time: int) -> str | None:
    """Why the splash kernel cannot do this, or None.

    After `_splash_attention_forward` (blocks of a multiple of 128 lanes) and `process_mask` (blocks divide the length)
    in jax/experimental/pallas/ops/tpu/splash_attention (JAX 0.10.2); the kernel computes in float32 from either dtype.
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
    """Each device's part; features are filled up to whole lanes, as the TPU does with its registers anyway."""
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    features = q_BTHK.shape[-1]
    wide = (q_BTHK * scale, k_BSGK, v_BSGK)
    if slopes is not None:
        wide = as_features(*wide, slopes, scale=1.0)
    fill = [(0, 0), (0, 0), (0, 0), (0, -wide[0].shape[-1] % LANES)]
    q_wide, k_wide, v_wide = (jnp.pad(x, fill) for x in wide)

    def part(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None) -> jax.Array:
        kernel = _kernel(q.shape[1], q.shape[2], interpret)

        def row(q_THK: jax.Array, k_SGK: jax.Array, v_SGK: jax.Array, segments_T: jax.Array | None) -> jax.Array:
            ids = None if segments_T is None else SegmentIds(segments_T, segments_T)
            heads_first = (x.swapaxes(0, 1) for x in (q_THK, k_SGK, v_SGK))
            return kernel(*heads_first, ids).swapaxes(0, 1)

        return jax.vmap(row)(q, k, v, segments)

    return on_each_device(part, q_wide, k_wide, v_wide, segments_BT)[..., :features]


def _kernel(time: int, heads: int, interpret: bool):  # type: ignore[no-untyped-def]
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    block = next(size for size in BLOCKS if time % size == 0)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    mask = splash.MultiHeadMask([splash.CausalMask((time, time))] * heads)
    return splash.make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret)
