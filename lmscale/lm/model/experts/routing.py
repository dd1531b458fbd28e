"""Which experts read a token and with which weights; the losses that balance their load; what is reported of it.

Everything here is per token or per sequence, so that parts of a batch add up to the whole. Letters as in `experts`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmscale.core.config import ModelConfig
from lmscale.lm.model.experts.capacity import Occupancy
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.tap import NO_TAP, BoundTap


class Routing(NamedTuple):
    """The router's answer, float32 but for the choice."""

    logits_BTE: jax.Array
    affinities_BTE: jax.Array
    """Scores divided by their sum over the experts; of softmax gates, the scores themselves."""
    experts_BTJ: jax.Array
    """Chosen experts, int32, the one with the highest score first."""
    ranked_BTJ: jax.Array
    """Experts that would be chosen without the bias: the balance loss counts these (DeepSeek-V3, 2024, eq. 18)."""
    gates_BTJ: jax.Array
    """What the outputs of the chosen experts are multiplied by."""


def route(layer_params: Params, x_BTD: jax.Array, config: ModelConfig, tap: BoundTap = NO_TAP) -> Routing:
    """Choose the experts of every token (DeepSeek-V3, 2024, eq. 12 to 16; Mixtral, 2024, section 2.1).

    The bias moves the choice and not the gates (Wang 2024), and no gradient flows through the choice.
    """
    logits_BTE = jnp.matmul(
        x_BTD.astype(jnp.float32), layer_params["router"].astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
    )
    logits_BTE = tap("router_logits", logits_BTE)
    softmax = config.router.gate == "softmax"
    scores_BTE = jax.nn.softmax(logits_BTE, axis=-1) if softmax else jax.nn.sigmoid(logits_BTE)
    affinities_BTE = scores_BTE if softmax else scores_BTE / scores_BTE.sum(axis=-1, keepdims=True)
    ranked_BTJ = experts_BTJ = _highest(scores_BTE, config)
    if "router_bias" in layer_params:
        experts_BTJ = _highest(scores_BTE + layer_params["router_bias"].astype(jnp.float32)[None, None], config)
    experts_BTJ = tap("experts", experts_BTJ)
    gates_BTJ = (scores_BTE[:, :, None] * one_hot(experts_BTJ, config)).sum(axis=-1)
    if config.normalized_gates:
        gates_BTJ = gates_BTJ / gates_BTJ.sum(axis=-1, keepdims=True)
    gates_BTJ = tap("gates", config.router.scale * gates_BTJ)
    return Routing(logits_BTE, affinities_BTE, experts_BTJ, ranked_BTJ, gates_BTJ)


def _highest(scores_BTE: jax.Array, config: ModelConfig) -> jax.Array:
    return jax.lax.top_k(jax.lax.stop_gradient(scores_BTE), config.experts_per_token)[1]


def one_hot(experts_BTJ: jax.Array, config: ModelConfig) -> jax.Array:
    """Float32 [B, T, J, E]. A product with it has products as its gradient, where an index would have a scatter, which
    a CPU does row by row."""
    return jax.nn.one_hot(experts_BTJ, config.experts, dtype=jnp.float32)


def balance_loss(routing: Routing, read_BT: jax.Array, config: ModelConfig) -> jax.Array:
    """Sum over experts of f_i P_i for every sequence [B] (DeepSeek-V3, 2024, eq. 17 without alpha, and 18 to 20).

    f_i is the share of the sequence's choices that are expert i times E, P_i its mean affinity: 1 where both are even.
    """
    tokens_B = jnp.maximum(read_BT.sum(axis=1), 1)
    chosen_BTE = one_hot(routing.ranked_BTJ, config).sum(axis=2)
    share_BE = (chosen_BTE * read_BT[:, :, None]).sum(axis=1) / tokens_B[:, None]
    affinity_BE = (routing.affinities_BTE * read_BT[:, :, None]).sum(axis=1) / tokens_B[:, None]
    return config.experts / config.experts_per_token * (share_BE * affinity_BE).sum(axis=1)


def z_loss(routing: Routing, read_BT: jax.Array) -> jax.Array:
    """Mean of the squared log-partition over the tokens of every sequence [B] (ST-MoE, Zoph 2022, eq. 5)."""
    log_z_BT = jax.nn.logsumexp(routing.logits_BTE, axis=-1)
    return (log_z_BT**2 * read_BT).sum(axis=1) / jnp.maximum(read_BT.sum(axis=1), 1)


def load(experts_BTJ: jax.Array, read_BT: jax.Array, config: ModelConfig) -> jax.Array:
    """Tokens of every sequence that chose an expert, int32 [B, E]."""
    chosen_BTJE = jax.nn.one_hot(experts_BTJ, config.experts, dtype=jnp.int32)
    return (chosen_BTJE * read_BT[:, :, None, None]).sum(axis=(1, 2))


def reports(routing: Routing, has_room_BTJ: jax.Array | None, occupancy: Occupancy, config: ModelConfig) -> Params:
    """What a layer reports; `has_room_BTJ` says which choices found room, None that all did."""
    read_BT = jnp.ones(routing.logits_BTE.shape[:2], bool) if occupancy.read_BT is None else occupancy.read_BT
    dropped = jnp.int32(0) if has_room_BTJ is None else (~has_room_BTJ & read_BT[:, :, None]).sum(dtype=jnp.int32)
    affinities_BTE = jax.lax.stop_gradient(routing.affinities_BTE)
    entropy_BT = jax.scipy.special.entr(affinities_BTE).sum(axis=-1)
    return {
        "balance_B": balance_loss(routing, read_BT, config),
        "router_z_B": z_loss(routing, read_BT),
        "load_BE": load(routing.experts_BTJ, read_BT, config),
        "dropped": dropped,
        "entropy": (entropy_BT * read_BT).sum(),
    }
