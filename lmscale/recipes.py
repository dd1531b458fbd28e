"""Opinions: what turns a point (N, D, C) into a run, each rule with its source.

Arithmetic is in `counting`; nothing here is a law, and every number can be argued with.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from lmscale.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, check
from lmscale.counting import flops_per_token, params_non_embedding, params_total
from lmscale.sweep import Point, whole_batches


@dataclass(frozen=True)
class Family:
    """A one-dimensional family of shapes: depth and heads follow from the width."""

    width_multiple: int
    """Widths are multiples of this."""
    aspect_ratio: float | None
    """Width over layers, as near as whole layers allow; None keeps `min_layers`."""
    head_width: int
    """Features per head, as near as whole heads allow."""
    min_layers: int = 2
    min_heads: int = 1
    max_width: int = 16_384
    base: ModelConfig = field(default_factory=lambda: ModelConfig(width=16, layers=1, heads=1))
    """All that is alike in the family: vocabulary, context, kind of MLP, ..."""

    def shape(self, width: int) -> ModelConfig:
        """The member of a given width."""
        layers = max(self.min_layers, round(width / (self.aspect_ratio or math.inf)))
        # Rotary positions turn pairs of features, so a head's width is even.
        even_heads = [h for h in range(self.min_heads, width // 2 + 1) if width % (2 * h) == 0]
        heads = min(even_heads, key=lambda h: abs(math.log(width / h / self.head_width)))
        return replace(self.base, width=width, layers=layers, heads=heads)

    def up_to(self, params: float) -> Iterator[ModelConfig]:
        """Members from the narrowest to the first with more than `params` parameters."""
        for width in range(self.width_multiple, self.max_width + 1, self.width_multiple):
            model = self.shape(width)
            yield model
            if params_total(model) > params:
                return


def nearest_model(params: float, family: Family) -> ModelConfig:
    """The member of `family` whose N (all parameters) is nearest to `params` in ratio.

    Raises `UserError` when the family's smallest or largest member is more than a factor 1.5 away.
    """
    check(params > 0, f"params = {params!r}: must be positive")
    best = min(family.up_to(2 * params), key=lambda model: abs(math.log(params_total(model) / params)))
    ratio = params_total(best) / params
    check(
        1 / 1.5 <= ratio <= 1.5,
        f"no model of this family has near {params:.3g} parameters; the nearest, width {best.width}, has "
        f"{params_total(best):,}",
    )
    return best


Rule = Callable[[ModelConfig, float], float]
"""(model, D tokens) -> a value."""


def step_law_lr(model: ModelConfig, tokens: float) -> float:
    """Peak rate 1.797 N^-.7129 D^.3075, N non-embedding (Li 2025, Step Law, arXiv 2503.04715)."""
    return 1.797 * params_non_embedding(model) ** -0.7129 * tokens**0.3075


def step_law_batch(largest_tokens: int | None = None) -> "Rule":
    """Batch .5807 D^.5709 tokens (Step Law, as above), as the nearest power of two of sequences.

    `largest_tokens` bounds it to what a device holds: said here because a bound batch is a departure from the rule.
    """

    def sequences(model: ModelConfig, tokens: float) -> int:
        batch_tokens = min(0.5807 * tokens**0.5709, largest_tokens or math.inf)
        return power_of_two(batch_tokens / model.context)

    return sequences


def power_of_two(value: float) -> int:
    """The power of two nearest to `value` in ratio, at least 1."""
    return 2 ** max(0, round(math.log2(value)))


def run_of(
    point: Point,
    family: Family,
    *,
    lr: Rule,
    batch_sequences: Rule,
    data: DataConfig = DataConfig(),  # noqa: B008 - frozen
    optimizer: dict[str, Any] | None = None,
    **run: Any,
) -> RunConfig:
    """The run at a point with `params` (N) or `width`, and `flops` (exact C) or `tokens` (D); `seed` is optional.

    D follows from C by the exact count of the chosen shape, so that every run of a budget costs the same.
    """
    model = family.shape(int(point["width"])) if "width" in point else nearest_model(point["params"], family)
    tokens = point["tokens"] if "tokens" in point else point["flops"] / flops_per_token(model)
    sequences = int(point["batch_sequences"]) if "batch_sequences" in point else int(batch_sequences(model, tokens))
    peak_lr = float(point["peak_lr"]) if "peak_lr" in point else lr(model, tokens)
    return RunConfig(
        model=model,
        data=data,
        optimizer=OptimizerConfig(peak_lr=peak_lr, batch_sequences=sequences, **(optimizer or {})),
        tokens=whole_batches(tokens, sequences * model.context),
        seed=int(point.get("seed", 0)),
        **run,
    )


CPU_FAMILY = Family(
    width_multiple=4,
    aspect_ratio=None,
    head_width=16,
    min_heads=2,
    base=ModelConfig(width=16, layers=1, heads=1, vocab=256, context=128),
)
"""Byte models of 10k to 1M parameters that a CPU trains in seconds. All have two layers: at this size a third is a jump
of 40 % in N, which would put a kink into every valley."""


def cpu(point: Point) -> RunConfig:
    """Byte models on the standard library's source, for a CPU.

    From `sweeps/tune_cpu.py` (20k to 246k parameters at 5e11 and 2e12 FLOPs; its docstring has the outcome): peak rate
    .009 (N / 1e5)^-1/2 and batch .56 D^1/2 tokens, which lie within the best cell or beside it at every size. The batch
    follows D, so along an IsoFLOP it falls as N grows: each run gets the batch that suits its length.
    """
    return run_of(
        point,
        CPU_FAMILY,
        lr=lambda model, tokens: 0.009 * (params_total(model) / 1e5) ** -0.5,
        batch_sequences=lambda model, tokens: max(1, round(0.56 * tokens**0.5 / model.context)),
        optimizer={"final_lr_fraction": 0.1, "beta2": 0.98},
        validations=1,
        keep_checkpoint=False,
    )
