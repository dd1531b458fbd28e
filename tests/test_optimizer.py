"""Schedules, and every optimizer against optax's own or its published rule."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.lm.model.parameters import parameter_table
from lmscale.lm.model.transformer import token_losses
from lmscale.lm.objectives import make_objective
from lmscale.lm.train.optimizer import Hyperparameters, Schedule, apply, make_optimizer
from lmscale.lm.train.step import init_state, train_step

MODEL = ModelConfig(width=8, layers=1, heads=1, vocab=16, context=8)


def run(steps: int = 100, **changed: object) -> RunConfig:
    optimizer = OptimizerConfig(**{"peak_lr": 0.01, "batch_sequences": 2, **changed})
    return RunConfig(model=MODEL, optimizer=optimizer, tokens=steps * 2 * MODEL.context)


at = jax.jit(Schedule.at)


def rates(config: RunConfig) -> np.ndarray:
    return np.asarray(at(Schedule.of(config), jnp.arange(config.steps)))


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


def test_inverse_square_root() -> None:
    """Vaswani 2017, equation 3, scaled to its peak: rate = peak sqrt(warmup / step)."""
    learning_rates = rates(run(100, schedule="inverse-sqrt", warmup_steps=25, final_lr_fraction=0.5))
    np.testing.assert_allclose(learning_rates[25:], 0.01 * np.sqrt(25 / np.arange(26, 101)), rtol=1e-5)
    assert learning_rates[24] == pytest.approx(0.01) and learning_rates[99] == pytest.approx(0.005)


@pytest.mark.parametrize(("cooldown", "half_way"), [("linear", 0.5), ("1-sqrt", 1 - math.sqrt(0.5))])
def test_warmup_stable_decay(cooldown: str, half_way: float) -> None:
    """Held at the peak until the cooldown, which falls as Haegele 2024, section 3, has it."""
    learning_rates = rates(run(100, schedule="wsd", cooldown=cooldown, cooldown_fraction=0.4, final_lr_fraction=0.1))
    np.testing.assert_allclose(learning_rates[10:61], 0.01, rtol=1e-6)
    assert learning_rates[80] == pytest.approx(0.01 * (0.1 + 0.9 * half_way), rel=1e-5)
    assert np.all(np.diff(learning_rates[60:]) < 0) and 0.001 < learning_rates[99] < 0.0015


def test_warmup_in_steps_takes_the_place_of_the_fraction() -> None:
    assert [run(100, warmup_steps=steps).warmup_steps for steps in (None, 0, 7, 500)] == [10, 0, 7, 100]
    assert rates(run(100, warmup_steps=4))[3] == pytest.approx(0.01)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "inverse-sqrt", "wsd"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_no_step_is_wasted_on_a_rate_of_zero(steps: int, warmup: float, schedule: str) -> None:
    all_rates = rates(run(steps, schedule=schedule, warmup_fraction=warmup))
    assert np.all(all_rates > 0) and np.all(all_rates <= np.float32(0.01))


@pytest.mark.parametrize(
    ("settings", "last"),
    [
        ({"schedule": "cosine"}, 0.1 + 0.9 * math.sin(math.pi / 16) ** 2),
        ({"schedule": "linear"}, 0.1 + 0.9 / 8),
        ({"schedule": "constant"}, 1.0),
        ({"schedule": "inverse-sqrt"}, math.sqrt(2 / 10)),
        ({"schedule": "wsd", "cooldown_fraction": 0.4}, 0.1 + 0.9 * (1 - math.sqrt(3 / 4))),
        ({"schedule": "wsd", "cooldown_fraction": 0.4, "cooldown": "linear"}, 0.1 + 0.9 / 4),
    ],
)
def test_first_and_last_rates_are_those_that_the_settings_describe(settings: dict[str, Any], last: float) -> None:
    """Two of ten updates warm up: from half of the peak to the peak, with which the decay begins too. The last update
    is one short of the floor, by the formulas at `OptimizerConfig.final_lr_fraction`."""
    all_rates = rates(run(10, peak_lr=1.0, final_lr_fraction=0.1, warmup_fraction=0.2, **settings))
    assert all_rates[:2] == pytest.approx([0.5, 1.0])
    assert all_rates[2] == pytest.approx(math.sqrt(2 / 3) if settings["schedule"] == "inverse-sqrt" else 1.0)
    assert all_rates[-1] == pytest.approx(last, rel=1e-6)


def random_gradients(scale: float) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {
        name: jnp.asarray(scale * rng.standard_normal(row.shape), jnp.float32)
        for name, row in parameter_table(MODEL).items()
    }


def random_parameters() -> dict[str, jax.Array]:
    return random_gradients(1.0)


THEIRS: dict[str, Any] = {
    "adamw": lambda rate, mask: optax.adamw(rate, b1=0.8, b2=0.95, eps=1e-8, weight_decay=0.3, mask=mask),
    "adam": lambda rate, mask: optax.adam(rate, b1=0.8, b2=0.95, eps=1e-8),
    "sgd": lambda rate, mask: optax.chain(
        optax.trace(0.9), optax.add_decayed_weights(0.3, mask), optax.scale_by_learning_rate(rate)
    ),
    "rmsprop": lambda rate, mask: optax.chain(
        optax.scale_by_rms(decay=0.95, eps=1e-8),
        optax.add_decayed_weights(0.3, mask),
        optax.scale_by_learning_rate(rate),
    ),
    "lion": lambda rate, mask: optax.lion(rate, b1=0.8, b2=0.95, weight_decay=0.3, mask=mask),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", THEIRS)
def test_the_whole_step_is_optax_with_the_same_schedule(kind: str) -> None:
    decay = 0.0 if kind == "adam" else 0.3
    config = run(
        6, kind=kind, peak_lr=0.02, clip_norm=0.2, weight_decay=decay, warmup_fraction=0.3, beta1=0.8, momentum=0.9
    )
    schedule = optax.join_schedules(
        [lambda step: 0.02 * (step + 1) / 2, optax.cosine_decay_schedule(0.02, decay_steps=4)], boundaries=[2]
    )
    decayed = {name: "norm" not in name for name in parameter_table(MODEL)}
    theirs = optax.chain(optax.clip_by_global_norm(0.2), THEIRS[kind](schedule, decayed))
    optimizer = make_optimizer(config)
    params = random_parameters()
    state = init_state(config, optimizer, jax.random.key(0)).replace(params=params, opt_state=optimizer.init(params))
    step = jax.jit(partial(train_step, config, make_objective(config), optimizer))

    @jax.jit
    def their_step(params: dict, opt_state: optax.OptState, tokens: jax.Array) -> tuple[dict, optax.OptState]:
        grads = jax.grad(lambda params: token_losses(params, tokens, MODEL)[0].mean())(params)
        updates, opt_state = theirs.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = theirs.init(params)
    for number in range(config.steps):
        tokens = np.random.default_rng(number).integers(0, MODEL.vocab, (2, MODEL.context + 1), np.int32)
        state, metrics = step(state, tokens, Hyperparameters.of(config))
        params, opt_state = their_step(params, opt_state, tokens)
        assert float(metrics.learning_rate) == pytest.approx(float(schedule(number)), rel=1e-5)
        assert float(metrics.grad_norm) > 0.2  # so that clipping is at work
    assert int(state.step) == config.steps
    for name, value in params.items():
        np.testing.assert_allclose(state.params[name], value, rtol=1e-4, atol=1e-5)


def directions(config: RunConfig, grads: dict[str, jax.Array], times: int = 1) -> dict[str, np.ndarray]:
    """What the optimizer makes of the same gradient, given several times."""
    optimizer, params = make_optimizer(config), random_parameters()
    state, updates, update = optimizer.init(params), grads, jax.jit(optimizer.update)
    for _ in range(times):
        updates, state = update(grads, state, params)
    return {name: np.asarray(value) for name, value in updates.items()}


def test_muon_makes_every_matrix_of_the_layers_orthogonal() -> None:
    """All singular values alike and the size of .2 of a rate (Liu 2025, equation 4), queries, keys and values each for
    itself; the rest moves as under Adam."""
    grads = random_gradients(1.0)
    muon, adam = directions(run(kind="muon", clip_norm=None), grads), directions(run(clip_norm=None), grads)
    for name, row in parameter_table(MODEL).items():
        if row.role != "hidden":
            np.testing.assert_allclose(muon[name], adam[name], rtol=1e-5)
            continue
        others = tuple(axis for axis in range(len(row.shape)) if axis not in row.inputs + row.outputs)
        matrices = muon[name].transpose(others + row.inputs + row.outputs)
        inputs = math.prod(row.shape[axis] for axis in row.inputs)
        outputs = math.prod(row.shape[axis] for axis in row.outputs)
        for matrix in matrices.reshape(-1, inputs, outputs):
            singular = np.linalg.svd(matrix, compute_uv=False)
            assert singular.max() < 2 * singular.min(), name
            assert np.sqrt(np.square(matrix).mean()) == pytest.approx(0.2, rel=0.2), name
    assert muon["attention_qkv"].shape[3] == 3


def test_adafactor_keeps_a_row_and_a_column_of_a_large_matrix() -> None:
    """Shazeer and Stern 2018: n + m numbers for n x m, an update whose size is at most that of the parameter."""
    model = ModelConfig(width=128, layers=2, heads=2, vocab=256, context=8)
    config = RunConfig(
        model=model,
        optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=2, kind="adafactor"),
        tokens=16,
    )
    optimizer, table = make_optimizer(config), parameter_table(model)
    params = {name: np.full(row.shape, 0.5, np.float32) for name, row in table.items()}
    state_size = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(optimizer.init, params)))
    assert state_size < 0.06 * sum(value.size for value in params.values())
    grads = {name: np.full(row.shape, 3, np.float32) for name, row in table.items()}
    first_update = jax.jit(lambda grads, params: optimizer.update(grads, optimizer.init(params), params)[0])
    for name, update in first_update(grads, params).items():
        assert update.shape == params[name].shape
        np.testing.assert_allclose(update, 0.5, rtol=1e-3, err_msg=name)


@pytest.mark.long
def test_matrices_and_back() -> None:
    from lmscale.lm.train.optimizer import _from_matrices, _matrices

    for name, row in parameter_table(ModelConfig(width=16, layers=2, heads=4, kv_heads=2)).items():
        value = jnp.arange(float(math.prod(row.shape))).reshape(row.shape)
        there = _matrices(value, row)
        np.testing.assert_array_equal(_from_matrices(there, row), value, err_msg=name)
        if name == "attention_qkv":  # [L, D, G, P, K]: one matrix for each layer and projection of a group
            assert there.shape == (2 * 4, 16, 2 * 4)
            np.testing.assert_array_equal(there[5], value[1, :, :, 1].reshape(16, 8))


def test_decay_touches_matrices_only() -> None:
    config = run(weight_decay=0.25)
    params = {name: jnp.ones(row.shape) for name, row in parameter_table(MODEL).items()}
    nothing = {name: jnp.zeros(row.shape) for name, row in parameter_table(MODEL).items()}
    moved = apply(params, nothing, jnp.float32(0.1), Hyperparameters.of(config), MODEL)
    for name, row in parameter_table(MODEL).items():
        expected = 1.0 if row.role == "vector" else 1 - 0.1 * 0.25
        np.testing.assert_allclose(moved[name], expected, rtol=1e-6, err_msg=name)


def test_rates_and_epsilons_are_those_of_the_table() -> None:
    """Eight times the base width: hidden matrices move an eighth as far, and Adam's epsilon is eight times smaller."""
    wide = ModelConfig(
        width=8, layers=1, heads=1, vocab=16, context=8, parametrization="mup", base_width=1, base_head_width=8
    )
    config = RunConfig(
        model=wide, optimizer=OptimizerConfig(peak_lr=0.1, batch_sequences=2, epsilon=1.0, clip_norm=None), tokens=16
    )
    grads = random_gradients(1.0)
    updates = directions(config, grads)
    for name, grad in grads.items():
        np.testing.assert_allclose(updates[name], grad / (np.abs(grad) + 1 / 8), rtol=1e-5, err_msg=name)
    ones = {name: jnp.ones(row.shape) for name, row in parameter_table(wide).items()}
    hyper = Hyperparameters.of(config).replace(weight_decay=jnp.float32(0))
    moved = apply({name: 0 * value for name, value in ones.items()}, ones, jnp.float32(0.1), hyper, wide)
    for name, row in parameter_table(wide).items():
        np.testing.assert_allclose(moved[name], -0.1 / 8 if row.role == "hidden" else -0.1, rtol=1e-6, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_large_gradients_are_clipped_as_one_vector(clip_norm: float | None) -> None:
    """With an epsilon far above the gradient, Adam's first update is the gradient over epsilon."""
    grads = random_gradients(3.0)
    updates = directions(run(clip_norm=clip_norm, epsilon=1e6), grads)
    norm = float(optax.tree.norm(grads))
    assert norm > 10
    shrunk = 1e6 * float(optax.tree.norm(updates))
    assert shrunk == pytest.approx(norm if clip_norm is None else 1.0, rel=1e-3)
    ratio = updates["mlp_out"] / np.asarray(grads["mlp_out"])
    np.testing.assert_allclose(ratio, ratio.ravel()[0] * np.ones_like(ratio), rtol=1e-3)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"kind": "adam"}, "adam does not decay weights; set weight_decay = 0, or kind = 'adamw'"),
        ({"kind": "adamx", "weight_decay": 0.0}, "one of 'adamw', 'adam'"),
        ({"momentum": 1.0}, "momentum = 1.0: must be at least 0 and below 1"),
        ({"micro_batches": 3, "batch_sequences": 8}, "cannot be cut into micro_batches = 3 equal parts; .* is 2"),
        ({"warmup_steps": -1}, "warmup_steps = -1: must not be negative"),
        ({"z_loss": -1e-4}, "z_loss = -0.0001: must not be negative"),
    ],
)
def test_impossible_settings_are_refused(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        run(**changed)


def test_parametrizations_that_an_optimizer_does_not_have() -> None:
    wide = ModelConfig(width=8, layers=1, heads=1, context=8, parametrization="mup", base_width=4)
    with pytest.raises(UserError, match="which 'sgd' does not have; take 'adamw', 'lion' or 'muon'"):
        RunConfig(model=wide, optimizer=OptimizerConfig(peak_lr=1, batch_sequences=1, kind="sgd"), tokens=8)
