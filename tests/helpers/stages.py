"""Recipes of every stage for a sweep of tiny models, and its plan."""

from dataclasses import replace
from typing import Any

from helpers.outcomes import RUN
from lmscale.core.config import Completion, DataConfig, Distillation, Preference, RewardModel
from lmscale.study import recipes
from lmscale.study.sweep import Plan, Sweep, ladder, plan

FAMILY = recipes.Family(width_multiple=4, aspect_ratio=None, head_width=8, base=replace(RUN.model, heads=1))
RECIPE = recipes.Recipe(
    name="tests",
    source="these tests",
    family=FAMILY,
    lr=recipes.constant(0.01, "these tests"),
    batch_sequences=recipes.constant(4, "these tests"),
    run={"keep_checkpoint": True},
)
ANSWERS = DataConfig(source="pairs.jsonl", prompt_field="prompt")
PAIRS = DataConfig(source="pairs.jsonl", template="preference", rejected_field="rejected")
STAGES = recipes.by_stage(
    pretrain=RECIPE,
    fine_tune=RECIPE(data=ANSWERS, objective=Completion(), optimizer={"final_lr_fraction": 0.5}),
    distil=RECIPE(objective=Distillation(temperature=2.0)),
    prefer=RECIPE(data=PAIRS, objective=Preference(beta=0.2)),
    reward=RECIPE(data=PAIRS, objective=RewardModel()),
)
BASE = ladder([2_000, 8_000], [10, 20])


def planned(points: Any, recipe: Any = STAGES, **changes: Any) -> Plan:
    return plan(Sweep(name="stages", points=points, recipe=recipe, law="", **changes))
