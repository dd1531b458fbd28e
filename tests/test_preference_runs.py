"""Runs that learn preferences and rewards: resumed, by two processes, by adapters; their reports, and bad parents."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_runs import MODEL, assert_close, assert_same, ends, rows, run, start_several, train_interrupted

from lmscale.core import counting
from lmscale.core.config import (
    Completion,
    DataConfig,
    LoraConfig,
    MeshConfig,
    Preference,
    RewardModel,
    RunConfig,
)
from lmscale.core.counting import flops_per_token_forward
from lmscale.core.errors import UserError
from lmscale.lm.devices import machine
from lmscale.lm.model import transformer
from lmscale.lm.model.parameters import parameter_table
from lmscale.lm.train import bench
from lmscale.lm.train.loop import train
from lmscale.lm.use.load import load

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
    train_interrupted(config, again, stop_after, 5)
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
