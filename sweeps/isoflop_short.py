"""The IsoFLOP sweep of the demo in small: how should FLOPs be split between model and data?

    lmscale demo --short

Twelve byte models of one layer at three budgets a factor 4 apart, the largest held out. Four sizes per budget are a
factor 2 apart, so that budgets share shapes, and one batch for all lets them share compiled programs: most of such a run
is its start. It shows every step of a study; with models so small its numbers are its own.
"""

from dataclasses import replace

from lmscale import Sweep, isoflop, recipes

BUDGETS = (8e9, 3.2e10, 1.28e11)
SHALLOW = replace(recipes.cpu.family, min_layers=1)

SWEEP = Sweep(
    name="isoflop_short",
    question="At a fixed compute budget, how should FLOPs be split between model and data?",
    points=isoflop(BUDGETS, centre=lambda flops: 1.1e4 * (flops / 8e9) ** 0.5, sizes=4, spread=8**0.5),
    recipe=recipes.cpu(family=SHALLOW, batch_sequences=2),
    held_out=lambda point: point["flops"] == BUDGETS[-1],
)
