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
    x_BTD: jax.Array,
    experts_BTJ: jax.Array,
    gates_BTJ: jax.Array,
    config: ModelConfig,
    tap: BoundTap = NO_TAP,
) -> jax.Array:
    """[B, T, D]: the outputs of every token's experts, each times its gate, summed in float32."""
    (batch, time, choices), width = experts_BTJ.shape, x_BTD.shape[-1]
    tokens, pairs = batch * time, batch * time * choices
    rows = block_rows(pairs, config.experts)
    experts_P = experts_BTJ.reshape(-1)
    order_M = jnp.argsort(experts_P, stable=True)
    readers_NJ = jnp.argsort(order_M).reshape(tokens, choices)
    sizes_E = count(experts_P, config.experts)
    order_M = jnp.pad(order_M, (0, rows), constant_values=pairs)
    x_MD = gather_rows(x_BTD.reshape(tokens, width), order_M // choices, readers_NJ)
    hidden_MF = hidden_of_experts(layer_params, x_MD, sizes_E, rows, config)
    if tap.taps("expert_hidden"):
        there_PF = gather_rows(hidden_MF, readers_NJ.reshape(-1), order_M[:, None])
        there_BTJF = tap("expert_hidden", there_PF.reshape(batch, time, choices, -1))
        hidden_MF = gather_rows(there_BTJF.reshape(pairs, -1), order_M, readers_NJ.reshape(-1, 1))
    y_MD = grouped_matmul(hidden_MF, layer_params["experts_out"], sizes_E, rows)
    y_PD = gather_rows(y_MD, readers_NJ.reshape(-1), order_M[:, None])
    y_BTJD = y_PD.reshape(batch, time, choices, width)
    return (y_BTJD * gates_BTJ[:, :, :, None]).sum(axis=2).astype(x_BTD.dtype)


def count(experts_P: jax.Array, most: int) -> jax.Array:
    """How often each of 0 to `most` - 1 is there, int32."""
    return jax.nn.one_hot(experts_P, most, dtype=jnp.int32).sum(axis=0)


def hidden_of_experts(
    layer_params: Params, x_MD: jax.Array, sizes_E: jax.Array, rows: int, config: ModelConfig
) -> jax.Array:
    """[M, F]: hidden units of rows that are sorted by expert, all their branches in one product; see
    `grouped_matmul`."""
    w_EDCF = layer_params["experts_in"]
    experts, width, branches, hidden = w_EDCF.shape
    flat_MF = grouped_matmul(x_MD, w_EDCF.reshape(experts, width, branches * hidden), sizes_E, rows)
    return activate(flat_MF.reshape(-1, branches, hidden), config)
