"""What is a token worth that the model has seen before?

    lmscale plan sweeps/repeat_cpu.py

Three sizes of byte models at two lengths, the text cut so that it is passed 1, 4, 16 and 40 times (Muennighoff 2023,
arXiv 2305.16264): all runs of a size and length cost the same, so that the repeats alone tell them apart. Planned, not
yet trained.
"""

from lmscale import Sweep, chain, recipes, repeat_data

SWEEP = Sweep(
    name="repeat_cpu",
    question="What is a token worth that the model has seen before?",
    points=chain(*(repeat_data([3e4, 8e4, 2e5], tokens, epochs=(1, 4, 16, 40)) for tokens in (1e6, 4e6))),
    recipe=recipes.cpu,
    law="data-constrained",
)
