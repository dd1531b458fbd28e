"""Documents that do not see each other, in a causal kernel without a mask: their numbers as features of a head."""

import jax
import jax.numpy as jnp

from lmscale.core.counting.activations import document_features

HIDDEN = -(2.0**30)
"""Added to a score between two documents: its exponential is 0 for every scale of scores, bfloat16 holds it exactly."""


def as_features(
    q_BTHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, segments_BT: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries and keys with a feature for each binary digit of their document's number; values with as many zeros.

    A query has `HIDDEN` where a digit of its number is 1, a key has 1 where the digit is 0. Numbers never fall along a
    row, so that of a key before the query is at most the query's. If the two are equal, every product is 0 and the
    score stays what it is, exactly; if the key's is smaller, some digit is 1 in the query's number and 0 in the key's,
    and the key gets no weight. This takes memory for [T] instead of a mask's [T, S].
    """
    digits = jnp.arange(document_features(k_BSGK.shape[1]), dtype=segments_BT.dtype)
    ones_BTE = segments_BT[:, :, None] >> digits[None, None, :] & 1
    more_q, more_k = ones_BTE * HIDDEN, 1 - ones_BTE
    wide_v = jnp.pad(v_BSGK, ((0, 0), (0, 0), (0, 0), (0, len(digits))))
    return _widened(q_BTHK, more_q), _widened(k_BSGK, more_k), wide_v


def _widened(x_BTHK: jax.Array, more_BTE: jax.Array) -> jax.Array:
    """Every head with the same further features."""
    more_BTHE = jnp.broadcast_to(more_BTE[:, :, None].astype(x_BTHK.dtype), (*x_BTHK.shape[:3], more_BTE.shape[-1]))
    return jnp.concatenate((x_BTHK, more_BTHE), axis=-1)
