"""Byte models for a CPU, with rates and batches tuned by a sweep of this repository."""

from lmscale.core.config import ModelConfig
from lmscale.core.counting import active_params_total
from lmscale.study.recipes.family import Family
from lmscale.study.recipes.recipe import Recipe, Rule

TUNED = "sweeps/tune_cpu.py (20k to 246k parameters, 5e11 and 2e12 FLOPs)"

CPU_FAMILY = Family(
    width_multiple=4,
    aspect_ratio=None,
    head_width=16,
    min_heads=2,
    base=ModelConfig(width=16, layers=1, heads=1, vocab=256, context=128),
)
"""Byte models of 10k to 1M parameters that a CPU trains in seconds. All have two layers: at this size a third
would add 40 % to N and put a kink into every valley."""

cpu = Recipe(
    name="cpu",
    source=TUNED,
    family=CPU_FAMILY,
    lr=Rule(lambda model, tokens: 0.009 * (active_params_total(model) / 1e5) ** -0.5, f"{TUNED}: .009 (N / 1e5)^-1/2"),
    batch_sequences=Rule(
        lambda model, tokens: max(1, round(0.56 * tokens**0.5 / model.context)), f"{TUNED}: .56 D^1/2 tokens"
    ),
    optimizer={"final_lr_fraction": 0.1, "beta2": 0.98},
    run={"validations": 1, "keep_checkpoint": False},
)
"""Byte models on the standard library's source, for a CPU.

From `sweeps/tune_cpu.py` (its docstring has the outcome): peak rate .009 (N / 1e5)^-1/2 and batch .56 D^1/2 tokens,
which lie within the best cell or next to it at every size. The batch follows D, so along an IsoFLOP it falls as N
grows: each run gets the batch that suits its length.
"""
