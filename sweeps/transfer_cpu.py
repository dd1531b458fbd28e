"""Transfer on a CPU: how much code is it worth to have read prose before?

    lmscale plan sweeps/transfer_cpu.py
    lmscale run  sweeps/transfer_cpu.py
    python experiments/transfer_cpu.py      # the same, then data transferred, the laws and the figure

Byte models of three widths. Each reads 2M bytes of prose, the docstrings of Python's standard library, and is then
trained on code, the same modules without docstrings, for seven lengths; and each is trained on code alone, from random
numbers, for lengths that reach the same losses (Hernandez 2021, arXiv 2102.01293). No token is read twice. Held out
from every fit: all fine-tuned runs of the largest width, and the longest of each other width. The outcome is in
`experiments/transfer_cpu.py`.

Peak rates are those of `recipes.cpu`, after prose times .22 (D_F / 262k)^.4: at the full rate fine-tuning forgets. Of
rates 1/16 to 2 times the recipe's, a pilot of 21 runs at widths 16 and 32 had its best, by parabolas, at .11 and .12
(33k tokens of code), .19 and .23 (262k), and .45 or more (1.0M).
"""

from lmscale import DataConfig, ModelConfig, Sweep, chain, fine_tune, grid, hold_out, recipes

WIDTHS, LARGEST = (24, 32), 48
PROSE_TOKENS = 2e6
LENGTHS = tuple(16_384.0 * 2**doubling for doubling in range(7))
"""Tokens of code after prose: 16k to 1.0M."""
SCRATCH_LENGTHS = tuple(131_072.0 * 2**doubling for doubling in range(6))
"""Tokens of code alone: 131k to 4.2M."""


def tuned_rate(model: ModelConfig, tokens: float) -> float:
    """The peak rate after prose."""
    return recipes.cpu.lr(model, tokens) * min(1.0, 0.22 * (tokens / 262_144) ** 0.4)


PROSE = grid(width=[*WIDTHS, LARGEST], tokens=[PROSE_TOKENS])
CODE = recipes.cpu(data=DataConfig(source="stdlib:code"))

SWEEP = Sweep(
    name="transfer_cpu",
    question="How many tokens of code are 2M bytes of prose worth?",
    points=chain(
        PROSE,
        grid(width=[*WIDTHS, LARGEST], tokens=SCRATCH_LENGTHS, stage=["scratch"]),
        hold_out(fine_tune(PROSE, tokens=LENGTHS), lambda run: run["width"] == LARGEST or run["tokens"] == LENGTHS[-1]),
    ),
    recipe=recipes.by_stage(
        pretrain=recipes.cpu(data=DataConfig(source="stdlib:docstrings"), keep_checkpoint=True),
        scratch=CODE,
        fine_tune=CODE(lr=recipes.Rule(tuned_rate, "recipes.cpu times .22 (D / 262k)^.4, by a pilot")),
    ),
    law="",
)
