"""A sweep is a value: points in the space of a scaling law, a recipe that turns each into a run, and what is held out.

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
)
from lmscale.study.sweep.declare import Sweep, load
from lmscale.study.sweep.points import Point, Points, chain, grid, hold_out, product, where, zip
from lmscale.study.sweep.runs import Plan, plan, whole_batches
from lmscale.study.sweep.stored import KEPT, of_runs_made, read

__all__ = [
    "KEPT",
    "Plan",
    "Point",
    "Points",
    "Sweep",
    "chain",
    "chinchilla_params",
    "fixed_model",
    "grid",
    "hold_out",
    "isoflop",
    "ladder",
    "load",
    "lr_transfer",
    "of_runs_made",
    "over_training",
    "plan",
    "product",
    "read",
    "repeat_data",
    "seeds",
    "trunk",
    "where",
    "whole_batches",
    "zip",
]
