"""The IsoFLOP sweep of the demo in small: how should FLOPs be split between model and data?

    lmscale demo --short

20 byte models at four budgets a factor 3 apart, a seventeenth of those of `sweeps/isoflop_cpu.py`, the largest held
out. A few minutes on two idle cores. It shows every step of a study; with models so small its numbers are its own.
"""

from lmscale import Sweep, isoflop, recipes

BUDGETS = (1.5e10, 4.5e10, 1.35e11, 4.05e11)

SWEEP = Sweep(
    name="isoflop_short",
    question="At a fixed compute budget, how should FLOPs be split between model and data?",
    points=isoflop(BUDGETS, centre=lambda flops: 1e5 * (flops / 2e12) ** 0.45, sizes=5, spread=3.0),
    recipe=recipes.cpu,
    held_out=lambda point: point["flops"] == BUDGETS[-1],
)
