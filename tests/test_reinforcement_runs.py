"""Runs that learn from answers which they draw: rewards, resumption, devices, what they cost, and bad input."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_runs import assert_same, ends, rows, saved_steps, start_several
from helpers.xla_flags import simulated_devices

from lmscale.core import counting
from lmscale.core.config import (
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    Reinforcement,
    RewardModel,
    RunConfig,
)
from lmscale.core.config.synthetic import longest_prompt, parse
from lmscale.core.counting import drawing_flops, flops_per_token_forward
from lmscale.core.errors import MemoryShortage, UserError
from lmscale.core.plans import write_plan
from lmscale.core.results import collect
from lmscale.lm.data.languages.tasks import LanguageTask, all_tasks
from lmscale.lm.devices import machine
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.model.parameters import init
from lmscale.lm.train import bench
from lmscale.lm.train.health import KL_EXPLODED, REASONS, healthy, watch_kl
from lmscale.lm.train.loop import Interrupted, train, train_packed
from lmscale.lm.train.rewards import Answers, Checker, check_finite
from lmscale.lm.train.sampled_answers import SampledAnswers, laid_out, questions_of
from lmscale.study import recipes
from lmscale.study.sweep import Plan, Sweep, chain, plan, reinforce, reward

LANGUAGE = 'synthetic:tasks(letters=2, length=2, only="copy")'
MODEL = ModelConfig(width=32, layers=1, heads=2, context=32)
FIRST = RunConfig(
    model=MODEL,
    optimizer=OptimizerConfig(peak_lr=0.02, batch_sequences=16),
    data=DataConfig(source=LANGUAGE),
    tokens=60 * 16 * 32,
    validation_tokens=1024,
)
ID = "0123456789ab"
ANSWER = 4


def reinforced(steps: int, parent: str = ID, *, mesh: MeshConfig | None = None, **changed: Any) -> RunConfig:
    """A run that starts from `parent` and is held to it."""
    optimizer = {"peak_lr": 0.003, "batch_sequences": 32, **changed.pop("optimizer", {})}
    objective = {"group": 8, "answer_tokens": ANSWER, **changed.pop("objective", {})}
    parts = {
        "model": MODEL,
        "optimizer": OptimizerConfig(**optimizer),
        "objective": Reinforcement(**objective),
        "data": FIRST.data,
        "tokens": steps * optimizer["batch_sequences"] * MODEL.context,
        "init_from": parent,
        "reference": parent,
        "validation_tokens": 1024,
        "checkpoint_seconds": 1e6,
        "mesh": mesh or MeshConfig(),
    }
    return RunConfig(**{**parts, **changed})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, compiled_programs: Path) -> Path:
    """A folder of runs with `FIRST` in it, which copies some words rightly and some not."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "matmul_peak", lambda dtype: 1e11)
        train(FIRST, folder / "first" / FIRST.run_id)
    return folder


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


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_plan_counts_what_drawing_and_training_cost(runs: Path, tmp_path: Path) -> None:
    """The plan of a sweep with a reward model says what its outcome says, generation and training apart."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps({"prompt": f"copy {x}=", "chosen": x, "rejected": x[::-1]}) + "\n" for x in ("ab", "ba") * 9)
    )
    base = {"params": counting.params_total(MODEL), "tokens": FIRST.tokens}
    found = small_plan(str(pairs), base)
    by_stage = {run.stage: run for run in found.runs}
    for stage in ("pretrain", "reward", "reinforce"):
        train(by_stage[stage].config, tmp_path / "runs" / by_stage[stage].config.run_id)
    planned, config = by_stage["reinforce"], by_stage["reinforce"].config
    result = train(config, tmp_path / "runs" / config.run_id)
    judge, rows_read = by_stage["reward"].config.model, config.steps // 2 * config.optimizer.batch_sequences
    read = flops_per_token_forward(judge) * config.model.context * rows_read
    assert planned.batch_flops == result.batch_flops == drawing_flops(config) * config.steps + read
    assert planned.reference_flops == result.reference_flops > 0
    assert result.flops == counting.count(config).flops
    write_plan(tmp_path / "runs", "s", found.runs, {})
    row = collect(tmp_path / "runs").set_index("run").loc[config.run_id]
    assert row["reward_model"] == by_stage["reward"].config.run_id and row["stage"] == "reinforce"
    assert result.reported is not None and row["reported_reward"] == result.reported["reward"]
    assert planned.paid_flops == result.flops + result.batch_flops + result.reference_flops
    assert found.flops == found.flops_apart == sum(run.paid_flops for run in found.runs)
    assert f", {result.batch_flops:.3g} of them to draw and judge answers" in str(found)
    reference = by_stage["pretrain"].config.model
    assert planned.reference_bytes == counting.reference_bytes(reference, config) + counting.reference_bytes(
        judge, config, whole_batch=True
    )


def small_plan(pairs: str, base: dict[str, Any]) -> Plan:
    family = recipes.Family(width_multiple=4, aspect_ratio=None, head_width=16, base=replace(MODEL, heads=1))
    recipe = recipes.Recipe(
        name="tests",
        source="these tests",
        family=family,
        lr=recipes.constant(0.003, "these tests"),
        batch_sequences=recipes.constant(14, "these tests"),
        data=FIRST.data,
        run={"keep_checkpoint": True, "validation_tokens": 512},
    )
    preferences = DataConfig(
        source=pairs, template="preference", rejected_field="rejected", validation_fraction=0.2, max_epochs=1000
    )
    settings = Reinforcement(group=8, answer_tokens=ANSWER, updates=2)
    stages = recipes.by_stage(
        pretrain=recipe,
        reward=recipe(data=preferences, objective=RewardModel()),
        reinforce=recipe(objective=settings),
    )
    start = [base]
    (judge,) = reward(start, tokens=16 * 32 * 4)
    points = chain(start, [judge], reinforce(start, tokens=16 * 32 * 6, reward=judge))
    return plan(Sweep(name="s", points=points, recipe=stages, law="", tokens_per_param=(0, 1e9)))


def test_a_batch_is_a_whole_number_of_groups(tmp_path: Path) -> None:
    config = next(
        run.config for run in small_plan("a.jsonl", {"params": 8_000, "tokens": 8_000}).runs if run.stage == "reinforce"
    )
    assert config.optimizer.batch_sequences == 16, "two groups of 8, the nearest to 14"
    assert config.reference == config.init_from is not None and config.parents["reward"].run_id


ON_DEVICES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lmscale.lm.devices import machine
machine.matmul_peak = lambda dtype: 1e11
from test_reinforcement_runs import FIRST, MeshConfig, reinforced, train
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
    for status, said, complaints in ends(start_several(shared, runs / "shared" / shared.run_id, 2)):
        assert (status, complaints) == (0, "")
        assert "finished" in said
    for ours, theirs in zip(rows(runs / "alone" / alone.run_id), rows(runs / "shared" / shared.run_id), strict=True):
        assert theirs["answer_length"] == ours["answer_length"]
        for name in ("reward", "loss_nats", "kl_nats"):
            assert theirs[name] == pytest.approx(ours[name], abs=1e-5), name


def reward_model_run(folder: Path) -> RunConfig:
    """A reward model of copied words, which prefers a right answer."""
    pairs = [{"prompt": f"copy {x}=", "chosen": x, "rejected": x[::-1]} for x in ("ab", "ba")] * 9
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    data = DataConfig(source=str(folder / "pairs.jsonl"), template="preference", rejected_field="rejected")
    return replace(
        FIRST,
        model=replace(MODEL, scalar_head=True),
        data=replace(data, validation_fraction=0.2, max_epochs=1000),
        objective=RewardModel(),
        tokens=8 * 16 * 32,
    )


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
def test_a_bench_draws_the_answers_too() -> None:
    config = reinforced(4)
    speed = bench.measure(config, steps=2)
    per_token = counting.flops_per_token(MODEL) + flops_per_token_forward(MODEL)
    per_token += drawing_flops(config) / config.batch_tokens
    assert speed.flops_per_second == pytest.approx(speed.tokens_per_second * per_token)


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


def answers_of(texts: list[str], ended: list[bool]) -> Answers:
    task = LanguageTask("copy", parse(LANGUAGE))
    nothing = jnp.zeros((len(texts), 1), jnp.int32)
    return Answers([task] * len(texts), ["ab"] * len(texts), texts, np.array(ended), nothing, nothing > 0)


def test_a_checker_rewards_what_is_right_and_has_come_to_its_end() -> None:
    given = answers_of(["ab", "ab", "ba", "aab", "a", ""], [True, False, True, True, True, True])
    assert Checker(graded=False)(given).tolist() == [1, 0, 0, 0, 0, 0]
    assert Checker(graded=True)(given).tolist() == [1, 1, 0, 0.5, 0.5, 0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_one_sentence(value: float) -> None:
    check_finite(np.ones(3, np.float32), 4, "the checker")
    with pytest.raises(UserError, match=rf"step 5: the reward model, run x, gave 2 of 3 answers .* \({value}\)"):
        check_finite(np.array([1, value, value], np.float32), 4, "the reward model, run x,")


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_run_whose_rewards_are_not_finite_stops(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checker, "__call__", lambda self, answers: np.full(len(answers.texts), np.nan, np.float32))
    config = reinforced(2, FIRST.run_id)
    with pytest.raises(UserError, match=r"step 1: the checker gave 32 of 32 answers a reward that is not finite"):
        train(config, runs / "nan" / config.run_id)


@pytest.mark.long
def test_questions_follow_from_seed_and_number_and_are_none_of_an_exam() -> None:
    tasks = all_tasks(parse("synthetic:tasks(length=6)"))
    first = questions_of(tasks, 20, seed=0, number=3)
    assert first == questions_of(tasks, 20, seed=0, number=3)
    for other in (questions_of(tasks, 20, 0, 4), questions_of(tasks, 20, 1, 3)):
        assert [question for _, question in other] != [question for _, question in first]
    assert len({task.name for task, _ in first}) > 3
    longest = max(len(task.prompt(question)) for task, question in questions_of(tasks, 200, 0, 0))
    assert longest == longest_prompt(parse("synthetic:tasks(length=6)"))


def test_prompts_are_read_and_answers_scored() -> None:
    prompts = [np.array([9, 5], np.int32), np.array([9, 6, 7], np.int32)]
    tokens, scored = laid_out(prompts, np.array([[1, 9, -1], [1, 2, 3]], np.int32), 6)
    assert tokens.tolist() == [[9, 5, 1, 9, -1, -1, -1], [9, 6, 7, 1, 2, 3, -1]]
    assert [list(np.flatnonzero(row)) for row in scored] == [[1, 2], [2, 3, 4]]


@pytest.mark.long
def test_answers_follow_from_the_parameters_and_the_number_of_the_batch() -> None:
    config = reinforced(8, objective={"updates": 2})
    mesh = make_mesh(MeshConfig())
    params = [init(MODEL, jax.random.key(seed)) for seed in (0, 1)]
    source = SampledAnswers(config, mesh, Checker(graded=True))
    first = source(2, params[0])
    assert source(3, params[1]) is first, "the second update reads the same answers"
    later = source(4, params[0])
    same = SampledAnswers(config, mesh, Checker(graded=True))(4, params[0])
    other = SampledAnswers(config, mesh, Checker(graded=True))(4, params[1])
    for name, values in later.items():
        assert np.array_equal(values, same[name]), name
    assert not np.array_equal(later["tokens"], first["tokens"])
    assert not np.array_equal(later["tokens"], other["tokens"])
    groups = np.asarray(later["tokens"]).reshape(-1, 8, 33)
    assert (groups[:, :, :9] == groups[:, :1, :9]).all(), "a group has one prompt"
    assert np.asarray(later["advantage"]).reshape(-1, 8).mean(axis=1) == pytest.approx(0, abs=1e-5)


def test_flops_of_drawing_are_those_of_prompts_answers_and_their_probabilities() -> None:
    config = reinforced(4)
    positions = 9 + ANSWER - 1
    once = 32 * positions * flops_per_token_forward(replace(MODEL, context=positions))
    assert drawing_flops(config) == once
    twice = reinforced(4, objective={"updates": 2})
    assert drawing_flops(twice) == (once + 32 * MODEL.context * flops_per_token_forward(MODEL)) // 2
    assert drawing_flops(FIRST) == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": DataConfig(source="stdlib")}, "draws answers to the questions of tasks, .* 'stdlib' is none"),
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


def test_memory_is_that_of_drawing_where_an_update_takes_less() -> None:
    """All answers of a batch are drawn together, and in micro-batches few of them are learned from at once."""
    whole, parts = (
        reinforced(4, optimizer={"batch_sequences": 512, "micro_batches": micro_batches}) for micro_batches in (1, 64)
    )
    assert counting.memory_bytes(parts) == counting.state_bytes(parts) + counting.drawing_bytes(parts)
    assert counting.memory_bytes(whole) > counting.state_bytes(whole) + counting.drawing_bytes(whole)


def test_memory_is_asked_for_the_answers_and_the_reward_model_too(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = reinforced(4), reinforced(4, objective={"updates": 2})
    assert counting.drawing_bytes(FIRST) == 0 < counting.drawing_bytes(few) < counting.drawing_bytes(many)
    judge = replace(MODEL, width=480, layers=30, heads=30, scalar_head=True)
    monkeypatch.setattr(machine, "free_memory_bytes", lambda devices: 2 * machine.step_bytes(few))
    machine.check_memory(few)
    with pytest.raises(MemoryShortage, match=r"needs about .* GiB, .*, 0\.4 for the reward model, but"):
        machine.check_memory(few, reward=judge)
