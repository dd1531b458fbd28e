"""Products of rows that are sorted by group with a matrix per group, each row with its own group's alone.

`jax.lax.ragged_dot` does that on a TPU. On a CPU, and on a GPU but for few shapes, XLA makes of it a product of all
rows with all matrices (jaxlib 0.9): E times the work. There, a loop multiplies blocks of rows, each with the matrix of
its group, and runs once per block that holds a row. Letters as in `experts`; D inputs, F outputs of a matrix.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

Method = Literal["blocks", "ragged"]


def default_method() -> Method:
    """How the backend multiplies groups of rows."""
    return "ragged" if jax.default_backend() == "tpu" else "blocks"


def block_rows(pairs: int, groups: int) -> int:
    """Rows of a block, a power of two.

    A product of few rows runs far below the peak of the machine, and of the last block of every group half is empty on
    average: about a quarter of a group's rows, between 16 and 128 on a CPU (`experiments/bench_experts.py`), and up to
    1024 on an accelerator, whose kernels are longer to start than to run.
    """
    most = 128 if jax.default_backend() == "cpu" else 1024
    return max(16, min(most, 1 << max(0, (pairs // groups // 4)).bit_length()))


def grouped_matmul(x_MD: jax.Array, w_EDF: jax.Array, sizes_E: jax.Array, rows: int) -> jax.Array:
    """[M, F]: the first sizes_E[0] rows times w_EDF[0], the next ones times w_EDF[1], and so on.

    At least `rows` rows behind the last group are empty; what they give means nothing.
    """
    if default_method() == "ragged":
        return jax.lax.ragged_dot(x_MD, w_EDF, sizes_E)
    return _by_blocks(x_MD, w_EDF, sizes_E, rows)


class _Blocks(NamedTuple):
    """Blocks of rows of one group each; the last of a group reaches into the next one."""

    offsets_E: jax.Array
    """First row of a group."""
    ends_E: jax.Array
    """Row behind the last one of a group."""
    counted_E: jax.Array
    """Blocks of the groups up to this one."""
    rows: int

    @classmethod
    def of(cls, sizes_E: jax.Array, rows: int) -> "_Blocks":
        ends_E = jnp.cumsum(sizes_E)
        return cls(ends_E - sizes_E, ends_E, jnp.cumsum((sizes_E + rows - 1) // rows), rows)

    def at(self, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Group and first row of a block."""
        group = (self.counted_E <= number).sum(dtype=jnp.int32)
        behind = jnp.where(group > 0, self.counted_E[jnp.maximum(group - 1, 0)], 0)
        return group, self.offsets_E[group] + (number - behind) * self.rows

    def cut(self, x: jax.Array, start: jax.Array) -> jax.Array:
        """The rows of a block."""
        return jax.lax.dynamic_slice_in_dim(x, start, self.rows)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _by_blocks(x_MD: jax.Array, w_EDF: jax.Array, sizes_E: jax.Array, rows: int) -> jax.Array:
    """The blocks in order: what one writes behind its own group, the next one overwrites."""
    blocks = _Blocks.of(sizes_E, rows)

    def one(number: jax.Array, y_MF: jax.Array) -> jax.Array:
        group, start = blocks.at(number)
        y_RF = blocks.cut(x_MD, start) @ w_EDF[group]
        return jax.lax.dynamic_update_slice_in_dim(y_MF, y_RF, start, axis=0)

    return jax.lax.fori_loop(0, blocks.counted_E[-1], one, jnp.zeros((len(x_MD), w_EDF.shape[2]), x_MD.dtype))


def _forward(x_MD: jax.Array, w_EDF: jax.Array, sizes_E: jax.Array, rows: int) -> tuple[jax.Array, Any]:
    return _by_blocks(x_MD, w_EDF, sizes_E, rows), (x_MD, w_EDF, sizes_E)


def _backward(rows: int, saved: Any, grad_MF: jax.Array) -> tuple[Any, ...]:
    """A matrix' gradient is summed over its blocks in float32; that of a group without rows is zero."""
    x_MD, w_EDF, sizes_E = saved
    blocks = _Blocks.of(sizes_E, rows)

    def one(number: jax.Array, grads: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        dx_MD, dw_EDF = grads
        group, start = blocks.at(number)
        grad_RF = blocks.cut(grad_MF, start)
        dx_MD = jax.lax.dynamic_update_slice_in_dim(dx_MD, grad_RF @ w_EDF[group].T, start, axis=0)
        own_R = start + jnp.arange(rows) < blocks.ends_E[group]
        x_RD = jnp.where(own_R[:, None], blocks.cut(x_MD, start), 0)
        added_DF = jnp.matmul(x_RD.T, grad_RF, preferred_element_type=jnp.float32)
        return dx_MD, dw_EDF.at[group].add(added_DF)

    zero = jnp.zeros_like(x_MD), jnp.zeros(w_EDF.shape, jnp.float32)
    dx_MD, dw_EDF = jax.lax.fori_loop(0, blocks.counted_E[-1], one, zero)
    return dx_MD, dw_EDF.astype(w_EDF.dtype), None


_by_blocks.defvjp(_forward, _backward)
