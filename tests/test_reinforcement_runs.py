"""Runs that learn from answers which they draw: rewards, resumption, devices, processes, and bad input."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.reinforced import (
    ANSWER,
    FIRST,
    ID,
    MODEL,
    first_run,  # noqa: F401
    reinforced,
    reward_model_run,
)
from helpers.tiny_runs import assert_same, ends, rows, saved_steps, start_several
from helpers.xla_flags import simulated_devices

from lmscale.core.config import DataConfig, MeshConfig
from lmscale.core.errors import UserError
from lmscale.lm.train.health import KL_EXPLODED, REASONS, healthy, watch_kl
from lmscale.lm.train.loop import Interrupted, train, train_packed
from lmscale.lm.train.rewards import Checker


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_policy_earns_more_and_resumes_bit_for_bit_amid_two_updates(
    runs: Path, tmp_path: Path, stop_after: Any
) -> None:
    config = reinforced(30, FIRST.run_id, optimizer={"peak_lr": 0.01}, objective={"updates": 2})
    folder = runs / "second" / config.run_id
    result = train(config, folder)
    metrics = rows(folder)
    earned = [row["reward"] for row in metrics]
    assert sum(earned[-6:]) / 6 > sum(earned[:6]) / 6 + 0.05
    assert result.reported is not None
    assert result.reported.keys() == {"reward", "answer_length", "clipped", "kl_nats"}
    assert metrics[0]["kl_nats"] == pytest.approx(0, abs=1e-5) and metrics[-1]["kl_nats"] > 0.001
    assert metrics[0]["clipped"] == 0 and max(row["clipped"] for row in metrics[1::2]) > 0
    assert 1 <= result.reported["answer_length"] <= ANSWER

    again = runs / "third" / config.run_id
    stop_after(5)
    with pytest.raises(Interrupted, match=r"after step 6 of 30"):
        train(config, again)
    assert saved_steps(again) == [6], "answers are in no checkpoint, so it stops where the next are drawn"
    stop_after(10**6)
    train(config, again)
    assert_same(config, again, folder)


ON_DEVICES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lmscale.lm.devices import machine
machine.matmul_peak = lambda dtype: 1e11
from helpers.reinforced import FIRST, MeshConfig, reinforced, train
config = reinforced(4, FIRST.run_id, mesh=MeshConfig(data=4, fsdp=2), objective={"updates": 2})
train(config, Path(sys.argv[2]) / config.run_id)
"""


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_eight_devices_draw_the_answers_of_one(runs: Path) -> None:
    config = reinforced(4, FIRST.run_id, objective={"updates": 2})
    train(config, runs / "one" / config.run_id)
    command = [sys.executable, "-c", ON_DEVICES, str(Path(__file__).parent), str(runs / "eight")]
    done = subprocess.run(command, capture_output=True, text=True, env=simulated_devices(8))
    assert done.returncode == 0, done.stderr[-2000:]
    (eight,) = (runs / "eight").iterdir()
    for ours, theirs in zip(rows(runs / "one" / config.run_id), rows(eight), strict=True):
        assert ours["reward"] == theirs["reward"] and ours["answer_length"] == theirs["answer_length"]
        assert theirs["loss_nats"] == pytest.approx(ours["loss_nats"], abs=1e-5)
        assert theirs["kl_nats"] == pytest.approx(ours["kl_nats"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("known_peak")
def test_two_processes_draw_and_judge_the_answers_of_one(runs: Path, tmp_path: Path) -> None:
    """Every process knows the answers and the rewards of the other, by which its own are advantages."""
    judge = reward_model_run(tmp_path)
    train(judge, runs / "judge" / judge.run_id)
    objective = {"updates": 2, "reward": judge.run_id}
    alone = reinforced(4, FIRST.run_id, objective=objective)
    shared = reinforced(4, FIRST.run_id, objective=objective, mesh=MeshConfig(data=2))
    train(alone, runs / "alone" / alone.run_id)
    (runs / "shared").mkdir()
    for status, output, complaints in ends(start_several(shared, runs / "shared" / shared.run_id, 2)):
        assert (status, complaints) == (0, "")
        assert "finished" in output
    for ours, theirs in zip(rows(runs / "alone" / alone.run_id), rows(runs / "shared" / shared.run_id), strict=True):
        assert theirs["answer_length"] == ours["answer_length"]
        for name in ("reward", "loss_nats", "kl_nats"):
            assert theirs[name] == pytest.approx(ours[name], abs=1e-5), name


@pytest.mark.slow
@pytest.mark.usefixtures("known_peak")
@pytest.mark.parametrize("kind", ["experts", "averaged"])
def test_experts_and_averaged_parameters_learn_from_answers(runs: Path, kind: str) -> None:
    """The policy starts as its reference, also where that keeps averaged parameters."""
    model = replace(MODEL, experts=4, experts_per_token=2) if kind == "experts" else MODEL
    decay = 0.9 if kind == "averaged" else None
    first = replace(FIRST, model=model, optimizer=replace(FIRST.optimizer, ema_decay=decay), tokens=20 * 16 * 32)
    train(first, runs / "parents" / first.run_id)
    config = reinforced(4, first.run_id, model=model, optimizer={"ema_decay": decay}, objective={"updates": 2})
    result = train(config, runs / kind / config.run_id)
    metrics = rows(runs / kind / config.run_id)
    assert result.state == "finished" and metrics[0]["kl_nats"] == pytest.approx(0, abs=1e-5)
    assert metrics[-1]["kl_nats"] > 1e-5 and ("dead_experts" in metrics[-1]) == (kind == "experts")


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_micro_batches_and_packs_draw_the_same_answers(runs: Path) -> None:
    whole = reinforced(4, FIRST.run_id)
    train(whole, runs / "whole" / whole.run_id)
    parts = reinforced(4, FIRST.run_id, optimizer={"micro_batches": 4})
    train(parts, runs / "parts" / parts.run_id)
    other = replace(whole, seed=1)
    train_packed([whole, other], [runs / "pack" / whole.run_id, runs / "pack" / other.run_id])
    expected = rows(runs / "whole" / whole.run_id)
    for folder in (runs / "parts" / parts.run_id, runs / "pack" / whole.run_id):
        for row, one in zip(rows(folder), expected, strict=True):
            assert row["reward"] == one["reward"]
            assert row["loss_nats"] == pytest.approx(one["loss_nats"], abs=1e-5)
    assert [row["reward"] for row in rows(runs / "pack" / other.run_id)] != [row["reward"] for row in expected]


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_kl_that_explodes_ends_the_run(runs: Path) -> None:
    config = reinforced(20, FIRST.run_id, optimizer={"peak_lr": 1.0}, objective={"kl_limit_nats": 1.0})
    result = train(config, runs / "exploded" / config.run_id)
    assert result.state == "diverged" and result.reason.startswith(KL_EXPLODED) and result.loss_nats is None


def test_the_health_remembers_the_first_explosion() -> None:
    health = healthy()
    for step, kl in enumerate([0.5, 2.0, math.nan, 5.0]):
        health = watch_kl(health, jnp.int32(step), jnp.float32(kl), 1.0)
        assert (int(health.code) > 0) == (step > 0)
    assert REASONS[int(health.code)] == KL_EXPLODED and int(health.step) == 2
    assert int(watch_kl(healthy(), jnp.int32(3), jnp.float32(math.nan), 1.0).step) == 4


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_run_whose_rewards_are_not_finite_stops(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checker, "__call__", lambda self, answers: np.full(len(answers.texts), np.nan, np.float32))
    config = reinforced(2, FIRST.run_id)
    with pytest.raises(UserError, match=r"step 1: the checker gave 32 of 32 answers a reward that is not finite"):
        train(config, runs / "nan" / config.run_id)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": DataConfig(source="stdlib")}, "draws answers to prompts, of which .* 'stdlib' has none"),
        ({"init_from": None}, "starts from random numbers, whose answers earn nothing"),
        ({"reference": None}, r"kl_weight = 0.04 holds the policy to a reference, .* or kl_weight=0"),
        ({"optimizer": {"batch_sequences": 12}}, "12 is not a whole number of groups of 8 answers; .* batch is 16"),
        ({"objective": {"answer_tokens": 25}}, "prompts of up to 9 tokens and answers of 25 do not fit .* at least 33"),
        ({"model": replace(MODEL, residual_dropout=0.1)}, "dropout changes at random"),
        ({"optimizer": {"z_loss": 1e-4}}, "no part of the reward"),
        ({"objective": {"updates": 2}, "kept_steps": (3,)}, "kept_steps has 3, amid 2 updates .* multiples of 2"),
        ({"objective": {"group": 1}}, "compared with others to its prompt; take at least 2"),
        ({"objective": {"clip": 1.5}}, "a share of the ratio, below 1"),
        ({"objective": {"kl_weight": -0.1}}, "at least 0, which leaves the penalty out"),
        ({"objective": {"kl_weight": math.inf}}, "at least 0, which leaves the penalty out"),
        ({"objective": {"reward": ID, "checker": "graded"}}, "takes the place of the checker; leave one of them out"),
        ({"objective": {"reward": "runs/first"}}, "reward = 'runs/first': write the id of a run"),
    ],
    ids=str,
)
def test_a_run_that_cannot_draw_answers_says_why(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        reinforced(8, **change)


@pytest.mark.usefixtures("known_peak")
def test_a_reward_that_cannot_be_read_is_one_sentence(runs: Path) -> None:
    def train_with(name: str) -> None:
        config = reinforced(2, FIRST.run_id, objective={"reward": name})
        train(config, runs / "judged" / config.run_id)

    with pytest.raises(UserError, match=r"there is no run 0123456789ab"):
        train_with(ID)
    with pytest.raises(UserError, match=r"the reward of run \w+ is run \w+, a language model, which gives no reward"):
        train_with(FIRST.run_id)
