import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmscale.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.model import parameter_table, token_losses
from lmscale.optimizer import Schedule, make_optimizer
from lmscale.train import TrainState, train_step

MODEL = ModelConfig(width=8, layers=1, heads=1, vocab=16, context=8)


def run(steps: int = 100, **changed: object) -> RunConfig:
    optimizer = OptimizerConfig(**{"peak_lr": 0.01, "batch_sequences": 2, **changed})
    return RunConfig(model=MODEL, optimizer=optimizer, tokens=steps * 2 * MODEL.context)


def rates(config: RunConfig) -> np.ndarray:
    return np.asarray(jax.jit(lambda plan, step: plan.at(step))(Schedule.of(config), jnp.arange(config.steps)))


def test_warmup_rises_in_equal_parts_to_the_peak() -> None:
    rise = rates(run(100, warmup_fraction=0.2))[:21]
    np.testing.assert_allclose(rise[:20], 0.01 * np.arange(1, 21) / 20, rtol=1e-6)
    np.testing.assert_allclose(rise[20], 0.01, rtol=1e-6)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_half_way_down_and_at_the_end(final: float) -> None:
    half_way = 10 + 45
    for schedule in ("cosine", "linear"):
        fall = rates(run(100, schedule=schedule, final_lr_fraction=final))
        assert fall[half_way] == pytest.approx(0.01 * (1 + final) / 2, rel=1e-5)
        assert np.all(np.diff(fall[10:]) < 0)
        one_step = 1 / 90 if schedule == "linear" else (1 - math.cos(math.pi / 90)) / 2
        assert fall[-1] == pytest.approx(0.01 * (final + (1 - final) * one_step), rel=1e-3)
    assert set(rates(run(100, schedule="constant", final_lr_fraction=final))[10:]) == {np.float32(0.01)}


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_no_step_is_wasted_on_a_rate_of_zero(steps: int, warmup: float, schedule: str) -> None:
    all_rates = rates(run(steps, schedule=schedule, warmup_fraction=warmup))
    assert np.all(all_rates > 0) and np.all(all_rates <= np.float32(0.01))


def random_gradients(scale: float) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {
        name: jnp.asarray(scale * rng.standard_normal(row.shape), jnp.float32)
        for name, row in parameter_table(MODEL).items()
    }


def random_parameters() -> dict[str, jax.Array]:
    return random_gradients(1.0)


def test_the_whole_step_is_optax_adamw_with_the_same_schedule() -> None:
    config = run(10, peak_lr=0.02, clip_norm=0.2, weight_decay=0.3, warmup_fraction=0.3, beta1=0.8)
    schedule = optax.join_schedules(
        [lambda step: 0.02 * (step + 1) / 3, optax.cosine_decay_schedule(0.02, decay_steps=7)], boundaries=[3]
    )
    decayed = {name: "norm" not in name for name in parameter_table(MODEL)}
    theirs = optax.chain(
        optax.clip_by_global_norm(0.2),
        optax.adamw(schedule, b1=0.8, b2=0.95, eps=1e-8, weight_decay=0.3, mask=decayed),
    )
    optimizer = make_optimizer(config)
    params = random_parameters()
    state = TrainState(jnp.int32(0), params, optimizer.init(params))
    step = jax.jit(partial(train_step, config, optimizer))

    @jax.jit
    def their_step(params: dict, opt_state: optax.OptState, tokens: jax.Array) -> tuple[dict, optax.OptState]:
        grads = jax.grad(lambda params: token_losses(params, tokens, MODEL).mean())(params)
        updates, opt_state = theirs.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = theirs.init(params)
    for number in range(config.steps):
        tokens = np.random.default_rng(number).integers(0, MODEL.vocab, (2, MODEL.context + 1), np.int32)
        state, metrics = step(state, tokens, Schedule.of(config))
        params, opt_state = their_step(params, opt_state, tokens)
        assert float(metrics.learning_rate) == pytest.approx(float(schedule(number)), rel=1e-5)
        assert float(metrics.grad_norm) > 0.2  # so that clipping is at work
    assert int(state.step) == config.steps
    for name, value in params.items():
        np.testing.assert_allclose(state.params[name], value, rtol=1e-5, atol=1e-6)


def test_decay_touches_matrices_only() -> None:
    optimizer = make_optimizer(run(weight_decay=0.25))
    params = {name: jnp.ones(row.shape) for name, row in parameter_table(MODEL).items()}
    nothing = {name: jnp.zeros(row.shape) for name, row in parameter_table(MODEL).items()}
    updates, _ = jax.jit(optimizer.update)(nothing, optimizer.init(params), params)
    for name, row in parameter_table(MODEL).items():
        assert np.all(np.asarray(updates[name]) == (0.25 if row.is_matrix else 0.0)), name


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_large_gradients_are_clipped_as_one_vector(clip_norm: float | None) -> None:
    """With an epsilon far above the gradient, Adam's first update is the gradient over epsilon."""
    optimizer = make_optimizer(run(clip_norm=clip_norm, epsilon=1e6, weight_decay=0.0))
    grads = random_gradients(3.0)
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(grads), grads)
    norm = float(optax.tree.norm(grads))
    assert norm > 10
    shrunk = 1e6 * float(optax.tree.norm(updates))
    assert shrunk == pytest.approx(norm if clip_norm is None else 1.0, rel=1e-3)
    ratio = np.asarray(updates["mlp_out"]) / np.asarray(grads["mlp_out"])
    np.testing.assert_allclose(ratio, ratio.ravel()[0] * np.ones_like(ratio), rtol=1e-3)
