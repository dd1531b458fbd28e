"""The IsoFLOP sweep of the demo in small: how should FLOPs be split between model and data?

    lmscale demo --short

Twelve byte models at three budgets a factor 3 apart, the largest held out. Most of such a run is its start: sizes are
a factor 3^1/2 apart, so that budgets share shapes, and one batch for all lets them share compiled programs. It shows
every step of a study; with models so small its numbers are its own.
"""

from lmscale import Sweep, isoflop, recipes

BUDGETS = (5e9, 1.5e10, 4.5e10)

SWEEP = Sweep(
    name="isoflop_short",
    question="At a fixed compute budget, how should FLOPs be split between model and data?",
    points=isoflop(BUDGETS, centre=lambda flops: 8.4e3 * (flops / 5e9) ** 0.5, sizes=4, spread=3**0.75),
    recipe=recipes.cpu(batch_sequences=2),
    held_out=lambda point: point["flops"] == BUDGETS[-1],
)
