"""Distillation on a CPU: does a student learn more from a teacher than from the text, at equal compute?

    lmscale plan sweeps/distillation_cpu.py
    lmscale run  sweeps/distillation_cpu.py
    python experiments/distillation_cpu.py      # the same, then who wins, the U in the teacher's loss and the figure

Byte models on the code of Python's standard library, without docstrings. Teachers: one width after three lengths, which
is how strong they are, and one as wide as the student. The student learns for three lengths from each teacher's
distribution alone (Busbridge 2025, arXiv 2502.08606), and from the text for these lengths and longer ones, beyond what
reading a teacher would have paid for. Rate and batch of all are those of `recipes.cpu` for training on text; the
students without a teacher are runs of `sweeps/transfer_cpu.py`, too. The outcome is in
`experiments/distillation_cpu.py`.
"""

from lmscale import DataConfig, Distillation, Sweep, chain, distil, grid, recipes

TEACHERS = chain(
    grid(width=[32], tokens=[131_072.0, 524_288.0, 2_097_152.0]),
    grid(width=[24], tokens=[2_097_152.0]),  # a student without a teacher, too
)
STUDENT = 24
LENGTHS = (131_072.0, 524_288.0, 1_048_576.0)
ALONE_LENGTHS = tuple(131_072.0 * 2**doubling for doubling in range(6))
"""Tokens without a teacher: 131k to 4.2M."""

CODE = recipes.cpu(data=DataConfig(source="stdlib:code"), keep_checkpoint=True)

SWEEP = Sweep(
    name="distillation_cpu",
    question="Does a student learn more from a teacher than from the text, at equal compute?",
    points=chain(
        TEACHERS,
        grid(width=[STUDENT], tokens=[length for length in ALONE_LENGTHS if length != 2_097_152.0]),
        distil(TEACHERS, [{"width": STUDENT}], tokens=LENGTHS),
    ),
    recipe=recipes.by_stage(pretrain=CODE, distil=CODE(objective=Distillation())),
    law="",
)
