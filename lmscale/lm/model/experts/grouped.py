"""Products of rows that are sorted by group with a matrix per group, each row with its own group's alone.

`jax.lax.ragged_dot` does that on a TPU. On a CPU, and on a GPU but for few shapes, XLA makes of it a product of all
rows with all matrices (JAX 0.10.2): E times the work. There, a loop over the groups that have rows multiplies blocks of
rows with the matrix of the group. Letters as in `experts`; D inputs, F outputs of a matrix, R rows of a block.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from lmscale.lm.devices.sharding import platform

Method = Literal["blocks", "ragged"]


def default_method() -> Method:
    """How the backend multiplies groups of rows."""
    return "ragged" if platform() == "tpu" else "blocks"


def block_rows(pairs: int, groups: int) -> int:
    """Rows of a block, a power of two.

    A product of few rows runs far below the peak of the machine, and half of a group's last block is empty on average:
    a quarter of a group's rows or the next power of two, between 16 and 128 on a CPU (timed at width 256 with 256 and
    512 rows to a group), and up to 1024 on an accelerator, whose kernels take longer to start than to run.
    """
    if not isinstance(pairs, int):  # of an exported function, which takes any number of rows
        return 64
    most = 128 if platform() == "cpu" else 1024
    return max(16, min(most, 1 << max(0, pairs // groups // 4 - 1).bit_length()))


def grouped_matmul(x_MD: jax.Array, w_EDF: jax.Array, sizes_E: jax.Array, rows: int) -> jax.Array:
    """[M, F]: the first sizes_E[0] rows times w_EDF[0], the next ones times w_EDF[1], and so on.

    At least `rows` rows behind the last group are empty; what they give means nothing.
    """
    if default_method() == "ragged":
        return jax.lax.ragged_dot(x_MD, w_EDF, sizes_E)
    return _by_blocks(x_MD, w_EDF, sizes_E, rows)


class _Groups(NamedTuple):
    """Where the rows of each group are, those of groups with rows first."""

    groups_E: jax.Array
    number: jax.Array
    """Groups with rows."""
    starts_E: jax.Array
    """First row of a group."""
    ends_E: jax.Array
    """Row behind the last one of a group."""

    @classmethod
    def of(cls, sizes_E: jax.Array) -> "_Groups":
        ends_E = jnp.cumsum(sizes_E)
        return cls(jnp.argsort(sizes_E == 0, stable=True), (sizes_E > 0).sum(), ends_E - sizes_E, ends_E)


def _cut(x: jax.Array, start: jax.Array, rows: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, start, rows)


def _paste(x: jax.Array, block: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x, block, start, axis=0)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _by_blocks(x_MD: jax.Array, w_EDF: jax.Array, sizes_E: jax.Array, rows: int) -> jax.Array:
    """Groups and their blocks in order: what one writes behind its own group, the next one overwrites."""
    groups = _Groups.of(sizes_E)

    def group(number: jax.Array, y_MF: jax.Array) -> jax.Array:
        own = groups.groups_E[number]
        w_DF, first, end = w_EDF[own], groups.starts_E[own], groups.ends_E[own]

        def block(number: jax.Array, y_MF: jax.Array) -> jax.Array:
            start = first + number * rows
            return _paste(y_MF, _cut(x_MD, start, rows) @ w_DF, start)

        return jax.lax.fori_loop(0, -(-(end - first) // rows), block, y_MF)

    return jax.lax.fori_loop(0, groups.number, group, jnp.zeros((x_MD.shape[0], w_EDF.shape[2]), x_MD.dtype))


def _forward(x_MD: jax.Array, w_EDF: jax.Array, sizes_E: jax.Array, rows: int) -> tuple[jax.Array, Any]:
    return _by_blocks(x_MD, w_EDF, sizes_E, rows), (x_MD, w_EDF, sizes_E)


def _backward(rows: int, saved: Any, grad_MF: jax.Array) -> tuple[Any, ...]:
    """A matrix' gradient is summed over its blocks in float32; that of a group without rows is zero."""
    x_MD, w_EDF, sizes_E = saved
    groups = _Groups.of(sizes_E)
    Grads = tuple[jax.Array, jax.Array]

    def group(number: jax.Array, grads: Grads) -> Grads:
        dx_MD, dw_EDF = grads
        own = groups.groups_E[number]
        w_DF, first, end = w_EDF[own], groups.starts_E[own], groups.ends_E[own]

        def block(number: jax.Array, grads: Grads) -> Grads:
            dx_MD, dw_DF = grads
            start = first + number * rows
            grad_RF = _cut(grad_MF, start, rows)
            own_R1 = (start + jnp.arange(rows) < end)[:, None]
            x_RD = jnp.where(own_R1, _cut(x_MD, start, rows), 0)
            added_DF = jnp.matmul(x_RD.T, grad_RF, preferred_element_type=jnp.float32)
            return _paste(dx_MD, grad_RF @ w_DF.T, start), dw_DF + added_DF

        zero_DF = jnp.zeros(w_DF.shape, jnp.float32)
        dx_MD, dw_DF = jax.lax.fori_loop(0, -(-(end - first) // rows), block, (dx_MD, zero_DF))
        return dx_MD, dw_EDF.at[own].set(dw_DF.astype(w_EDF.dtype))

    dx_MD, dw_EDF = jax.lax.fori_loop(0, groups.number, group, (jnp.zeros_like(x_MD), jnp.zeros_like(w_EDF)))
    return dx_MD, dw_EDF, None


_by_blocks.defvjp(_forward, _backward)
