"""DPO, IPO and reward models against plain PyTorch, in parts and on many devices; settings that mean nothing."""

import math
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
from helpers.tiny_runs import MODEL

from lmscale.core import counting
from lmscale.core.config import (
    Completion,
    DataConfig,
    LoraConfig,
    MeshConfig,
    ModelConfig,
    Preference,
    RewardModel,
)
from lmscale.core.counting import flops_per_token_forward
from lmscale.core.errors import UserError
from lmscale.lm.devices.sharding import batch_sharding, make_mesh
from lmscale.lm.eval.pair_validation import calibration_error, pair_values
from lmscale.lm.model import transformer
from lmscale.lm.model.parameters import parameter_table
from lmscale.lm.objectives import make_objective
from lmscale.lm.train.step import means_and_gradient


def objective_and_norm(name: str, mesh: MeshConfig | None = None, **changed: Any) -> tuple[float, float]:
    """The mean objective of the pairs of `objective_cases` and the norm of its gradient."""
    config = cases.pair_config(name, replace(cases.STUDENT, **changed.pop("model", {})), **changed)
    objective, devices = make_objective(config, cases.TEACHER), make_mesh(mesh or MeshConfig())
    students = cases.rewards_params() if config.model.scalar_head else cases.students_params()
    params = placed(students, config.model, devices), placed(cases.teachers_params(), cases.TEACHER, devices)
    batch = jax.device_put(cases.pair_batch(), batch_sharding(devices))
    with jax.set_mesh(devices):
        gradient = jax.jit(partial(means_and_gradient, config, objective))
        means, grads = gradient(*params, batch, jax.random.key(0))
    return float(means.loss), float(optax.tree.norm(grads))


@pytest.mark.long
@pytest.mark.parametrize("name", cases.PAIR_CASES)
def test_loss_and_gradient_are_those_of_plain_pytorch(name: str) -> None:
    assert_golden(name, objective_and_norm(name))


@pytest.mark.long
@pytest.mark.parametrize("name", ["dpo, strict and smoothed", "reward model"])
@pytest.mark.parametrize("changed", [{"micro_batches": 4}, {"model": {"loss_chunk": 7}}], ids=str)
def test_parts_of_a_batch_and_of_time_add_up(name: str, changed: dict[str, Any]) -> None:
    assert_golden(name, objective_and_norm(name, **changed))


@pytest.mark.long
def test_eight_devices_give_the_numbers_of_one() -> None:
    meshes = {"data": 4}, {"data": 2, "fsdp": 2, "tensor": 2}, {"sequence": 4}
    assert_golden_on_eight_devices(__file__, ("dpo", "reward model"), *meshes)


@pytest.mark.long
@pytest.mark.parametrize(("objective", "loss"), [(Preference(), math.log(2)), (Preference(loss="ipo", beta=0.25), 4.0)])
def test_a_policy_that_is_its_reference_prefers_nothing(objective: Preference, loss: float) -> None:
    config = replace(cases.pair_config("dpo"), objective=objective)
    params = cases.students_params()
    values = jax.jit(partial(pair_values, config, config.model))(params, params, cases.pair_batch())
    assert values["loss"] == pytest.approx(loss, rel=1e-6)
    assert list(values["accuracy"]) == [0.5] * 4
    for name in ("margin", "chosen_reward", "rejected_reward", "kl"):
        assert values[name] == pytest.approx(0, abs=1e-5), name


@pytest.mark.long
@pytest.mark.parametrize("chunk", [None, 7])
def test_kl_is_that_of_the_two_distributions_over_the_answers(chunk: int | None) -> None:
    model = replace(cases.STUDENT, loss_chunk=chunk)
    config, batch = cases.pair_config("dpo", model), cases.pair_batch()
    params, reference = (jax.tree.map(jnp.asarray, x) for x in (cases.students_params(), cases.teachers_params()))
    kl = jax.jit(partial(pair_values, config, cases.TEACHER))(params, reference, batch)["kl"]
    read = np.maximum(batch["tokens"].reshape(8, -1)[:, :-1], 0)
    log_p, log_q = (
        np.asarray(jax.nn.log_softmax(transformer.logits(weights, jnp.asarray(read), shape)), np.float64)
        for weights, shape in ((params, model), (reference, cases.TEACHER))
    )
    by_token = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1).reshape(4, 2, -1)
    expected = np.where(batch["scored"], by_token, 0).sum(axis=-1).mean(axis=-1)
    assert kl == pytest.approx(expected, rel=1e-4) and (expected > 0).all()


def test_calibration_error_weighs_the_gaps_of_bins() -> None:
    confidence, correct = np.array([0.52, 0.53, 0.97, 0.97]), np.array([1.0, 0.0, 1.0, 1.0])
    assert calibration_error(confidence, correct) == pytest.approx((abs(1 - 1.05) + abs(2 - 1.94)) / 4)
    assert calibration_error(np.array([0.5, 1.0]), np.array([0.5, 1.0])) == 0


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize("tied", [True, False])
def test_counts_of_a_reward_model_are_those_of_its_parameters(tied: bool, positions: Any) -> None:
    model = replace(MODEL, tied_embeddings=tied, positions=positions, scalar_head=True)
    sizes = {name: math.prod(row.shape) for name, row in parameter_table(model).items()}
    assert counting.params_total(model) == sum(sizes.values()) and "head" not in sizes
    matrices = sum(
        size for name, size in sizes.items() if name.startswith(("attention_q", "attention_o", "mlp_i", "mlp_o"))
    )
    attention = 2 * model.width * model.context
    assert flops_per_token_forward(model) == 2 * (matrices + model.width) + attention


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"reference": None}, "RunConfig.reference names none"),
        ({"init_from": None}, "starts from random numbers, which prefer nothing"),
        ({"objective": Completion()}, r"makes pairs of answers, which objective = Completion\(\) does not read"),
        ({"data": DataConfig(source="a.jsonl", template="preference")}, "learns from pairs of answers"),
        ({"objective": RewardModel(), "reference": None}, "the model has logits"),
        ({"model": replace(cases.STUDENT, scalar_head=True)}, "one number per token in place of logits"),
    ],
    ids=str,
)
def test_an_objective_of_pairs_says_what_it_lacks(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        replace(cases.pair_config("dpo"), **change)


def test_settings_that_mean_nothing_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"below 0.5, where they say nothing"):
        Preference(label_smoothing=0.5)
    with pytest.raises(UserError, match="smoothing is defined for 'dpo'"):
        Preference(loss="ipo", label_smoothing=0.1)
    with pytest.raises(UserError, match=r"batch_sequences = 8 .* in pairs, of two sequences each; .* is 16"):
        cases.pair_config("dpo", micro_batches=8)
    with pytest.raises(UserError, match="penalty per scored token"):
        cases.pair_config("dpo", z_loss=1e-4)
    with pytest.raises(UserError, match="low-rank adapters would leave at 0"):
        ModelConfig(width=16, layers=1, heads=2, scalar_head=True, lora=LoraConfig(rank=2))
