"""GRPO and Dr. GRPO against plain PyTorch, and against sums over every answer that a tiny model can give."""

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import objective_cases as cases
from helpers.golden_objectives import assert_golden, assert_golden_on_eight_devices, placed
from helpers.published import random_params

from lmscale.core.config import DataConfig, MeshConfig, ModelConfig, OptimizerConfig, Reinforcement, RunConfig
from lmscale.lm.devices.sharding import batch_sharding, make_mesh
from lmscale.lm.model.draw import draw
from lmscale.lm.model.transformer import logits, token_losses
from lmscale.lm.objectives import make_objective
from lmscale.lm.objectives.reinforcement import advantages, clipped_loss, k3
from lmscale.lm.train.sampled_answers import laid_out
from lmscale.lm.train.step import means_and_gradient


def objective_and_norm(name: str, mesh: MeshConfig | None = None, **changed: Any) -> tuple[float, float]:
    """The mean objective of the drawn answers of `objective_cases` and the norm of its gradient."""
    config = cases.reinforce_config(name, replace(cases.STUDENT, **changed.pop("model", {})), **changed)
    settings, arrays, params = config.objective, cases.answers(), cases.students_params()
    assert isinstance(settings, Reinforcement)
    relative = advantages(arrays["reward"].reshape(-1, settings.group), settings.advantage)
    batch = {name: arrays[name] for name in ("tokens", "scored", "reward")} | {"advantage": relative.ravel()}
    if settings.updates > 1:
        nats = jax.jit(partial(token_losses, config=cases.STUDENT))(params, np.maximum(arrays["tokens"], 0))[0]
        batch["drawn_log_p"] = arrays["moved"] - np.asarray(nats)
    devices = make_mesh(mesh or MeshConfig())
    both = placed(params, config.model, devices), placed(cases.teachers_params(), cases.TEACHER, devices)
    batch = jax.device_put(batch, batch_sharding(devices))
    with jax.set_mesh(devices):
        gradient = jax.jit(partial(means_and_gradient, config, make_objective(config, cases.TEACHER)))
        means, grads = gradient(*both, batch, jax.random.key(0))
    return float(means.loss), float(optax.tree.norm(grads))


@pytest.mark.long
@pytest.mark.parametrize("name", cases.REINFORCE_CASES)
def test_loss_and_gradient_are_those_of_plain_pytorch(name: str) -> None:
    assert_golden(name, objective_and_norm(name))


@pytest.mark.long
@pytest.mark.parametrize("name", ["grpo, second update", "dr-grpo"])
@pytest.mark.parametrize("changed", [{"micro_batches": 4}, {"model": {"loss_chunk": 7}}], ids=str)
def test_parts_of_a_batch_and_of_time_add_up(name: str, changed: dict[str, Any]) -> None:
    assert_golden(name, objective_and_norm(name, **changed))


@pytest.mark.long
def test_eight_devices_give_the_numbers_of_one() -> None:
    meshes = {"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"sequence": 4}
    assert_golden_on_eight_devices(__file__, ("grpo, second update", "dr-grpo"), *meshes)


@pytest.mark.long
def test_the_clip_takes_the_gradient_of_what_has_gone_far_enough() -> None:
    ratio = jnp.log(jnp.array([[0.5, 0.9, 1.1, 1.5]]))
    better, worse = (clipped_loss(ratio, jnp.full((1, 1), sign), 0.2) for sign in (1.0, -1.0))
    np.testing.assert_allclose(better[0], [[-0.5, -0.9, -1.1, -1.2]], rtol=1e-6)
    np.testing.assert_allclose(worse[0], [[0.8, 0.9, 1.1, 1.5]], rtol=1e-6)
    assert better[1].tolist() == [[False, False, False, True]] and worse[1].tolist() == [[True, False, False, False]]
    slope = jax.grad(lambda x: clipped_loss(x, jnp.ones((1, 1)), 0.2)[0].sum())(ratio)
    np.testing.assert_allclose(slope, [[-0.5, -0.9, -1.1, 0]], rtol=1e-6)


def test_advantages_are_against_the_group() -> None:
    rewards = np.array([[1.0, 0, 0, 1], [3, 3, 3, 3], [0, 0, 0, 4]])
    assert advantages(rewards, "dr-grpo").tolist() == [[0.5, -0.5, -0.5, 0.5], [0] * 4, [-1, -1, -1, 3]]
    relative = advantages(rewards, "grpo")
    np.testing.assert_allclose(relative[0], [1, -1, -1, 1], rtol=1e-3)
    np.testing.assert_allclose(relative[2], np.array([-1, -1, -1, 3]) / np.sqrt(3), rtol=1e-3)
    assert (relative[1] == 0).all(), "a group of equal rewards teaches nothing"


# From here on a model of four tokens and answers of at most three, of which there are forty.

END, ANSWER = 3, 3
TINY = ModelConfig(
    width=8, layers=1, heads=2, vocab=4, context=12, document_end=END, tied_embeddings=False, embedding_scale=1.0
)
PROMPT = np.array([END, 1, 0], np.int32)
ALL = [
    [*start, *end]
    for length in range(ANSWER + 1)
    for start in itertools.product(range(END), repeat=length)
    for end in ([[END]] if length < ANSWER else [[]])
]
"""Every answer: up to and with its end, or cut where it has three tokens."""
TOKENS, SCORED = laid_out(
    [PROMPT] * len(ALL), np.array([answer + [-1] * (ANSWER - len(answer)) for answer in ALL], np.int32), TINY.context
)
REWARDS = np.random.default_rng(1).normal(size=len(ALL)).astype(np.float32)


def tiny_params(seed: int) -> Any:
    """Random parameters, of which answers differ much in probability."""
    return random_params(TINY, seed)


def tiny_config(**objective: Any) -> RunConfig:
    settings = Reinforcement(**{"group": 2, "answer_tokens": ANSWER, "advantage": "dr-grpo", **objective})
    return RunConfig(
        model=TINY,
        optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=2),
        tokens=2 * TINY.context,
        data=DataConfig(source='synthetic:tasks(only="copy", length=2)'),
        objective=settings,
        init_from=cases.ID,
        reference=cases.ID if settings.kl_weight else None,
    )


def answer_log_p(params: Any) -> jax.Array:
    """ln p of every answer."""
    nats = token_losses(params, jnp.maximum(TOKENS, 0), TINY)[0]
    return -jnp.where(SCORED, nats, 0).sum(axis=1)


def test_the_forty_answers_are_all_there_are() -> None:
    assert len(ALL) == 40
    assert float(jnp.exp(jax.jit(answer_log_p)(tiny_params(0))).sum()) == pytest.approx(1, rel=1e-5)


@pytest.mark.long
def test_the_expected_gradient_is_that_of_the_expected_reward() -> None:
    """The sum over all pairs of answers, each by its probability, of the gradient that the pair gives.

    A group's mean holds the answer's own reward, which leaves 1 - 1/G of it; Dr. GRPO divides by the most tokens.
    """
    config, params = tiny_config(kl_weight=0.0), tiny_params(0)
    p = np.exp(np.asarray(jax.jit(answer_log_p)(params), np.float64))
    first, second = (index.ravel() for index in np.indices((len(ALL), len(ALL))))
    pairs = np.stack([first, second], axis=1)
    relative = advantages(REWARDS[pairs], "dr-grpo")
    rows, weight = pairs.ravel(), np.repeat(p[first] * p[second], 2)
    batch = {
        "tokens": TOKENS[rows],
        "scored": SCORED[rows],
        "advantage": (relative.ravel() * weight).astype(np.float32),  # the objective is linear in it
        "reward": REWARDS[rows],
    }
    objective = make_objective(config)
    gradient = jax.jit(jax.grad(lambda params, batch: objective(params, (), batch, jax.random.key(0)).objective))
    grads = gradient(params, batch)
    expected = jax.jit(jax.grad(lambda params: (jnp.exp(answer_log_p(params)) * REWARDS).sum()))(params)
    assert float(optax.tree.norm(expected)) > 0.01
    for name, grad in grads.items():
        by_reward = -np.asarray(expected[name]) * 2 * (1 - 1 / 2) / ANSWER
        np.testing.assert_allclose(grad, by_reward, rtol=1e-3, atol=2e-6, err_msg=name)


@pytest.mark.long
def test_the_mean_of_k3_is_the_kl() -> None:
    """Token by token of any two distributions, and summed over the tokens of an answer, of answers."""
    p, q = np.random.default_rng(2).dirichlet(np.ones(6), 2)
    values = np.asarray(k3(jnp.log(jnp.asarray(q / p, jnp.float32))), np.float64)
    assert (p * values).sum() == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5) and (values >= 0).all()

    config, params, reference = tiny_config(kl_weight=1.0), tiny_params(0), tiny_params(1)
    objective = make_objective(config)
    zero = np.zeros(len(ALL), np.float32)
    batch = {"tokens": TOKENS, "scored": SCORED, "advantage": zero, "reward": REWARDS}
    one_by_one = jax.tree.map(lambda leaf: leaf[:, None], batch)
    of_each = jax.vmap(partial(objective, key=jax.random.key(0)), in_axes=(None, None, 0))
    terms = jax.jit(of_each)(params, reference, one_by_one)
    log_p, log_q = (np.asarray(jax.jit(answer_log_p)(values), np.float64) for values in (params, reference))
    kl = (np.exp(log_p) * (log_p - log_q)).sum()
    assert (np.exp(log_p) * np.asarray(terms.reported["kl_nats"])).sum() == pytest.approx(kl, rel=1e-4) and kl > 0.1
    assert (np.exp(log_p) * REWARDS).sum() == pytest.approx(
        (np.exp(log_p) * np.asarray(terms.reported["reward"])).sum(), rel=1e-5
    )


def test_a_policy_that_is_its_reference_pays_nothing_and_is_not_clipped() -> None:
    config, params = tiny_config(updates=2), tiny_params(0)
    nats = jax.jit(partial(token_losses, config=TINY))(params, np.maximum(TOKENS, 0))[0]
    batch = {
        "tokens": TOKENS,
        "scored": SCORED,
        "advantage": REWARDS - REWARDS.mean(),
        "reward": REWARDS,
        "drawn_log_p": -np.asarray(nats),
    }
    terms = jax.jit(make_objective(config))(params, params, batch, jax.random.key(0))
    assert float(terms.reported["kl_nats"]) == pytest.approx(0, abs=1e-6) and float(terms.reported["clipped"]) == 0
    assert float(terms.reported["answer_length"]) == sum(map(len, ALL)) and float(terms.weight) == 40
    by_length = sum((reward - REWARDS.mean()) * len(answer) for reward, answer in zip(REWARDS, ALL)) / ANSWER
    assert float(terms.objective) == pytest.approx(-by_length, rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("scan_layers", [False, True])
def test_answers_are_drawn_as_often_as_they_are_likely(scan_layers: bool) -> None:
    """Two prompts of unequal lengths beside each other, 4,000 answers each: chi-squared with 39 degrees of freedom."""
    config, params, number = replace(TINY, scan_layers=scan_layers), tiny_params(0), 4_000
    other = np.array([END, 2], np.int32)
    prompts = np.zeros((2 * number, 5), np.int32)
    prompts[::2, :3], prompts[1::2, :2] = PROMPT, other
    lengths = np.array([3, 2] * number, np.int32)
    drawing = partial(draw, config=config, answer_tokens=ANSWER, end_of_document=END)
    numbers = np.arange(2 * number, dtype=np.int32)
    drawn = np.asarray(drawing(params, prompts, lengths, numbers, jax.random.key(5)))
    tokens, scored = laid_out([other] * len(ALL), np.array([a + [-1] * (ANSWER - len(a)) for a in ALL]), TINY.context)
    for rows, (read, mask) in ((drawn[::2], (TOKENS, SCORED)), (drawn[1::2], (tokens, scored))):
        log_p = np.asarray(
            jax.nn.log_softmax(jax.jit(partial(logits, config=TINY))(params, np.maximum(read, 0)[:, :-1]))
        )
        of_targets = np.take_along_axis(log_p, np.maximum(read, 0)[:, 1:, None], axis=2)[..., 0]
        p = np.exp(np.where(mask, of_targets, 0).sum(axis=1).astype(np.float64))
        answers = [[int(token) for token in row if token >= 0] for row in rows]
        counts = np.array([answers.count(answer) for answer in ALL])
        assert counts.sum() == number, "every answer ends with its first end"
        assert ((counts - number * p) ** 2 / (number * p)).sum() < 39 + 4 * np.sqrt(2 * 39)
    some = np.array([7, 2, 4, 11])
    alone = drawing(params, prompts[some], lengths[some], numbers[some], jax.random.key(5))
    assert np.array_equal(alone, drawn[some]), "an answer does not depend on the rows beside it"
    other_key = drawing(params, prompts[some], lengths[some], numbers[some], jax.random.key(6))
    assert not np.array_equal(other_key, drawn[some])
