"""The IsoFLOP sweep of the demo in small: how should FLOPs be split between model and data?

    lmscale plan sweeps/isoflop_short.py
    lmscale demo --short

Twelve byte models at three budgets a factor 3 apart, the largest held out. Most of such a run is its start: every
budget has the same four sizes (7k to 33k parameters) and one batch, so that budgets share compiled programs. It shows
every step of a study; with models so small its numbers are its own.
"""

from lmscale import Sweep, isoflop, recipes

BUDGETS = (5e9, 1.5e10, 4.5e10)

SWEEP = Sweep(
    name="isoflop_short",
    question="At a fixed compute budget, how should FLOPs be split between model and data?",
    points=isoflop(BUDGETS, centre=lambda flops: 1.48e4, sizes=4, spread=2.25),
    recipe=recipes.cpu(batch_sequences=2),
    held_out=lambda point: point["flops"] == BUDGETS[-1],
)
