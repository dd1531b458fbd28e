"""IsoFLOP on one H200: at a fixed compute budget, how should FLOPs be split between model and data?

    lmscale plan sweeps/isoflop_gpu.py      # prints the runs and their cost; starts nothing
    lmscale data tfds:wiki40b/en --allow-download
    lmscale run  sweeps/isoflop_gpu.py

28 runs, 2e19 training FLOPs: about 16 hours at 350 TFLOP/s. The largest budget is the prediction: no fit sees it.
"""

from lmscale import DataConfig, ModelConfig, Sweep, isoflop, recipes

BUDGETS = (6e16, 2e17, 6e17, 2e18)
FAMILY = recipes.Family(
    width_multiple=32,
    aspect_ratio=64,
    min_layers=4,
    head_width=64,
    base=ModelConfig(width=64, layers=1, heads=1, context=1024, compute_dtype="bfloat16"),
)

SWEEP = Sweep(
    name="isoflop_gpu",
    question="At a fixed compute budget, how should FLOPs be split between model and data?",
    points=isoflop(BUDGETS, centre=lambda flops: 8e7 * (flops / 1e18) ** 0.5, sizes=7, spread=4.0),
    # The batch is bounded by what one device holds without rematerialisation.
    recipe=recipes.step_law(
        FAMILY, largest_batch=65_536, data=DataConfig(source="tfds:wiki40b/en"), validation_tokens=1_048_576
    ),
    held_out=lambda point: point["flops"] == BUDGETS[-1],
    device="h200",
)
