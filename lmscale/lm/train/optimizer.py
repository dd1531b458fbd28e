"""Optimizers and learning-rate schedules.

The numbers of a run are arguments of the compiled step, not constants in it: runs of one shape that differ in rate,
schedule, length, decay or seed share one compiled program.
"""

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.lm.model.lora import trained
from lmscale.lm.model.parameter_spec import ParameterSpec
from lmscale.lm.model.parameters import Params, parameter_table

SCHEDULES = ("cosine", "linear", "constant", "inverse-sqrt", "wsd 1-sqrt", "wsd linear")
MUON_RMS = 0.2
"""Size of Muon's update over the learning rate: AdamW's, so that one rate serves both (Liu 2025, equation 4)."""


@flax.struct.dataclass
class Schedule:
    """Learning rate against step: linear warmup, then one of `SCHEDULES`. Every field is a scalar array.

    A decay of T updates has the shares 0, 1 / T, ... (T - 1) / T behind it: it begins at the peak and ends one update
    before the floor (`OptimizerConfig.final_lr_fraction`).
    """

    peak_lr: jax.Array
    warmup_steps: jax.Array
    cooldown_steps: jax.Array
    steps: jax.Array
    final_lr_fraction: jax.Array
    kind: jax.Array
    """Index into `SCHEDULES`."""

    @classmethod
    def of(cls, config: RunConfig) -> "Schedule":
        """The schedule of a run."""
        settings = config.optimizer
        kind = f"wsd {settings.cooldown}" if settings.schedule == "wsd" else settings.schedule
        return cls(
            peak_lr=jnp.float32(settings.peak_lr),
            warmup_steps=jnp.float32(config.warmup_steps),
            cooldown_steps=jnp.float32(config.cooldown_steps),
            steps=jnp.float32(config.steps),
            final_lr_fraction=jnp.float32(settings.final_lr_fraction),
            kind=jnp.int32(SCHEDULES.index(kind)),
        )

    def at(self, step: jax.Array) -> jax.Array:
        """The learning rate of update number `step`, counted from 0; no update has a rate of zero."""
        now = step.astype(jnp.float32)
        rise = jnp.minimum(1.0, (now + 1) / jnp.maximum(1.0, self.warmup_steps))
        decay = _share(now - self.warmup_steps, self.steps - self.warmup_steps)
        cooldown = _share(now - (self.steps - self.cooldown_steps), self.cooldown_steps)
        to_floor = jnp.stack(
            [
                0.5 * (1 + jnp.cos(jnp.pi * decay)),
                1 - decay,
                jnp.ones_like(decay),
                jnp.ones_like(decay),
                1 - jnp.sqrt(cooldown),
                1 - cooldown,
            ]
        )[self.kind]
        since_warmup = jnp.sqrt(jnp.maximum(1.0, self.warmup_steps) / jnp.maximum(now + 1, self.warmup_steps))
        falling = jnp.where(self.kind == SCHEDULES.index("inverse-sqrt"), since_warmup, 1.0)
        return self.peak_lr * rise * falling * (self.final_lr_fraction + (1 - self.final_lr_fraction) * to_floor)


def _share(done: jax.Array, of: jax.Array) -> jax.Array:
    return jnp.clip(done / jnp.maximum(1.0, of), 0.0, 1.0)


@flax.struct.dataclass
class Hyperparameters:
    """What a step takes as numbers, so that they are not compiled in."""

    schedule: Schedule
    weight_decay: jax.Array
    divergence_nats: jax.Array
    dropout_key: jax.Array
    """Every step folds its number into it."""

    @classmethod
    def of(cls, config: RunConfig) -> "Hyperparameters":
        """The hyperparameters of a run."""
        return cls(
            schedule=Schedule.of(config),
            weight_decay=jnp.float32(config.optimizer.weight_decay),
            divergence_nats=jnp.float32(config.divergence_nats),
            dropout_key=jax.random.key(config.seed),
        )


def make_optimizer(config: RunConfig) -> optax.GradientTransformation:
    """Gradient -> direction, which `apply` multiplies by the rate: clipping by the global norm, then the optimizer.

    Adam's epsilon is scaled per parameter by dividing its gradient: m / (sqrt(v) + k eps) is the same thing.
    """
    settings, table = config.optimizer, trained(parameter_table(config.model), config.model)
    clip = [] if settings.clip_norm is None else [optax.clip_by_global_norm(settings.clip_norm)]
    over_epsilon = {name: 1 / row.epsilon_multiplier for name, row in table.items()}
    scale = [] if set(over_epsilon.values()) == {1.0} else [_multiplied(over_epsilon)]
    return optax.chain(*clip, *scale, _direction(settings, table))


def _multiplied(factors: dict[str, float]) -> optax.GradientTransformation:
    return optax.stateless(lambda grads, _: {name: factors[name] * grad for name, grad in grads.items()})


def _direction(settings: OptimizerConfig, table: dict[str, ParameterSpec]) -> optax.GradientTransformation:
    adam = optax.scale_by_adam(b1=settings.beta1, b2=settings.beta2, eps=settings.epsilon)
    if settings.kind in ("adamw", "adam"):
        return adam
    if settings.kind == "sgd":
        return optax.trace(decay=settings.momentum)
    if settings.kind == "rmsprop":
        return optax.scale_by_rms(decay=settings.beta2, eps=settings.epsilon)
    if settings.kind == "lion":
        return optax.scale_by_lion(b1=settings.beta1, b2=settings.beta2)
    if settings.kind == "adafactor":  # Shazeer and Stern 2018, algorithm 4 with a given rate
        parts = optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms()
        return _as_matrices(optax.chain(*parts), table)
    return _muon(settings, adam, table)


def _muon(
    settings: OptimizerConfig, adam: optax.GradientTransformation, table: dict[str, ParameterSpec]
) -> optax.GradientTransformation:
    """Muon on the matrices of the layers, queries, keys and values each for itself; `adam` on the rest."""
    axes = {
        name: optax.contrib.MuonDimensionNumbers(row.inputs, row.outputs)
        if row.role == "hidden"
        else optax.MaskedNode()
        for name, row in table.items()
    }
    muon = optax.contrib.scale_by_muon(beta=settings.momentum, weight_dimension_numbers=axes)
    labels = {name: "muon" if row.role == "hidden" else "adam" for name, row in table.items()}
    sizes = {name: _muon_size(row) if row.role == "hidden" else 1.0 for name, row in table.items()}
    return optax.chain(optax.partition({"muon": muon, "adam": adam}, labels), _multiplied(sizes))


def _muon_size(row: ParameterSpec) -> float:
    """What an orthogonal matrix is multiplied by, so that its entries have the size `MUON_RMS`."""
    inputs, outputs = (math.prod(row.shape[axis] for axis in axes) for axes in (row.inputs, row.outputs))
    return MUON_RMS * math.sqrt(max(inputs, outputs))


def _as_matrices(inner: optax.GradientTransformation, table: dict[str, ParameterSpec]) -> optax.GradientTransformation:
    """`inner` with every matrix as [matrices, inputs, outputs], which is what a factored second moment is made of."""

    def matrices(values: Params) -> Params:
        return {name: _matrices(value, table[name]) for name, value in values.items()}

    def update(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
        updates, state = inner.update(matrices(grads), state, matrices(params))
        return {name: _from_matrices(update, table[name]) for name, update in updates.items()}, state

    return optax.GradientTransformation(lambda params: inner.init(matrices(params)), update)


def _matrix_axes(row: ParameterSpec) -> tuple[int, ...]:
    inner = row.inputs + row.outputs
    return tuple(axis for axis in range(len(row.shape)) if axis not in inner) + inner


def _matrices(value: jax.Array, row: ParameterSpec) -> jax.Array:
    if row.role == "vector":
        return value
    inputs, outputs = (math.prod(row.shape[axis] for axis in axes) for axes in (row.inputs, row.outputs))
    return value.transpose(_matrix_axes(row)).reshape(-1, inputs, outputs)


def _from_matrices(value: jax.Array, row: ParameterSpec) -> jax.Array:
    if row.role == "vector":
        return value
    order = _matrix_axes(row)
    there = value.reshape([row.shape[axis] for axis in order])
    return there.transpose([order.index(axis) for axis in range(len(order))])


def apply(
    params: Params, directions: Params, learning_rate: jax.Array, hyper: Hyperparameters, model: ModelConfig
) -> Params:
    """Parameters after one update: w - rate k_w (direction + decay d_w w), with the multipliers k, d of the table.

    Decay is decoupled from the gradient (Loshchilov and Hutter 2019). Parameters without a direction stay.
    """
    table = parameter_table(model)

    def moved(name: str) -> jax.Array:
        row, value = table[name], params[name]
        direction = directions[name] + hyper.weight_decay * row.decay_multiplier * value
        return (value - learning_rate * row.lr_multiplier * direction).astype(value.dtype)

    return {name: moved(name) if name in directions else value for name, value in params.items()}
