"""Whether a run is still learning, judged on the device: a few scalars beside the step, read when a row is logged."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

SMOOTHING = 0.95
"""Share of the smoothed loss that each step keeps: about the last 20 steps count."""
SPIKE_DEVIATIONS = 6.0
"""A loss so many standard deviations of the recent ones above their mean is a spike."""
SETTLING_STEPS = 20
"""Steps before a spike can be distinguished from the fall at the beginning."""


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


REASONS = (
    "",
    "the training loss was not finite",
    "the gradient norm was not finite",
    "the smoothed training loss rose {limit:g} nats above its lowest",
)


def healthy() -> Health:
    """The health of a run before its first step."""
    zero, none = jnp.float32(0), jnp.int32(0)
    return Health(zero, zero, jnp.float32(jnp.inf), none, none, none)


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
    return Health(
        smoothed=smoothed,
        variance=SMOOTHING * (health.variance + (1 - SMOOTHING) * deviation**2),
        lowest=jnp.minimum(health.lowest, smoothed),
        spikes=health.spikes + spike,
        code=jnp.where(sick, health.code, code),
        step=jnp.where(sick | (code == 0), health.step, step + 1),
    )


def trouble(health: Health, limit_nats: float) -> Trouble | None:
    """The problem that `health`, read from the device, records; None while the run is healthy."""
    code = int(health.code)
    return Trouble(REASONS[code].format(limit=limit_nats), int(health.step)) if code else None
