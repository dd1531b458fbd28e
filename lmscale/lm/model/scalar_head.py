"""The reward of a prompt with its answer, by a model whose head gives one number.

Letters: B sequences, T positions, S = T + 1, D width.
"""

import jax
import jax.numpy as jnp

from lmscale.core.config import ModelConfig
from lmscale.lm.model.parameters import Params, logit_multiplier
from lmscale.lm.model.transformer import Reports, final_residual


def rewards(
    params: Params, tokens_BS: jax.Array, scored_BT: jax.Array, config: ModelConfig, key: jax.Array | None = None
) -> tuple[jax.Array, Reports]:
    """The reward [B] of each sequence in float32, and what the layers report. Dropout is off without a key.

    It is read where the last scored token is predicted, the end of the answer: there all of it has been read.
    """
    inputs_BT = jnp.maximum(tokens_BS[:, :-1], 0)
    read_BT = tokens_BS[:, :-1] >= 0 if config.sparse else None
    final_BTD, params, _, reports = final_residual(params, inputs_BT, config, key, read_BT=read_BT)
    # A product with a mask, because a gather would bring together a time that is divided over devices.
    last_BD = jnp.einsum("bt,btd->bd", last_scored(scored_BT).astype(final_BTD.dtype), final_BTD)
    reward_B1 = jnp.matmul(last_BD, params["scalar_head"], preferred_element_type=jnp.float32)
    return logit_multiplier(config) * reward_B1[:, 0], reports


def last_scored(scored_BT: jax.Array) -> jax.Array:
    """True at the last scored position of each sequence, and nowhere in one that has none."""
    scored_after_BT = jnp.cumsum(scored_BT[:, ::-1], axis=1)[:, ::-1]
    return scored_BT & (scored_after_BT == 1)
