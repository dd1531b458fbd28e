"""A sweep is a value: points in the space of a scaling law, a recipe that turns each into a run, and the held-out runs.

Importing a sweep file does nothing; `plan` checks and counts every run before a FLOP is spent.
"""

from lmscale.study.sweep.builders import (
    chinchilla_params,
    fixed_model,
    isoflop,
    ladder,
    lr_transfer,
    over_training,
    repeat_data,
    seeds,
    trunk,
    with_experts,
)
from lmscale.study.sweep.declare import Sweep
from lmscale.study.sweep.parents import PARENT_FIELDS, PARENT_VERBS
from lmscale.study.sweep.points import Point, Points, chain, grid, hold_out, product, where, zip
from lmscale.study.sweep.runs import Plan, flops_text, plan, whole_batches
from lmscale.study.sweep.stages import LORA_AXES, distil, fine_tune, prefer, reinforce, reward
from lmscale.study.sweep.stored import plan_of_runs, read
from lmscale.study.sweep.sweep_file import load
from lmscale.study.sweep.text import experts_text

__all__ = [
    "LORA_AXES",
    "PARENT_FIELDS",
    "PARENT_VERBS",
    "Plan",
    "Point",
    "Points",
    "Sweep",
    "chain",
    "chinchilla_params",
    "distil",
    "experts_text",
    "fine_tune",
    "fixed_model",
    "flops_text",
    "grid",
    "hold_out",
    "isoflop",
    "ladder",
    "load",
    "lr_transfer",
    "over_training",
    "plan",
    "plan_of_runs",
    "prefer",
    "product",
    "read",
    "reinforce",
    "repeat_data",
    "reward",
    "seeds",
    "trunk",
    "where",
    "whole_batches",
    "with_experts",
    "zip",
]
