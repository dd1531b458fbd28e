"""IsoFLOP on a CPU: at a fixed compute budget, how should FLOPs be split between model and data?

    lmscale plan sweeps/isoflop_cpu.py      # prints the runs and their cost; starts nothing
    lmscale run  sweeps/isoflop_cpu.py
    lmscale report runs/isoflop_cpu

28 byte models on the source code of Python's standard library. The largest budget is the prediction: no fit sees it.
About 16 minutes on two idle cores of an AMD EPYC whose matmul peak was 214 GFLOP/s. Outcome (2026-11): a = .430 [.370,
.489] by the minima of the valleys and .429 [.385, .476] by the parametric law, D*/N* = 37 and 40 bytes per parameter at
2.25e12 FLOPs; every minimum lies inside its grid. Rate and batch of each run: `recipes.cpu`, tuned by
`sweeps/tune_cpu.py`.
"""

from lmscale import Sweep, isoflop, recipes

BUDGETS = (2.5e11, 7.5e11, 2.25e12, 6.75e12)

SWEEP = Sweep(
    name="isoflop_cpu",
    question="At a fixed compute budget, how should FLOPs be split between model and data?",
    points=isoflop(BUDGETS, centre=lambda flops: 1e5 * (flops / 2e12) ** 0.45, sizes=7, spread=4.0),
    recipe=recipes.cpu,
    held_out=lambda point: point["flops"] == BUDGETS[-1],
)
