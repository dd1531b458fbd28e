"""Recipes: every opinion that turns a point (N, D, C) into a run, each rule with its source.

A recipe is called with a point and gives its run. Every recipe here is called with its settings first:
`recipes.mup(FAMILY, base_width=64, peak_lr=.01, batch_tokens=4096)`, `recipes.cpu(keep_checkpoint=True)`. As `cpu`
needs none, it is complete without being called.

Arithmetic is in `counting`; nothing here is a law, and every number is open to debate.
"""

from lmscale.study.recipes.by_stage import ByStage, by_stage
from lmscale.study.recipes.family import Family, nearest_model
from lmscale.study.recipes.from_sweep import BestCell, best_cells, tuned
from lmscale.study.recipes.published import (
    completep,
    deepseek,
    mup,
    olmo_ladder,
    porian_tuned,
    standard,
    step_law,
    step_law_batch,
    step_law_lr,
)
from lmscale.study.recipes.recipe import Recipe, Rule, constant, power_of_two
from lmscale.study.recipes.small import CPU_FAMILY, cpu

__all__ = [
    "CPU_FAMILY",
    "BestCell",
    "ByStage",
    "Family",
    "Recipe",
    "Rule",
    "best_cells",
    "by_stage",
    "completep",
    "constant",
    "cpu",
    "deepseek",
    "mup",
    "nearest_model",
    "olmo_ladder",
    "porian_tuned",
    "power_of_two",
    "standard",
    "step_law",
    "step_law_batch",
    "step_law_lr",
    "tuned",
]
