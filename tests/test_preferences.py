"""DPO, IPO and reward models against plain PyTorch, in parts, on many devices; what is reported, and bad parents."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import objective_cases as cases
from helpers.tiny_runs import MODEL, assert_close, assert_same, ends, rows, run, start_several
from helpers.xla_flags import simulated_devices

from lmscale.core import counting
from lmscale.core.config import (
    Completion,
    DataConfig,
    LoraConfig,
    MeshConfig,
    ModelConfig,
    Preference,
    RewardModel,
    RunConfig,
)
from lmscale.core.counting import flops_per_token_forward
from lmscale.core.errors import UserError
from lmscale.lm.devices import machine
from lmscale.lm.devices.sharding import batch_sharding, make_mesh, shardings
from lmscale.lm.eval.pair_validation import calibration_error, pair_values
from lmscale.lm.model import transformer
from lmscale.lm.model.parameters import parameter_table
from lmscale.lm.objectives import make_objective
from lmscale.lm.train import bench
from lmscale.lm.train.loop import Interrupted, train
from lmscale.lm.train.step import means_and_gradient
from lmscale.lm.use.load import load

GOLDEN = json.loads((Path(__file__).parent / "golden/objectives.json").read_text(encoding="utf-8"))
"""Mean objectives and norms of their gradients as torch computed them (`peers/objectives.py`)."""
CLOSE: dict[str, Any] = {"rel": 1e-5}


def objective_and_norm(name: str, mesh: MeshConfig | None = None, **changed: Any) -> tuple[float, float]:
    """The mean objective of the pairs of `objective_cases` and the norm of its gradient."""
    config = cases.pair_config(name, replace(cases.STUDENT, **changed.pop("model", {})), **changed)
    objective, devices = make_objective(config, cases.TEACHER), make_mesh(mesh or MeshConfig())
    students = cases.rewards_params() if config.model.scalar_head else cases.students_params()
    placed = [
        jax.device_put(
            params, shardings({row: (x.shape, x.axes) for row, x in parameter_table(shape).items()}, devices)
        )
        for params, shape in ((students, config.model), (cases.teachers_params(), cases.TEACHER))
    ]
    batch = jax.device_put(cases.pair_batch(), batch_sharding(devices))
    with jax.set_mesh(devices):
        gradient = jax.jit(partial(means_and_gradient, config, objective))
        means, grads = gradient(*placed, batch, jax.random.key(0))
    return float(means.loss), float(optax.tree.norm(grads))


def assert_golden(name: str, value_and_norm: Any, where: str = "") -> None:
    assert value_and_norm[0] == pytest.approx(GOLDEN[name]["objective"], **CLOSE), where
    assert value_and_norm[1] == pytest.approx(GOLDEN[name]["gradient_norm"], **CLOSE), where


@pytest.mark.long
@pytest.mark.parametrize("name", cases.PAIR_CASES)
def test_loss_and_gradient_are_those_of_plain_pytorch(name: str) -> None:
    assert_golden(name, objective_and_norm(name))


@pytest.mark.long
@pytest.mark.parametrize("name", ["dpo, strict and smoothed", "reward model"])
@pytest.mark.parametrize("changed", [{"micro_batches": 4}, {"model": {"loss_chunk": 7}}], ids=str)
def test_parts_of_a_batch_and_of_time_add_up(name: str, changed: dict[str, Any]) -> None:
    assert_golden(name, objective_and_norm(name, **changed))


SPREAD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_preferences import MeshConfig, objective_and_norm
meshes = {"data": MeshConfig(data=4), "all": MeshConfig(data=2, fsdp=2, tensor=2), "time": MeshConfig(sequence=4)}
for name in ("dpo", "reward model"):
    print(json.dumps({mesh: objective_and_norm(name, devices) for mesh, devices in meshes.items()}))
"""


@pytest.mark.long
def test_eight_devices_give_the_numbers_of_one() -> None:
    command = [sys.executable, "-c", SPREAD, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, env=simulated_devices(8))
    assert done.returncode == 0, done.stderr[-2000:]
    for name, line in zip(("dpo", "reward model"), done.stdout.splitlines()):
        for mesh, numbers in json.loads(line).items():
            assert_golden(name, numbers, mesh)


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


PAIRS = [
    {"prompt": f"Say {n}:", "chosen": f" {n} it is", "rejected": " no"} for n in range(10, 60)
]  # a chosen answer repeats the number
DATA: dict[str, Any] = {"template": "preference", "validation_fraction": 0.2, "max_epochs": 1000}
CONTEXT = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS), encoding="utf-8")
    return str(path)


def on_answers(corpus: str, steps: int, **changed: Any) -> RunConfig:
    """A run that learns the chosen answers."""
    model = replace(MODEL, context=CONTEXT, document_end=255)
    data = DataConfig(source=corpus, **DATA)
    return replace(run(corpus, steps, model=model, **changed), data=data, objective=Completion())


def on_pairs(corpus: str, steps: int, objective: Any, **changed: Any) -> RunConfig:
    model = replace(MODEL, context=CONTEXT, document_end=255, **changed.pop("model", {}))
    data = DataConfig(source=corpus, rejected_field="rejected", **DATA)
    tokens = steps * 8 * CONTEXT
    parts = {"data": data, "objective": objective, "tokens": tokens, "model": model, **changed}
    return replace(run(corpus, steps, model=replace(MODEL, context=CONTEXT)), **parts)


@pytest.fixture
def parent(corpus: str, tmp_path: Path) -> RunConfig:
    """A run on the chosen answers, trained in `runs/first`."""
    config = on_answers(corpus, 4)
    train(config, tmp_path / "runs" / "first" / config.run_id)
    return config


@pytest.mark.long
@pytest.mark.usefixtures("known_peak", "compiled_programs")
def test_a_policy_learns_from_pairs_and_resumes_bit_for_bit(
    corpus: str, parent: RunConfig, tmp_path: Path, stop_after: Any
) -> None:
    config = on_pairs(corpus, 12, Preference(), init_from=parent.run_id, reference=parent.run_id)
    folder = tmp_path / "runs" / "second" / config.run_id
    result = train(config, folder)
    metrics = rows(folder)
    assert metrics[0]["loss_nats"] == pytest.approx(math.log(2), rel=1e-3)
    assert result.loss_nats is not None and result.loss_nats < math.log(2) - 0.01
    assert result.bits_per_byte is None and result.loss_by_position_nats is None
    assert result.reported is not None and result.validation_reported is not None
    names = {"accuracy", "margin", "chosen_reward", "rejected_reward"}
    assert result.reported.keys() == names and result.validation_reported.keys() == names | {"kl"}
    held_out = {name: value or 0.0 for name, value in result.validation_reported.items()}
    assert held_out["accuracy"] > 0.5 and held_out["kl"] > 0
    assert metrics[-1]["validation_margin"] == held_out["margin"] > 0
    assert result.reference_flops == flops_per_token_forward(parent.model) * config.tokens
    assert result.flops == 3 * result.reference_flops
    assert set(load(folder).params) == set(parameter_table(parent.model)), "the reference is not in it"

    again = tmp_path / "runs" / "third" / config.run_id
    stop_after(5)
    with pytest.raises(Interrupted):
        train(config, again)
    stop_after(10**6)
    train(config, again)
    assert_same(config, again, folder)


@pytest.mark.slow
@pytest.mark.usefixtures("known_peak", "compiled_programs")
def test_two_processes_learn_preferences_as_one_does(corpus: str, parent: RunConfig, tmp_path: Path) -> None:
    parents = {"init_from": parent.run_id, "reference": parent.run_id}
    alone, shared = (on_pairs(corpus, 6, Preference(), mesh=MeshConfig(data=devices), **parents) for devices in (1, 2))
    folders = [tmp_path / "runs" / name / alone.run_id for name in ("alone", "shared")]
    train(alone, folders[0])
    folders[1].parent.mkdir()
    for status, output, complaints in ends(start_several(shared, folders[1], 2)):
        assert (status, complaints) == (0, "")
        assert "finished" in output
    assert_close(folders[1], folders[0])


@pytest.mark.long
@pytest.mark.usefixtures("known_peak", "compiled_programs")
def test_adapters_learn_preferences(corpus: str, parent: RunConfig, tmp_path: Path) -> None:
    adapters = {"lora": LoraConfig(rank=2)}
    parents = {"init_from": parent.run_id, "reference": parent.run_id}
    config = on_pairs(corpus, 8, Preference(), model=adapters, **parents)
    folder = tmp_path / "runs" / "second" / config.run_id
    result = train(config, folder)
    assert rows(folder)[0]["loss_nats"] == pytest.approx(math.log(2), rel=1e-3), "adapters begin at 0"
    assert result.loss_nats is not None and result.loss_nats < math.log(2) - 0.001
    assert result.reference_flops == flops_per_token_forward(parent.model) * config.tokens
    first, trained = (load(path).params for path in (folder.parents[1] / "first" / parent.run_id, folder))
    assert all(np.array_equal(trained[name], value) for name, value in first.items()), "all else stays as it is"


@pytest.mark.long
@pytest.mark.usefixtures("known_peak", "compiled_programs")
def test_a_policy_that_has_left_its_reference_has_diverged(corpus: str, parent: RunConfig, tmp_path: Path) -> None:
    parents = {"init_from": parent.run_id, "reference": parent.run_id}
    config = on_pairs(corpus, 6, Preference(kl_limit_nats=1e-6), **parents)
    folder = tmp_path / "runs" / "second" / config.run_id
    result = train(config, folder)
    assert result.state == "diverged" and result.loss_nats is None
    assert re.fullmatch(
        r"the KL of held-out answers to the reference was \S+ nats, above Preference.kl_limit_nats = 1e-06, at step 2",
        result.reason,
    )


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_policy_is_measured_beside_its_reference(corpus: str, tmp_path: Path) -> None:
    """As `lmscale bench` does, without a checkpoint of the reference, which need not have been trained."""
    config = on_pairs(corpus, 6, Preference(), init_from="0123456789ab", reference="0123456789ab")
    other = replace(config.model, layers=3)
    speed = bench.measure(config, steps=2, other=other)
    forward, beside = flops_per_token_forward(config.model), flops_per_token_forward(other)
    assert speed.flops_per_second == pytest.approx(speed.tokens_per_second * (3 * forward + beside))
    assert speed.memory_estimate_bytes == machine.step_bytes(config) + counting.reference_bytes(other, config)
    assert speed.data.endswith("pairs.jsonl")
    with pytest.raises(UserError, match="nowhere"):
        bench.measure(replace(config, data=replace(config.data, source=str(tmp_path / "nowhere.jsonl"))), steps=2)


@pytest.mark.long
@pytest.mark.usefixtures("known_peak", "compiled_programs")
@pytest.mark.parametrize("tied", [True, False])
def test_a_reward_model_starts_from_a_language_model(corpus: str, tmp_path: Path, tied: bool) -> None:
    first = on_answers(corpus, 2)
    first = replace(first, model=replace(first.model, tied_embeddings=tied))
    train(first, tmp_path / "runs" / "first" / first.run_id)
    model = {"tied_embeddings": tied, "scalar_head": True}
    config = on_pairs(corpus, 12, RewardModel(), model=model, init_from=first.run_id)
    folder = tmp_path / "runs" / "second" / config.run_id
    result = train(config, folder)
    assert rows(folder)[0]["loss_nats"] == pytest.approx(math.log(2), rel=1e-2), "rewards begin at 0"
    assert result.loss_nats is not None and result.loss_nats < 0.6
    assert result.validation_reported is not None
    assert result.validation_reported.keys() == {"accuracy", "margin", "confidence", "reward", "calibration_error"}
    assert (result.validation_reported["accuracy"] or 0.0) > 0.9
    trained = load(folder)
    with pytest.raises(UserError, match="a reward model, which gives one number and no next token"):
        transformer.logits(trained.params, jnp.zeros((1, 4), jnp.int32), trained.config.model)
    below = on_answers(corpus, 2, init_from=config.run_id)
    below = replace(below, model=replace(below.model, tied_embeddings=tied))
    with pytest.raises(UserError, match=r"cannot start from run \w+, a reward model"):
        train(below, tmp_path / "runs" / "third" / below.run_id)


@pytest.mark.long
@pytest.mark.usefixtures("known_peak", "compiled_programs")
def test_a_reference_that_cannot_be_read_is_one_sentence(corpus: str, parent: RunConfig, tmp_path: Path) -> None:
    config = on_pairs(corpus, 2, Preference(), init_from=parent.run_id, reference=parent.run_id)
    folder = tmp_path / "runs" / "second" / config.run_id
    with pytest.raises(UserError, match=r"there is no run 0123456789ab in .*second"):
        train(replace(config, reference="0123456789ab"), folder)
    # The policy itself under another name:
    renamed = tmp_path / "runs" / "first" / "0123456789ab"
    renamed.symlink_to(folder, target_is_directory=True)
    with pytest.raises(UserError, match=r"is of run 0123456789ab, but config.json is that of run \w+"):
        train(replace(config, reference="0123456789ab"), folder)


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
