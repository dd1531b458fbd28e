"""Does the whole loop work here?

    lmscale run sweeps/smoke.py      # seconds: three budgets of four tiny models

The models are too small to mean anything; the end-to-end test runs this sweep from plan to report.
"""

from lmscale import ModelConfig, Sweep, isoflop, recipes

BUDGETS = (1e9, 3e9, 9e9)
FAMILY = recipes.Family(
    width_multiple=4,
    aspect_ratio=32,
    head_width=16,
    min_layers=1,
    base=ModelConfig(width=16, layers=1, heads=1, context=32),
)
RECIPE = recipes.Recipe(
    name="smoke",
    source="nothing is claimed of it",
    family=FAMILY,
    lr=recipes.constant(0.01, "nothing is claimed of it"),
    batch_sequences=recipes.constant(4, "nothing is claimed of it"),
    run={"validation_tokens": 16_384, "validations": 2, "keep_checkpoint": False},
)

SWEEP = Sweep(
    name="smoke",
    question="Does the whole loop work here?",
    points=isoflop(BUDGETS, centre=lambda flops: 6e3 * (flops / 1e9) ** 0.5, sizes=4, spread=2.5),
    recipe=RECIPE,
    held_out=lambda point: point["flops"] == BUDGETS[-1],
)
