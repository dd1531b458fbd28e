"""Attention with linear biases (Press 2022): a score falls with its key's distance, at each head's own rate."""

import jax
import jax.numpy as jnp
import numpy as np

FEATURES = 8
"""Features that `as_features` adds to a head; kernels need multiples of eight."""


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """One slope per head: 2^(-8 i / heads) for i = 1 ... heads where `heads` is a power of two.

    Otherwise the slopes of the power of two below, then every other one of the power of two above (the paper's code).
    """
    below = 1 << heads.bit_length() - 1
    slopes = [2 ** (-8 * i / below) for i in range(1, below + 1)]
    between = [2 ** (-4 * i / below) for i in range(1, 2 * below + 1, 2)]
    return tuple(slopes + between[: heads - below])


def as_features(
    q_BTHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, slopes: tuple[float, ...], scale: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries and keys with eight more features, so that scale q k^T includes the bias; values with eight zeros.

    A softmax does not depend on what all keys of a query share, so -slope (t - s) may be slope s: a product of a number
    of the head and one of the key. Written as sums of terms that bfloat16 holds exactly (the digits of s to base 256;
    the slope as two terms, exact to 2^-17) it passes through a fused kernel that takes no bias, in memory for [T]
    instead of [T, S]. Positions up to 2^24.
    """
    time = k_BSGK.shape[1]
    assert time <= 2**24
    rate_H = np.asarray(slopes) / scale
    coarse_H = rate_H.astype(jnp.bfloat16).astype(np.float64)
    unused = [np.zeros(time)] * (FEATURES - 6)
    digits = [np.arange(time) // 256**power % 256 * 256.0**power for power in range(3)]
    q_HE = np.stack([coarse_H] * 3 + [rate_H - coarse_H] * 3 + [0 * rate_H] * len(unused), axis=-1)
    k_SE = np.stack([*digits, *digits, *unused], axis=-1)
    more_q = jnp.broadcast_to(jnp.asarray(q_HE, q_BTHK.dtype)[None, None], (*q_BTHK.shape[:3], FEATURES))
    more_k = jnp.broadcast_to(jnp.asarray(k_SE, k_BSGK.dtype)[None, :, None], (*k_BSGK.shape[:3], FEATURES))
    wide_q, wide_k = (jnp.concatenate(pair, axis=-1) for pair in ((q_BTHK, more_q), (k_BSGK, more_k)))
    return wide_q, wide_k, jnp.pad(v_BSGK, ((0, 0), (0, 0), (0, 0), (0, FEATURES)))
