"""`lmscale score` with a reward model: what each answer gets, which part of a prompt is read, what is refused."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.command_line import call
from helpers.published import random_params
from helpers.tiny_runs import MODEL, run, write

from lmscale.core.config import DataConfig, RewardModel, RunConfig
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.run_folder import CHECKPOINT_FOLDER
from lmscale.core.run_identity import read_config
from lmscale.lm.data.tokenizer import ByteTokenizer
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.model.scalar_head import rewards
from lmscale.lm.use import load
from lmscale.lm.use.load import Opened, TrainedRun
from lmscale.lm.use.score_answers import Asked, score_answers

CONTEXT = 16
PAIRS = DataConfig(source="pairs.jsonl", template="preference", rejected_field="rejected")
REWARDING = replace(
    run("here", 1, model=replace(MODEL, context=CONTEXT)),
    model=replace(MODEL, context=CONTEXT, scalar_head=True), data=PAIRS, objective=RewardModel(),
)  # fmt: skip
TALKING = run("here", 1, model=replace(MODEL, context=CONTEXT))


def trained(config: RunConfig) -> TrainedRun:
    params = {name: jnp.asarray(value) for name, value in random_params(config.model).items()}
    return TrainedRun(config, params, ByteTokenizer())


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A language model and a reward model with random parameters in place of their checkpoints."""

    def opened(folder: Path, step: int | None = None) -> Opened:
        config = read_config(folder)
        return Opened(trained(config), 7, make_mesh(config.mesh))

    monkeypatch.setattr(load, "open_run", opened)
    folder = tmp_path / "mine"
    write_plan(folder, "mine", [PlannedRun(TALKING), PlannedRun(REWARDING)])
    for config in (TALKING, REWARDING):
        write(config, folder / config.run_id)
        (folder / config.run_id / CHECKPOINT_FOLDER / "7").mkdir(parents=True)
    return folder


def by_hand(prompt: str, answer: str) -> float:
    """The reward of an answer that fits, in a batch of its own."""
    read = [255, *prompt.encode(), *answer.encode(), 255]
    scored = [False] * len(prompt.encode()) + [True] * (len(answer.encode()) + 1)
    one = trained(REWARDING)
    return float(rewards(one.params, jnp.array([read]), jnp.array([scored]), one.config.model)[0][0])


def lines(*records: Any) -> str:
    return "".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records)


@pytest.mark.long
def test_an_answer_is_read_as_in_training() -> None:
    answer_rewards = score_answers(trained(REWARDING), [Asked("Say 7:", [" 7", " no"]), Asked("é", ["x"])])
    expected = [[by_hand("Say 7:", " 7"), by_hand("Say 7:", " no")], [by_hand("é", "x")]]
    assert len({value for row in expected for value in row}) == 3
    for row, own in zip(answer_rewards, expected, strict=True):
        assert row == pytest.approx(own, rel=1e-5)


@pytest.mark.long
def test_the_answers_to_a_long_prompt_lose_the_same_beginning() -> None:
    [[short, long]] = score_answers(trained(REWARDING), [Asked("0123456789abcdef", ["x", "wxyz"])])
    assert short == pytest.approx(by_hand("56789abcdef", "x"), rel=1e-5)
    assert long == pytest.approx(by_hand("56789abcdef", "wxyz"), rel=1e-5)
    fits = "a" * (CONTEXT - 1)
    assert score_answers(trained(REWARDING), [Asked("p", [fits])])[0][0] == pytest.approx(by_hand("", fits), rel=1e-5)
    with pytest.raises(UserError, match=r"line 3 has an answer of 17 tokens with its end, .* reads at most 16"):
        score_answers(trained(REWARDING), [Asked("p", [fits + "a"], "line 3")])


def test_many_answers_are_read_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [Asked("Say:", [f" {n}"]) for n in range(7)]
    whole = score_answers(trained(REWARDING), asked)
    monkeypatch.setattr("lmscale.lm.use.score_answers.TOKENS_PER_CALL", 3 * CONTEXT)
    assert np.allclose(score_answers(trained(REWARDING), asked), whole, rtol=1e-5)


@pytest.mark.long
def test_the_verb_shows_rewards_and_accuracy(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pair, alone = {"prompt": "Say 7:", "chosen": " 7", "rejected": " no"}, {"prompt": "é", "chosen": "x"}
    (tmp_path / "a.jsonl").write_text(lines(pair, "", alone), encoding="utf-8")
    folder = sweep / REWARDING.run_id
    assert call("score", folder, tmp_path / "a.jsonl", "--json", tmp_path / "r.json") == 0
    value = json.loads((tmp_path / "r.json").read_text())
    good, bad, other = by_hand("Say 7:", " 7"), by_hand("Say 7:", " no"), by_hand("é", "x")
    assert [row["line"] for row in value["answers"]] == [1, 3]
    assert value["answers"][0]["reward"] == pytest.approx(good, rel=1e-5)
    assert value["answers"][0]["rejected_reward"] == pytest.approx(bad, rel=1e-5)
    assert "rejected_reward" not in value["answers"][1] and value["pairs"] == 1
    assert value["mean_reward"] == pytest.approx((good + other) / 2, rel=1e-5)
    assert value["accuracy"] == float(good > bad)
    shown = capsys.readouterr().out
    assert f"{good:.4f}" in shown and f"{bad:.4f}" in shown and "of 1 pairs is preferred" in shown
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines(alone).encode())))
    assert call("score", folder, "-", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["reward"] == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("no json", "line 1 is no JSON object"),
        ("[1]", "line 1 is no JSON object"),
        ({"prompt": "p"}, "line 1 is a record without the field 'chosen'"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "line 1 is a record whose two answers are equal"),
        ({"prompt": "p", "chosen": "a" * 17}, "line 1 has an answer of 18 tokens with its end"),
    ],
    ids=str,
)
def test_a_line_that_is_no_record_is_one_sentence(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: Any, sentence: str
) -> None:
    (tmp_path / "a.jsonl").write_text(lines(line), encoding="utf-8")
    assert call("score", sweep / REWARDING.run_id, tmp_path / "a.jsonl") != 0
    assert sentence in capsys.readouterr().err


def test_reward_models_and_language_models_are_told_apart(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text(lines({"prompt": "p", "chosen": "a"}), encoding="utf-8")
    both = [sweep / config.run_id for config in (TALKING, REWARDING)]
    assert call("score", *both, tmp_path / "a.jsonl") != 0
    assert "is a reward model: score with it alone" in capsys.readouterr().err
    assert call("score", both[1], tmp_path / "a.jsonl", "--html", tmp_path / "a.html") != 0
    assert "gives one number for an answer" in capsys.readouterr().err
    assert call("score", "--sweep", sweep, tmp_path / "a.jsonl") == 0
    assert "1 of 2 runs is a reward model and is left out" in capsys.readouterr().out
    with pytest.raises(UserError, match="is no reward model"):
        score_answers(trained(TALKING), [Asked("p", ["a"])])
