"""AdamW and its learning-rate schedules.

The schedule's numbers are arguments of the compiled step, not constants in it: runs of one shape that differ in rate or
length share one compiled program.
"""

from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax

from lmscale.config import OptimizerConfig, RunConfig
from lmscale.model import parameter_table


def make_optimizer(config: RunConfig) -> optax.GradientTransformation:
    """Clip by the global norm, then AdamW without its learning rate: the step scales the update by `Schedule.at`.

    Weight decay is decoupled (Loshchilov and Hutter 2019) and touches matrices only.
    """
    settings = config.optimizer
    decayed = {name: row.is_matrix for name, row in parameter_table(config.model).items()}
    clip = [] if settings.clip_norm is None else [optax.clip_by_global_norm(settings.clip_norm)]
    return optax.chain(
        *clip,
        optax.scale_by_adam(b1=settings.beta1, b2=settings.beta2, eps=settings.epsilon),
        optax.add_decayed_weights(settings.weight_decay, mask=decayed),
    )


@flax.struct.dataclass
class Schedule:
    """Learning rate against step: linear warmup from zero, then cosine, linear or no decay to a floor."""

    peak_lr: jax.Array
    warmup_steps: jax.Array
    steps: jax.Array
    final_lr_fraction: jax.Array
    kind: Literal["cosine", "linear", "constant"] = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, config: RunConfig) -> "Schedule":
        """The schedule of a run."""
        settings: OptimizerConfig = config.optimizer
        return cls(
            peak_lr=jnp.float32(settings.peak_lr),
            warmup_steps=jnp.float32(config.warmup_steps),
            steps=jnp.float32(config.steps),
            final_lr_fraction=jnp.float32(settings.final_lr_fraction),
            kind=settings.schedule,
        )

    def at(self, step: jax.Array) -> jax.Array:
        """The learning rate of update number `step`, counted from 0; neither the first nor the last is zero."""
        now = step.astype(jnp.float32)
        warmup = jnp.minimum(1.0, (now + 1) / jnp.maximum(1.0, self.warmup_steps))
        progress = jnp.clip((now - self.warmup_steps) / jnp.maximum(1.0, self.steps - self.warmup_steps), 0.0, 1.0)
        shape = {
            "cosine": 0.5 * (1 + jnp.cos(jnp.pi * progress)),
            "linear": 1 - progress,
            "constant": jnp.ones_like(progress),
        }[self.kind]
        return self.peak_lr * warmup * (self.final_lr_fraction + (1 - self.final_lr_fraction) * shape)
