"""Means of values over prompts and positions: what an ablated part puts out, which carries nothing about any one prompt
(Wang 2023, arXiv 2211.00593, section 2.2).

Letters as in `patching`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig
from lmscale.lm.inspect import expert_neurons
from lmscale.lm.inspect.patching import Sources, chunks, neuron_count
from lmscale.lm.model import transformer
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.tap import record

Ids = NDArray[np.int32]


def mean_values(params: Params, tokens_NT: Ids, config: ModelConfig, site: str, end_N: Ids | None = None) -> jax.Array:
    """The mean of a site's values over prompts and positions, [L, 1, 1, ...]; what is behind `end_N` is padding."""
    read_NT = _read(tokens_NT, end_N)
    total = jnp.zeros(())
    for rows, weight_RT in _batches(read_NT, config):
        total = total + _sums(params, tokens_NT[rows], weight_RT, config, site)
    return total / int(read_NT.sum())


def neuron_means(params: Params, tokens_NT: Ids, config: ModelConfig, end_N: Ids | None = None) -> Sources:
    """The mean of every neuron, one of an expert over the tokens that take it (`expert_neurons`), by site."""
    if not config.sparse:
        return {"mlp_hidden": mean_values(params, tokens_NT, config, "mlp_hidden", end_N)}
    total_LEF, tokens_LE1 = jnp.zeros(()), jnp.zeros(())
    for rows, weight_RT in _batches(_read(tokens_NT, end_N), config):
        sums_LEF, counts_LE1 = _expert_sums(params, tokens_NT[rows], weight_RT, config)
        total_LEF, tokens_LE1 = total_LEF + sums_LEF, tokens_LE1 + counts_LE1
    means = {expert_neurons.HIDDEN: (total_LEF / jnp.maximum(tokens_LE1, 1))[:, None, None]}
    if config.shared_experts:
        means[expert_neurons.SHARED] = mean_values(params, tokens_NT, config, expert_neurons.SHARED, end_N)
    return means


def _read(tokens_NT: Ids, end_N: Ids | None) -> NDArray[np.bool_]:
    count, time = tokens_NT.shape
    return np.arange(time)[None] <= (np.full(count, time) if end_N is None else end_N)[:, None]


def _batches(read_NT: NDArray[np.bool_], config: ModelConfig) -> list[tuple[Ids, NDArray[np.bool_]]]:
    """Rows with what is read of each; a batch repeats its last row to be full, and that counts once."""
    count, time = read_NT.shape
    width = max(neuron_count(config), config.heads * config.head_width)
    return [
        (rows, read_NT[rows] & (np.arange(len(rows)) <= rows[-1] - rows[0])[:, None])
        for rows in chunks(count, 4 * config.layers * time * width)
    ]


@partial(jax.jit, static_argnames=("config", "site"))
def _sums(params: Params, tokens_RT: jax.Array, weight_RT: jax.Array, config: ModelConfig, site: str) -> jax.Array:
    """Sums over rows and positions that are read, [L, 1, 1, ...]."""
    values = transformer.final_residual(params, tokens_RT, config, None, record(site))[2][site].astype(jnp.float32)
    weight_RT = weight_RT.reshape(*weight_RT.shape, *(1,) * (values.ndim - 3))
    return jnp.sum(jnp.where(weight_RT, values, 0), axis=(1, 2), keepdims=True)


@partial(jax.jit, static_argnames=("config",))
def _expert_sums(
    params: Params, tokens_RT: jax.Array, weight_RT: jax.Array, config: ModelConfig
) -> tuple[jax.Array, jax.Array]:
    """Sums of the neurons of every expert over the tokens that take it, [L, E, F], and how many do, [L, E, 1]."""
    sites = expert_neurons.EXPERTS, expert_neurons.HIDDEN
    values = transformer.final_residual(params, tokens_RT, config, None, record(*sites))[2]
    experts_LRTJ = jax.vmap(partial(expert_neurons.taken, config=config))(values[expert_neurons.EXPERTS])
    takes_LRTJE = jax.nn.one_hot(experts_LRTJ, config.experts) * weight_RT[None, :, :, None, None]
    hidden_LRTJF = values[expert_neurons.HIDDEN].astype(jnp.float32)
    highest = jax.lax.Precision.HIGHEST
    sums_LEF = jnp.einsum("lrtje,lrtjf->lef", takes_LRTJE, hidden_LRTJF, precision=highest)
    return sums_LEF, takes_LRTJE.sum(axis=(1, 2, 3))[..., None]
