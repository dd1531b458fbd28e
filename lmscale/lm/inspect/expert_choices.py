"""How many of the experts that tokens take are taken in both prompts of a pair: only there can a neuron of an expert be
replaced by that of the other prompt (`expert_neurons`).

Letters as in `patching`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.core.config import ModelConfig
from lmscale.lm.inspect import expert_neurons
from lmscale.lm.inspect.pairs import PairTokens
from lmscale.lm.inspect.patching import chunks
from lmscale.lm.model import transformer
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.tap import record


class ExpertChoices(NamedTuple):
    """Choices of experts by all tokens of both prompts of all pairs, in all layers."""

    taken: int
    in_both: int
    """Choices that the other prompt's token at the same position makes, too."""


def expert_choices(params: Params, pairs: PairTokens, config: ModelConfig) -> ExpertChoices:
    """The choices of all tokens of the pairs, padding apart."""
    counts = np.zeros(2, np.int64)
    for rows in chunks(pairs.pair_count, 8 * config.layers * pairs.prompt_NT.shape[1] * config.width):
        part = pairs.take(rows)
        fresh_R = np.arange(len(rows)) <= rows[-1] - rows[0]  # a batch repeats its last row to be full
        counts += np.asarray(_count(params, part.prompt_NT, part.other_NT, part.end_N, fresh_R, config))
    return ExpertChoices(*counts.tolist())


@partial(jax.jit, static_argnames=("config",))
def _count(
    params: Params,
    tokens_RT: jax.Array,
    others_RT: jax.Array,
    end_R: jax.Array,
    fresh_R: jax.Array,
    config: ModelConfig,
) -> jax.Array:
    """[2]: choices, and those in both; a choice in both stands in each of the two prompts."""
    own_LRTJ, other_LRTJ = (_experts(params, tokens, config) for tokens in (tokens_RT, others_RT))
    read_RT = (jnp.arange(tokens_RT.shape[1])[None] <= end_R[:, None]) & fresh_R[:, None]
    both_LRTJ = expert_neurons.in_common(own_LRTJ, other_LRTJ)[0]
    taken = sum((experts != expert_neurons.NOBODY).astype(jnp.int32) for experts in (own_LRTJ, other_LRTJ))
    read_1RT1 = read_RT[None, ..., None]
    return jnp.stack([(taken * read_1RT1).sum(), 2 * (both_LRTJ & read_1RT1).sum()])


def _experts(params: Params, tokens_RT: jax.Array, config: ModelConfig) -> jax.Array:
    """The experts that read each token, [L, R, T, J]."""
    site = expert_neurons.EXPERTS
    chosen_LRTJ = transformer.final_residual(params, tokens_RT, config, None, record(site))[2][site]
    return jax.vmap(partial(expert_neurons.taken, config=config))(chosen_LRTJ)
