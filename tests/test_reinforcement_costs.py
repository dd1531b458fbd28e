"""What drawing answers costs: FLOPs, memory, and the plan of a sweep that ends in it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.reinforced import ANSWER, FIRST, MODEL, reinforced

from lmscale.core import counting
from lmscale.core.config import (
    DataConfig,
    Reinforcement,
    RewardModel,
)
from lmscale.core.counting import drawing_flops, flops_per_token_forward
from lmscale.core.errors import MemoryShortage
from lmscale.core.plans import write_plan
from lmscale.core.results import collect
from lmscale.lm.devices import machine
from lmscale.lm.train import bench
from lmscale.lm.train.loop import train
from lmscale.study import recipes
from lmscale.study.sweep import Plan, Sweep, chain, plan, reinforce, reward


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_plan_counts_what_drawing_and_training_cost(tmp_path: Path) -> None:
    """The plan of a sweep with a reward model says what its outcome says, generation and training apart."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps({"prompt": f"copy {x}=", "chosen": x, "rejected": x[::-1]}) + "\n" for x in ("ab", "ba") * 9)
    )
    base = {"params": counting.params_total(MODEL), "tokens": FIRST.tokens}
    priced = small_plan(str(pairs), base)
    by_stage = {run.stage: run for run in priced.runs}
    for stage in ("pretrain", "reward", "reinforce"):
        train(by_stage[stage].config, tmp_path / "runs" / by_stage[stage].config.run_id)
    planned, config = by_stage["reinforce"], by_stage["reinforce"].config
    result = train(config, tmp_path / "runs" / config.run_id)
    judge, rows_read = by_stage["reward"].config.model, config.steps // 2 * config.optimizer.batch_sequences
    read = flops_per_token_forward(judge) * config.model.context * rows_read
    assert planned.batch_flops == result.batch_flops == drawing_flops(config) * config.steps + read
    assert planned.reference_flops == result.reference_flops > 0
    assert result.flops == counting.count(config).flops
    write_plan(tmp_path / "runs", "s", priced.runs, {})
    row = collect(tmp_path / "runs").set_index("run").loc[config.run_id]
    assert row["reward_model"] == by_stage["reward"].config.run_id and row["stage"] == "reinforce"
    assert result.reported is not None and row["reported_reward"] == result.reported["reward"]
    assert planned.paid_flops == result.flops + result.batch_flops + result.reference_flops
    assert priced.flops == priced.flops_apart == sum(run.paid_flops for run in priced.runs)
    assert f", {result.batch_flops:.3g} of them to draw and judge answers" in str(priced)
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


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_bench_draws_the_answers_too() -> None:
    config = reinforced(4)
    speed = bench.measure(config, steps=2)
    per_token = counting.flops_per_token(MODEL) + flops_per_token_forward(MODEL)
    per_token += drawing_flops(config) / config.batch_tokens
    assert speed.flops_per_second == pytest.approx(speed.tokens_per_second * per_token)


def test_flops_of_drawing_are_those_of_prompts_answers_and_their_probabilities() -> None:
    config = reinforced(4)
    positions = 9 + ANSWER - 1
    once = 32 * positions * flops_per_token_forward(replace(MODEL, context=positions))
    assert drawing_flops(config) == once
    twice = reinforced(4, objective={"updates": 2})
    assert drawing_flops(twice) == (once + 32 * MODEL.context * flops_per_token_forward(MODEL)) // 2
    assert drawing_flops(FIRST) == 0


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
