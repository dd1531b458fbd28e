"""What do more tokens buy a model of fixed size, and can one trunk with cooldown branches say it for less?

    lmscale plan sweeps/trunk_cpu.py

Five byte models of the CPU recipe, each with one warmup-stable-decay trunk and a cooldown branch at 5, 10, 20, 40 and
80 tokens per parameter: 25 points of a law for .61 of what they cost apart (Haegele 2024, arXiv 2405.18392). Every
branch is a run of its own, so that the table of the sweep looks like any other; branches of a trunk share noise and are
drawn together by the bootstrap. The largest size is the prediction: no fit sees it. Planned, not yet trained.
"""

from lmscale import Sweep, recipes, trunk

SIZES = (2e4, 4e4, 8e4, 1.6e5, 3.2e5)

SWEEP = Sweep(
    name="trunk_cpu",
    question="What do more tokens buy a model of fixed size?",
    points=trunk(SIZES, tokens_per_param=[5, 10, 20, 40, 80]),
    recipe=recipes.cpu,
    held_out=lambda point: point["params"] == SIZES[-1],
)
