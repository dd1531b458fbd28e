"""Whether a run is still learning, judged on the device: a few scalars beside the step, read when a row is logged."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from lmscale.core.config import ModelConfig

SMOOTHING = 0.95
"""Share of the smoothed loss that each step keeps: about the last 20 steps count."""
SPIKE_DEVIATIONS = 6.0
"""A loss so many standard deviations of the recent ones above their mean is a spike."""
SETTLING_STEPS = 20
"""Steps before a spike can be distinguished from the fall at the beginning, and a collapse from the first routing."""
COLLAPSED = 1.05
"""Routing has collapsed where a layer uses fewer experts than so many times those of a single token: nearly all tokens
take the same ones. The experts used are exp(H) of the shares of the load, E where it is even, those of one token where
all tokens agree; an expert without tokens learns nothing and is not chosen again."""


class Trouble(NamedTuple):
    """Why and when a run diverged."""

    reason: str
    step: int


@flax.struct.dataclass
class Health:
    """Scalars: losses in nats, steps counted from 1."""

    smoothed: jax.Array
    variance: jax.Array
    """Variance of the loss about its smoothed value."""
    lowest: jax.Array
    """The lowest smoothed loss so far."""
    spikes: jax.Array
    """Steps whose loss was far above the recent ones: a warning, not an end."""
    code: jax.Array
    """0 healthy; otherwise an index into `REASONS`. The first problem stays."""
    step: jax.Array
    """The step of that problem."""


@flax.struct.dataclass
class RoutedHealth(Health):
    """The health of a mixture of experts: a class of its own, since checkpoints of dense models have no such array."""

    load_LE: jax.Array
    """Each expert's share of its layer's tokens, smoothed."""


ROUTING_COLLAPSED = "the routing collapsed: nearly all tokens of a layer took the same experts"
KL_EXPLODED = "the KL to the reference exploded: an answer's mean went above Reinforcement.kl_limit_nats"
REASONS = (
    "",
    "the training loss was not finite",
    "the gradient norm was not finite",
    "the smoothed training loss rose {limit:g} nats above its lowest",
    ROUTING_COLLAPSED,
    KL_EXPLODED,
)


def healthy(model: ModelConfig | None = None) -> Health:
    """The health of a run before its first step; of a mixture of experts, its routing's too."""
    zero, none = jnp.float32(0), jnp.int32(0)
    scalars = zero, zero, jnp.float32(jnp.inf), none, none, none
    if model is None or not model.sparse:
        return Health(*scalars)
    return RoutedHealth(*scalars, jnp.zeros((model.layers, model.experts), jnp.float32))


def watch(health: Health, step: jax.Array, loss_nats: jax.Array, grad_norm: jax.Array, limit_nats: jax.Array) -> Health:
    """The health after update number `step`, counted from 0."""
    first = step == 0
    deviation = jnp.where(first, 0.0, loss_nats - health.smoothed)
    spike = (step >= SETTLING_STEPS) & (deviation > SPIKE_DEVIATIONS * jnp.sqrt(health.variance))
    smoothed = jnp.where(first, loss_nats, health.smoothed + (1 - SMOOTHING) * deviation)
    code = jnp.select(
        [~jnp.isfinite(loss_nats), ~jnp.isfinite(grad_norm), smoothed > health.lowest + limit_nats], [1, 2, 3], 0
    )
    sick = health.code > 0
    return health.replace(  # type: ignore[attr-defined]
        smoothed=smoothed,
        variance=SMOOTHING * (health.variance + (1 - SMOOTHING) * deviation**2),
        lowest=jnp.minimum(health.lowest, smoothed),
        spikes=health.spikes + spike,
        code=jnp.where(sick, health.code, code),
        step=jnp.where(sick | (code == 0), health.step, step + 1),
    )


def watch_routing(health: Health, step: jax.Array, counts_LE: jax.Array, experts_per_token: int) -> Health:
    """The health after the routing of update number `step`, of which `counts_LE` tokens chose an expert."""
    assert isinstance(health, RoutedHealth)
    share_LE = counts_LE / jnp.maximum(counts_LE.sum(axis=1, keepdims=True), 1)
    load_LE = jnp.where(step == 0, share_LE, SMOOTHING * health.load_LE + (1 - SMOOTHING) * share_LE)
    if counts_LE.shape[1] == experts_per_token:  # every token takes all
        return health.replace(load_LE=load_LE)  # type: ignore[attr-defined]
    used_L = jnp.exp(jax.scipy.special.entr(load_LE).sum(axis=1))
    collapsed = (step >= SETTLING_STEPS) & (used_L.min() < COLLAPSED * experts_per_token) & (health.code == 0)
    return health.replace(  # type: ignore[attr-defined]
        load_LE=load_LE,
        code=jnp.where(collapsed, REASONS.index(ROUTING_COLLAPSED), health.code),
        step=jnp.where(collapsed, step + 1, health.step),
    )


def watch_kl(health: Health, step: jax.Array, kl_nats: jax.Array, limit_nats: float) -> Health:
    """The health after update number `step`, before which answers had the mean KL `kl_nats` to the reference."""
    exploded = ~(kl_nats <= limit_nats) & (health.code == 0)
    return health.replace(  # type: ignore[attr-defined]
        code=jnp.where(exploded, REASONS.index(KL_EXPLODED), health.code),
        step=jnp.where(exploded, step + 1, health.step),
    )


def trouble(health: Health, limit_nats: float) -> Trouble | None:
    """The problem that `health`, read from the device, records; None while the run is healthy."""
    code = int(health.code)
    return Trouble(REASONS[code].format(limit=limit_nats), int(health.step)) if code else None
