"""Experts that read every token that chose them: tokens sorted by expert, one product per expert, and back.

Letters as in `experts`.
"""

import jax
import jax.numpy as jnp

from lmscale.core.config import ModelConfig
from lmscale.lm.model.experts.grouped import block_rows, grouped_matmul
from lmscale.lm.model.experts.rows import gather_rows
from lmscale.lm.model.layers import activate
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.tap import NO_TAP, BoundTap


def dropless(
    layer_params: Params,
    x_ND: jax.Array,
    experts_NJ: jax.Array,
    gates_NJ: jax.Array,
    config: ModelConfig,
    batch_time: tuple[int, ...],
    tap: BoundTap = NO_TAP,
) -> jax.Array:
    """[N, D]: the outputs of every token's experts, each times its gate, summed in float32."""
    tokens, choices = experts_NJ.shape
    rows = block_rows(tokens * choices, config.experts)
    order_M = jnp.argsort(experts_NJ.reshape(-1), stable=True)
    readers_NJ = jnp.argsort(order_M).reshape(tokens, choices)
    sizes_E = (experts_NJ.reshape(-1, 1) == jnp.arange(config.experts)).sum(axis=0, dtype=jnp.int32)
    order_M = jnp.pad(order_M, (0, rows), constant_values=tokens * choices)
    x_MD = gather_rows(x_ND, order_M // choices, readers_NJ)
    hidden_MF = activate(_into(layer_params, x_MD, sizes_E, rows), config)
    hidden_MF = _tapped(hidden_MF, order_M, readers_NJ, batch_time, tap)
    y_MD = grouped_matmul(hidden_MF, layer_params["experts_out"], sizes_E, rows)
    y_NJD = gather_rows(y_MD, readers_NJ.reshape(-1), order_M[:, None]).reshape(tokens, choices, -1)
    return (y_NJD * gates_NJ[:, :, None]).sum(axis=1).astype(x_ND.dtype)


def _into(layer_params: Params, x_MD: jax.Array, sizes_E: jax.Array, rows: int) -> jax.Array:
    """[M, C, F]: all branches of an expert's hidden units in one product."""
    w_EDCF = layer_params["experts_in"]
    experts, width, branches, hidden = w_EDCF.shape
    flat_MF = grouped_matmul(x_MD, w_EDCF.reshape(experts, width, branches * hidden), sizes_E, rows)
    return flat_MF.reshape(-1, branches, hidden)


def _tapped(
    hidden_MF: jax.Array, order_M: jax.Array, readers_NJ: jax.Array, batch_time: tuple[int, ...], tap: BoundTap
) -> jax.Array:
    """Hidden units in the order of the tokens for the tap, and sorted again."""
    if not tap.taps("expert_hidden"):
        return hidden_MF
    choices, hidden = readers_NJ.shape[1], hidden_MF.shape[1]
    there_PF = gather_rows(hidden_MF, readers_NJ.reshape(-1), order_M[:, None])
    there_BTJF = tap("expert_hidden", there_PF.reshape(*batch_time, choices, hidden))
    return gather_rows(there_BTJF.reshape(-1, hidden), order_M, readers_NJ.reshape(-1, 1))
