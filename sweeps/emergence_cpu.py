"""Abilities on a CPU: at which size does a model that reads code and exercises learn to copy, sort, add, ...?

    lmscale run sweeps/emergence_cpu.py
    lmscale emergence runs/emergence_cpu --axis params

Byte models over two decades of N, all on as many tokens: source code of Python's standard library, and lines of eight
algorithmic tasks, each with about a twentieth of the tokens; sums of nine digits are there to stay out of reach. Every
model is scored on fresh lines of each task when it ends, by exact match and by the share of characters in place.
`experiments/emergence_cpu.py` trains it, judges it and draws it; its outcome is there.
"""

from lmscale import DataConfig, ExamConfig, Sweep, grid, recipes, seeds

LANGUAGE = "synthetic:tasks(letters=4, length=4, digits=2)"
LONG_SUMS = 'synthetic:tasks(only="addition", digits=9)'
WIDTHS, TOKENS = (4, 8, 12, 16, 24, 32, 48, 64, 96), 8e6

SWEEP = Sweep(
    name="emergence_cpu",
    question="At which size do abilities appear, and does a graded metric say the same?",
    points=seeds(grid(width=WIDTHS, tokens=[TOKENS]), 2),
    recipe=recipes.cpu(data=DataConfig(source=f"mix: 0.55 * stdlib + 0.4 * {LANGUAGE} + 0.05 * {LONG_SUMS}")),
    exam=ExamConfig(tasks=(LANGUAGE, LONG_SUMS)),
    law="",
)
