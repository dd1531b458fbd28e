"""Neurons of experts, which only some tokens have: neuron f of expert e acts on the tokens that take e, and is absent
elsewhere.

    unit e F + f                   neuron f of expert e
    unit E F + f                   neuron f of the shared experts, which every token reads
    as in another prompt           replaced at the positions at which both prompts take expert e; elsewhere it stays
    at its mean                    over the tokens that take expert e; 0 where none of them does

A token that found no room at an expert does not take it. Letters as in `experts`; R rows, U units of a layer.
"""

import jax
import jax.numpy as jnp

from lmscale.core.config import ModelConfig
from lmscale.lm.model.experts.capacity import Occupancy, places

EXPERTS, HIDDEN, SHARED = "experts", "expert_hidden", "shared_hidden"
"""Sites: which experts a token takes, the activations of their neurons, and those of the shared experts."""
NOBODY = -1
"""Stands for an expert that had no room."""


def routed_count(config: ModelConfig) -> int:
    """Neurons of a layer that only some tokens have."""
    return config.experts * config.expert_hidden


def shared_count(config: ModelConfig) -> int:
    """Neurons of a layer that every token has."""
    return config.shared_experts * config.expert_hidden


def neuron_sites(config: ModelConfig) -> tuple[str, ...]:
    """The sites that hold the neurons of a model with experts."""
    return (EXPERTS, HIDDEN, SHARED) if config.shared_experts else (EXPERTS, HIDDEN)


def taken(experts_RTJ: jax.Array, config: ModelConfig) -> jax.Array:
    """The experts that read a token, `NOBODY` in place of one without room, [R, T, J]."""
    if config.expert_capacity is None:
        return experts_RTJ
    return jnp.where(places(experts_RTJ, config, Occupancy()).has_room_BTJ, experts_RTJ, NOBODY)


def masks_of_choices(mask_RTU: jax.Array, experts_RTJ: jax.Array, config: ModelConfig) -> jax.Array:
    """Which neurons of the experts that a token takes are replaced, [R, T, J, F]; the mask's T may be 1."""
    rows, time, _ = mask_RTU.shape
    mask_RTEF = mask_RTU.reshape(rows, time, config.experts, config.expert_hidden)
    at_RTJ1 = jnp.maximum(experts_RTJ, 0)[..., None]
    mask_RTEF = jnp.broadcast_to(mask_RTEF, (*experts_RTJ.shape[:2], *mask_RTEF.shape[2:]))
    return jnp.take_along_axis(mask_RTEF, at_RTJ1, axis=2) & (experts_RTJ[..., None] != NOBODY)


def means_of_choices(mean_EF: jax.Array, experts_RTJ: jax.Array) -> jax.Array:
    """The mean neurons of the experts that a token takes, [R, T, J, F]."""
    return mean_EF[jnp.maximum(experts_RTJ, 0)]


def in_common(experts_RTJ: jax.Array, others_RTJ: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which of a token's experts the other prompt takes at the same position, [R, T, J], and the places of these among
    its choices."""
    same_RTJJ = (experts_RTJ[..., :, None] == others_RTJ[..., None, :]) & (experts_RTJ != NOBODY)[..., None]
    return same_RTJJ.any(axis=-1), same_RTJJ.argmax(axis=-1)
