"""One update: the state of a run, the pure function that moves it on, and its compiled form on a mesh."""

from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from lmscale.core.config import ModelConfig, Reinforcement, RunConfig
from lmscale.lm.devices.sharding import batch_sharding, constrain, replicated, shardings
from lmscale.lm.model.lora import frozen, trained
from lmscale.lm.model.parameters import Params, init, parameter_table
from lmscale.lm.objectives import Batch, ExpertLoad, Objective, Reference, make_objective
from lmscale.lm.train.health import Health, healthy, watch, watch_kl, watch_routing
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
    def eval_params(self) -> Params:
        """The parameters that are evaluated: the averaged ones where there are any."""
        return self.params if self.ema is None else self.ema


@flax.struct.dataclass
class Metrics:
    """Scalars of one step, left on the device until they are logged."""

    loss_nats: jax.Array
    """Mean cross-entropy of the batch's scored tokens, without z-loss."""
    grad_norm: jax.Array
    learning_rate: jax.Array
    health: Health
    reported: dict[str, jax.Array]
    """Means of what the objective reports besides."""
    load: ExpertLoad | None
    """Sums over the batch, of a mixture of experts."""


def init_state(config: RunConfig, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """The state before the first step, of random parameters."""
    return state_from(config, optimizer, init(config.model, key))


def state_from(config: RunConfig, optimizer: optax.GradientTransformation, params: Params) -> TrainState:
    """The state before the first step, of given parameters."""
    ema = None if config.optimizer.ema_decay is None else params
    return TrainState(jnp.int32(0), params, optimizer.init(trained(params, config.model)), ema, healthy(config.model))


def train_step(
    config: RunConfig,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    hyper: Hyperparameters,
    reference: Reference = (),
) -> tuple[TrainState, Metrics]:
    """One update from one global batch. Pure."""
    key = jax.random.fold_in(hyper.dropout_key, state.step)
    means, grads = means_and_gradient(config, objective, state.params, reference, batch, key)
    directions, opt_state = optimizer.update(grads, state.opt_state, trained(state.params, config.model))
    learning_rate = hyper.schedule.at(state.step)
    params = apply(state.params, directions, learning_rate, hyper, config.model)
    if "router_bias" in params and means.load is not None and config.model.lora is None:
        params["router_bias"] = balanced(params["router_bias"], means.load.counts_LE, config.model)
    ema, decay = None, config.optimizer.ema_decay
    if state.ema is not None and decay is not None:
        averaged = trained(state.ema, config.model)
        ema = frozen(params, config.model) | optax.incremental_update(
            trained(params, config.model), averaged, 1 - decay
        )
    grad_norm = optax.tree.norm(grads)
    health = watch(state.health, state.step, means.loss, grad_norm, hyper.divergence_nats)
    if isinstance(config.objective, Reinforcement) and "kl_nats" in means.reported:
        health = watch_kl(health, state.step, means.reported["kl_nats"], config.objective.kl_limit_nats)
    if means.load is not None:
        health = watch_routing(health, state.step, means.load.counts_LE, config.model.experts_per_token)
    return TrainState(state.step + 1, params, opt_state, ema, health), Metrics(
        means.loss, grad_norm, learning_rate, health, means.reported, means.load
    )


def balanced(bias_LE: jax.Array, counts_LE: jax.Array, model: ModelConfig) -> jax.Array:
    """The bias of the routers after a batch: up by the rate for an expert with fewer tokens than the mean of its layer,
    down for one with more (Wang 2024, algorithm 1)."""
    mean_L1 = counts_LE.sum(axis=1, keepdims=True) / model.experts
    return bias_LE + model.router.bias_rate * jnp.sign(mean_L1 - counts_LE).astype(bias_LE.dtype)


class Means(NamedTuple):
    """An objective's terms over their weight."""

    loss: jax.Array
    reported: dict[str, jax.Array]
    load: ExpertLoad | None
    """The sums themselves."""


class _Sums(NamedTuple):
    """An objective's terms but for the one that is differentiated."""

    loss: jax.Array
    weight: jax.Array
    reported: dict[str, jax.Array]
    load: ExpertLoad | None


def means_and_gradient(
    config: RunConfig, objective: Objective, params: Params, reference: Reference, batch: Batch, key: jax.Array
) -> tuple[Means, Params]:
    """The means of a batch, and the gradient of its mean objective by the parameters that are trained.

    Micro-batches add up sums over examples, so that the mean is that of the whole batch however their weights differ.
    """

    still = frozen(params, config.model)
    params = trained(params, config.model)

    def summed(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, _Sums]:
        terms = objective(still | params, reference, batch, key)
        return terms.objective, _Sums(terms.loss, terms.weight, terms.reported, terms.load)

    gradient = jax.grad(summed, has_aux=True)
    micro_batches = config.optimizer.micro_batches
    if micro_batches == 1:
        grads, sums = gradient(params, batch, key)
    else:
        # Micro-batch m takes the examples m, m + M, ...: every device has its share of each.
        stacked = jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)
        first = jax.tree.map(lambda x: x[0], stacked)
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, first, key))

        def add(total: tuple[Params, _Sums], one: tuple[Batch, jax.Array]) -> tuple[tuple[Params, _Sums], None]:
            micro_batch = jax.tree.map(lambda x: constrain(x, "batch", *[None] * (x.ndim - 1)), one[0])
            return jax.tree.map(jnp.add, total, gradient(params, micro_batch, one[1])), None

        (grads, sums), _ = jax.lax.scan(add, zero, (stacked, jax.random.split(key, micro_batches)))
    weight = jnp.maximum(sums.weight, 1)
    reported = {name: value / weight for name, value in sums.reported.items()}
    means = Means(sums.loss / weight, reported, sums.load)
    return means, jax.tree.map(lambda grad: grad / weight, grads)


class Compiled(NamedTuple):
    """The jitted functions of a run, and where its state lives."""

    start: jax.stages.Wrapped
    """key -> state"""
    start_from: jax.stages.Wrapped
    """parameters -> state"""
    step: jax.stages.Wrapped
    """state, batch, hyperparameters, reference -> state, metrics. The state given is donated: its memory is reused."""
    state: TrainState
    """Shapes, types and placements of the state."""


def make_step(config: RunConfig, mesh: Mesh, objective: Objective | None = None, reference: Reference = ()) -> Compiled:
    """Initialisation and step of a run on a mesh; lower them under `jax.set_mesh(mesh)`.

    `objective` None takes the one that the configuration names; the arrays of `reference` say where they are placed.
    """
    optimizer = make_optimizer(config)
    shapes = jax.eval_shape(partial(init_state, config, optimizer), jax.random.key(0))
    placed = _placements(config, optimizer, shapes, mesh)
    everywhere = replicated(mesh)
    start = jax.jit(partial(init_state, config, optimizer), out_shardings=placed)
    start_from = jax.jit(partial(state_from, config, optimizer), out_shardings=placed)
    step = jax.jit(
        partial(train_step, config, objective or make_objective(config), optimizer),
        in_shardings=(placed, batch_sharding(mesh), everywhere, jax.tree.map(lambda x: x.sharding, reference)),
        out_shardings=(placed, everywhere),
        donate_argnums=0,
    )
    abstract = jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes, placed)
    return Compiled(start, start_from, step, abstract)


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
