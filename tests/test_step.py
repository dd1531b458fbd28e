"""One update: micro-batches, averaged weights, z-loss, dropout, health; every number of a run is an argument."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.model.transformer import token_losses
from lmscale.lm.objectives import make_objective
from lmscale.lm.train.optimizer import Hyperparameters, make_optimizer
from lmscale.lm.train.step import TrainState, init_state, make_step, means_and_gradient, train_step

MODEL = ModelConfig(width=8, layers=1, heads=1, vocab=16, context=8)


def run(steps: int = 5, model: ModelConfig = MODEL, seed: int = 0, **changed: Any) -> RunConfig:
    optimizer = OptimizerConfig(**{"peak_lr": 0.01, "batch_sequences": 8, **changed})
    return RunConfig(model=model, optimizer=optimizer, tokens=steps * 8 * model.context, seed=seed)


def batch(number: int = 0) -> np.ndarray:
    return np.random.default_rng(number).integers(0, MODEL.vocab, (8, MODEL.context + 1), np.int32)


def first_state(config: RunConfig) -> TrainState:
    return jax.jit(partial(init_state, config, make_optimizer(config)))(jax.random.key(0))


LOSSES = jax.jit(token_losses, static_argnames="config")


def stepped(config: RunConfig, steps: int) -> tuple[list[TrainState], list[Any]]:
    """States before and after every step, and the metrics."""
    optimizer = make_optimizer(config)
    states, metrics = [first_state(config)], []
    step = jax.jit(partial(train_step, config, make_objective(config), optimizer))
    for number in range(steps):
        state, step_metrics = step(states[-1], batch(number), Hyperparameters.of(config))
        states.append(state)
        metrics.append(step_metrics)
    return states, metrics


def gradient(config: RunConfig, tokens: np.ndarray) -> tuple[jax.Array, dict[str, jax.Array]]:
    params = first_state(config).params
    function = partial(means_and_gradient, config, make_objective(config))
    means, grads = jax.jit(function)(params, (), tokens, jax.random.key(1))
    return means.loss, grads


@pytest.mark.long
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_micro_batches_of_unequal_token_counts_give_the_gradient_of_the_whole(parts: int) -> None:
    """Half of the tokens are not scored, nearly all of them in the last rows: a mean of means would be wrong."""
    tokens = batch()
    tokens[4:, 2:] = -1
    (loss, grads), (whole_loss, whole) = (gradient(run(micro_batches=n), tokens) for n in (parts, 1))
    assert float(loss) == pytest.approx(float(whole_loss), rel=1e-6)
    for name, grad in whole.items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-4, atol=1e-7, err_msg=name)
    params = first_state(run()).params
    nats = np.asarray(LOSSES(params, tokens, MODEL)[0])
    assert float(loss) == pytest.approx(nats.sum() / (tokens[:, 1:] >= 0).sum(), rel=1e-5)


def test_micro_batches_are_no_part_of_a_runs_name() -> None:
    assert run(micro_batches=4).run_id == run().run_id


@pytest.mark.long
def test_z_loss_is_the_gradient_of_the_squared_log_partition() -> None:
    config = run(z_loss=0.1)
    params = first_state(config).params

    @jax.jit
    @jax.grad
    def penalty(params: dict[str, jax.Array]) -> jax.Array:
        return (token_losses(params, batch(), MODEL)[1] ** 2).mean()

    (loss, grads), (plain_loss, plain) = gradient(config, batch()), gradient(run(), batch())
    assert float(loss) == float(plain_loss)  # what is reported is the cross-entropy
    for name, extra in penalty(params).items():
        np.testing.assert_allclose(grads[name], plain[name] + 0.1 * extra, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.long
def test_averaged_weights() -> None:
    states, _ = stepped(run(ema_decay=0.75), 4)
    expected = states[0].params["mlp_in"]
    for state in states[1:]:
        expected = 0.75 * expected + 0.25 * state.params["mlp_in"]
    np.testing.assert_allclose(states[-1].ema["mlp_in"], expected, rtol=1e-5)
    assert states[-1].eval_params is states[-1].ema
    plain, _ = stepped(run(), 4)
    assert plain[-1].ema is None and plain[-1].eval_params is plain[-1].params
    np.testing.assert_array_equal(plain[-1].params["mlp_in"], states[-1].params["mlp_in"])


@pytest.mark.long
def test_dropout_is_another_at_every_step_and_the_same_again() -> None:
    config = run(model=ModelConfig(width=8, layers=1, heads=1, vocab=16, context=8, residual_dropout=0.3), peak_lr=1e-9)
    optimizer = make_optimizer(config)
    state, step = first_state(config), jax.jit(partial(train_step, config, make_objective(config), optimizer))
    losses = [
        float(step(state.replace(step=jnp.int32(number)), batch(), Hyperparameters.of(config))[1].loss_nats)
        for number in (0, 1, 0)
    ]
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.long
def test_health_goes_with_the_state() -> None:
    states, metrics = stepped(run(), 3)
    assert [int(state.step) for state in states] == [0, 1, 2, 3]
    assert float(states[3].health.lowest) <= min(float(m.loss_nats) for m in metrics[:1])
    broken = states[3].replace(params={**states[3].params, "mlp_in": jnp.nan * states[3].params["mlp_in"]})
    step = jax.jit(partial(train_step, run(), make_objective(run()), make_optimizer(run())))
    _, broken_metrics = step(broken, batch(), Hyperparameters.of(run()))
    assert (int(broken_metrics.health.code), int(broken_metrics.health.step)) == (1, 4)


@pytest.mark.long
@pytest.mark.parametrize(
    "changed",
    [
        {"peak_lr": 0.5},
        {"seed": 7},
        {"steps": 50},
        {"schedule": "wsd", "cooldown_fraction": 0.5},
        {"weight_decay": 0.01},
        {"warmup_steps": 3, "final_lr_fraction": 0.1},
    ],
    ids=str,
)
def test_runs_that_differ_in_numbers_alone_share_one_program(changed: dict[str, Any]) -> None:
    def program(config: RunConfig) -> str:
        mesh = make_mesh(config.mesh)
        compiled = make_step(config, mesh)
        tokens = jax.ShapeDtypeStruct((8, MODEL.context + 1), jnp.int32)
        with jax.set_mesh(mesh):
            return compiled.step.lower(compiled.state, tokens, Hyperparameters.of(config), ()).as_text()

    assert program(run(**changed)) == program(run())
    assert program(run(beta1=0.8)) != program(run())
