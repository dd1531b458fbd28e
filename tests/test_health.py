"""Divergence and spikes, detected on the device from the losses alone."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.lm.train.health import Health, healthy, trouble, watch


def after(losses: np.ndarray, norms: np.ndarray | None = None, limit: float = 2.0) -> list[Health]:
    """Health after every step."""

    def step(health: Health, given: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Health, Health]:
        health = watch(health, *given, jnp.float32(limit))
        return health, health

    norms = np.ones(len(losses)) if norms is None else norms
    given = jnp.arange(len(losses)), jnp.asarray(losses, jnp.float32), jnp.asarray(norms, jnp.float32)
    _, stacked = jax.jit(lambda given: jax.lax.scan(step, healthy(), given))(given)
    return [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(len(losses))]


def falling(steps: int = 400) -> np.ndarray:
    """A healthy curve with noise of .05 nats."""
    noise = 0.05 * np.random.default_rng(0).standard_normal(steps)
    return 1.5 + 4 * np.exp(-np.arange(steps) / 30) + noise


@pytest.mark.long
def test_a_healthy_run() -> None:
    last = after(falling())[-1]
    assert trouble(last, 2.0) is None
    assert int(last.spikes) == 0
    assert float(last.smoothed) == pytest.approx(1.5, abs=0.05)
    assert float(last.variance) ** 0.5 == pytest.approx(0.05, rel=0.4)


@pytest.mark.long
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_step_that_is_not_finite_is_named(bad: float) -> None:
    losses, norms = falling(50), np.ones(50)
    losses[30:] = bad
    norms[20] = bad
    assert trouble(after(losses)[29], 2.0) is None
    assert trouble(after(losses)[-1], 2.0) == ("the training loss was not finite", 31)
    assert trouble(after(losses, norms)[-1], 2.0) == ("the gradient norm was not finite", 21)


@pytest.mark.long
def test_a_loss_that_rises_and_stays_has_diverged() -> None:
    losses = falling()
    losses[300:] += 3
    problem = trouble(after(losses)[-1], 2.0)
    assert problem is not None and problem.reason == "the smoothed training loss rose 2 nats above its lowest"
    assert 310 < problem.step < 340  # 2 of 3 nats: 1 - .95^k = 2/3 at k = 22
    assert trouble(after(losses, limit=4.0)[-1], 4.0) is None


def test_a_spike_is_counted_and_forgiven() -> None:
    losses = falling()
    losses[[200, 300]] += 5
    states = after(losses)
    assert trouble(states[-1], 2.0) is None
    assert [i for i, (a, b) in enumerate(pairwise(states), 1) if int(b.spikes) > int(a.spikes)] == [200, 300]


@pytest.mark.long
def test_a_wild_beginning_is_no_divergence() -> None:
    """The first steps of a large learning rate: above the first loss, then down."""
    losses = falling()
    losses[1:10] += 3
    assert trouble(after(losses)[-1], 2.0) is None
