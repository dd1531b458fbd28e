"""One update: the state of a run, the pure function that moves it on, and its compiled form on a mesh."""

from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from lmscale.core.config import RunConfig
from lmscale.lm.devices.sharding import batch_sharding, constrain, replicated, shardings
from lmscale.lm.model.parameters import Params, init, parameter_table
from lmscale.lm.model.transformer import token_losses
from lmscale.lm.train.health import Health, healthy, watch
from lmscale.lm.train.optimizer import Hyperparameters, apply, make_optimizer


@flax.struct.dataclass
class TrainState:
    """All that a step changes."""

    step: jax.Array
    """Updates done, int32."""
    params: Params
    opt_state: optax.OptState
    ema: Params | None
    """Weights averaged over steps, where the run asks for them."""
    health: Health

    @property
    def validated(self) -> Params:
        """The parameters that are validated."""
        return self.params if self.ema is None else self.ema


@flax.struct.dataclass
class Metrics:
    """What a step says of itself; scalars, left on the device until they are logged."""

    loss_nats: jax.Array
    """Mean cross-entropy of the batch's tokens, without z-loss."""
    grad_norm: jax.Array
    learning_rate: jax.Array
    health: Health


def init_state(config: RunConfig, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """The state before the first step."""
    params = init(config.model, key)
    ema = None if config.optimizer.ema_decay is None else params
    return TrainState(jnp.int32(0), params, optimizer.init(params), ema, healthy())


def train_step(
    config: RunConfig,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    tokens_BS: jax.Array,
    hyper: Hyperparameters,
) -> tuple[TrainState, Metrics]:
    """One update from one global batch of token windows [B, context + 1]. Pure."""
    key = jax.random.fold_in(hyper.dropout_key, state.step)
    loss_nats, grads = mean_loss_and_gradient(config, state.params, tokens_BS, key)
    directions, opt_state = optimizer.update(grads, state.opt_state, state.params)
    learning_rate = hyper.schedule.at(state.step)
    params = apply(state.params, directions, learning_rate, hyper, config.model)
    ema, kept = None, config.optimizer.ema_decay
    if state.ema is not None and kept is not None:
        ema = optax.incremental_update(params, state.ema, 1 - kept)
    grad_norm = optax.tree.norm(grads)
    health = watch(state.health, state.step, loss_nats, grad_norm, hyper.divergence_nats)
    return TrainState(state.step + 1, params, opt_state, ema, health), Metrics(
        loss_nats, grad_norm, learning_rate, health
    )


class Sums(NamedTuple):
    """Over the scored tokens of some sequences."""

    nats: jax.Array
    tokens: jax.Array


def mean_loss_and_gradient(
    config: RunConfig, params: Params, tokens_BS: jax.Array, key: jax.Array
) -> tuple[jax.Array, Params]:
    """Mean cross-entropy over the scored tokens of a batch, and the gradient of the training loss.

    Micro-batches add up sums over tokens, so that the mean is that of the whole batch however their counts differ.
    """
    model, z_loss = config.model, config.optimizer.z_loss
    dropped = model.residual_dropout > 0 or model.attention_dropout > 0

    def summed(params: Params, tokens_BS: jax.Array, key: jax.Array) -> tuple[jax.Array, Sums]:
        nats_BT, log_z_BT = token_losses(params, tokens_BS, model, key if dropped else None)
        scored_BT = tokens_BS[:, 1:] >= 0
        objective = nats_BT + z_loss * jnp.where(scored_BT, log_z_BT, 0) ** 2 if z_loss else nats_BT
        return objective.sum(), Sums(nats_BT.sum(), scored_BT.sum())

    gradient = jax.grad(summed, has_aux=True)
    parts = config.optimizer.micro_batches
    if parts == 1:
        grads, sums = gradient(params, tokens_BS, key)
    else:
        # Part m takes the rows m, m + M, ...: every device has its share of every part.
        tokens_MBS = tokens_BS.reshape(-1, parts, tokens_BS.shape[1]).swapaxes(0, 1)
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, tokens_MBS[0], key))

        def add(total: tuple[Params, Sums], part: tuple[jax.Array, jax.Array]) -> tuple[tuple[Params, Sums], None]:
            tokens_BS = constrain(part[0], "batch", None)
            return jax.tree.map(jnp.add, total, gradient(params, tokens_BS, part[1])), None

        (grads, sums), _ = jax.lax.scan(add, zero, (tokens_MBS, jax.random.split(key, parts)))
    tokens = jnp.maximum(sums.tokens, 1)
    return sums.nats / tokens, jax.tree.map(lambda grad: grad / tokens, grads)


class Compiled(NamedTuple):
    """The jitted functions of a run, and where its state lives."""

    start: jax.stages.Wrapped
    """key -> state"""
    step: jax.stages.Wrapped
    """state, tokens, hyperparameters -> state, metrics. The state given is donated: its memory is used again."""
    state: TrainState
    """Shapes, types and placements of the state."""


def make_step(config: RunConfig, mesh: Mesh) -> Compiled:
    """Initialisation and step of a run on a mesh; lower them under `jax.set_mesh(mesh)`."""
    optimizer = make_optimizer(config)
    shapes = jax.eval_shape(partial(init_state, config, optimizer), jax.random.key(0))
    placed = _placements(config, optimizer, shapes, mesh)
    everywhere = replicated(mesh)
    start = jax.jit(partial(init_state, config, optimizer), out_shardings=placed)
    step = jax.jit(
        partial(train_step, config, optimizer),
        in_shardings=(placed, batch_sharding(mesh), everywhere),
        out_shardings=(placed, everywhere),
        donate_argnums=0,
    )
    like = jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes, placed)
    return Compiled(start, step, like)


def _placements(
    config: RunConfig, optimizer: optax.GradientTransformation, shapes: TrainState, mesh: Mesh
) -> TrainState:
    """Where each array of the state lives: what has a parameter's shape with it, the rest everywhere."""
    table, everywhere = parameter_table(config.model), replicated(mesh)
    params = shardings({name: (row.shape, row.axes) for name, row in table.items()}, mesh)

    def beside(path: tuple[Any, ...], moment: jax.ShapeDtypeStruct) -> NamedSharding:
        name = next((key.key for key in reversed(path) if isinstance(key, jax.tree_util.DictKey)), None)
        return params[name] if name in table and moment.shape == table[name].shape else everywhere

    opt_state = jax.tree_util.tree_map_with_path(beside, shapes.opt_state)
    health = jax.tree.map(lambda _: everywhere, shapes.health)
    return shapes.replace(  # type: ignore[attr-defined]
        step=everywhere, params=params, opt_state=opt_state, ema=shapes.ema and params, health=health
    )
