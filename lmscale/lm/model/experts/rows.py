"""Rows of an array taken by index, with a gradient that takes rows by index too.

The gradient of an index is a scatter, which adds rows one after another on a CPU and with atomics on a GPU. Where it is
known which rows of the result were taken from a row, the gradient is their sum.
"""

from typing import Any

import jax
import jax.numpy as jnp


@jax.custom_vjp
def gather_rows(x_ND: jax.Array, index_M: jax.Array, readers_NJ: jax.Array) -> jax.Array:
    """Row index_M[m] of `x_ND` for every m, zeros for an index of N or more.

    `readers_NJ` are, for every row n, the m with index_M[m] = n, in any order, filled up with M or more.
    """
    return _take(x_ND, index_M)


def _take(x_ND: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take(x_ND, index, axis=0, mode="fill", fill_value=0)


def _forward(x_ND: jax.Array, index_M: jax.Array, readers_NJ: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _take(x_ND, index_M), readers_NJ


def _backward(readers_NJ: jax.Array, grad_MD: jax.Array) -> tuple[Any, ...]:
    return _take(grad_MD, readers_NJ).sum(axis=1), None, None


gather_rows.defvjp(_forward, _backward)
