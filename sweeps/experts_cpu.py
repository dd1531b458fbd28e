"""Experts on a CPU: what are they worth at equal FLOPs, and does that depend on the size of the model and its data?

    lmscale plan sweeps/experts_cpu.py
    lmscale run  sweeps/experts_cpu.py
    python experiments/experts_cpu.py      # the same, then the law, its intervals and the figure

Byte models on the source code of Python's standard library: three widths, dense and with 2, 4 and 8 experts of which a
token passes one (Clark 2022, arXiv 2202.01169), at three lengths. The FLOPs of a token are those of the dense model but
for the router. The largest width is the prediction: no fit sees it. The rate is that of `recipes.cpu` for the dense
model of these FLOPs, times experts^-1/4 (Ludziejewski 2025, arXiv 2502.05172, appendix on learning rates). The outcome
is in `experiments/experts_cpu.py`.
"""

from lmscale import ModelConfig, Sweep, chain, grid, hold_out, recipes, with_experts

WIDTHS, LARGEST = (16, 24, 40), 64
LENGTHS = (1e6, 2e6, 4e6)
EXPERTS = (1, 2, 4, 8)


def rate(model: ModelConfig, tokens: float) -> float:
    """The peak rate of a model with experts."""
    return recipes.cpu.lr(model, tokens) * model.experts**-0.25


SWEEP = Sweep(
    name="experts_cpu",
    question="What are experts worth at equal FLOPs, and does that depend on the size of the model?",
    points=chain(
        with_experts(grid(width=WIDTHS, tokens=LENGTHS), EXPERTS),
        hold_out(with_experts(grid(width=[LARGEST], tokens=LENGTHS[-1:]), EXPERTS)),
    ),
    recipe=recipes.cpu(lr=recipes.Rule(rate, "recipes.cpu at the active N, times experts^-1/4 (Ludziejewski 2025)")),
    law="",
)
