"""Induction heads on a CPU: at which size, and after how much text, do small models learn to look back and copy?

    lmscale run sweeps/inside_cpu.py
    lmscale emergence runs/inside_cpu --axis params

Two-layer byte models on the text of `sweeps/emergence_cpu.py`, source code of Python's standard library and lines of
its exercises, and as much again of random words that recur, in which alone an induction head pays. Each is scored six
times on the way, on the exercises and inside: its best induction head, on the letters of those words and on all bytes,
and what its context saves. `experiments/inside_cpu.py` trains it and says which exercise waits for the head; its
outcome is there.
"""

from lmscale import DataConfig, ExamConfig, Sweep, grid, recipes

LANGUAGE = "synthetic:tasks(letters=4, length=4, digits=2)"
LONG_SUMS = 'synthetic:tasks(only="addition", digits=9)'
WORDS = "synthetic:repeats(letters=26, shortest=2, longest=26, copies=3)"
WIDTHS, TOKENS = (8, 16, 24, 32, 48, 64), 12e6
SHARES = (1 / 12, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 1.0)
"""Shares of a run's tokens after which it is scored."""

SWEEP = Sweep(
    name="inside_cpu",
    question="At which size, and after how much text, do induction heads appear, and what waits for them?",
    points=grid(width=WIDTHS, tokens=[TOKENS]),
    recipe=recipes.cpu(
        data=DataConfig(source=f"mix: 0.28 * stdlib + 0.2 * {LANGUAGE} + 0.02 * {LONG_SUMS} + 0.5 * {WORDS}"),
        keep_checkpoint=True,
    ),
    exam=ExamConfig(tasks=(LANGUAGE, f"inside:heads({WORDS})", "inside:heads", "inside:context"), items=100, at=SHARES),
    law="",
)
