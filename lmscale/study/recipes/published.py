"""Published rules for rate, batch, warmup, decay and betas, each as a recipe over a family of shapes.

N is that of one token: of a model with experts the active parameters, which is ours where the paper has dense models.
A batch or a decay that follows N or D changes along an IsoFLOP: `lmscale plan` says so of every plan it happens in.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lmscale.core.arguments import Count, Positive, checked
from lmscale.core.config import ModelConfig
from lmscale.core.counting import active_params_non_embedding, flops_per_token_deepseek
from lmscale.study.recipes.family import Family
from lmscale.study.recipes.recipe import Recipe, Rule, constant, power_of_two

GPT3 = "Brown 2020, arXiv 2005.14165, appendix B"
KAPLAN = "Kaplan 2020, arXiv 2001.08361, eq. D.1: .003239 - .0001395 ln N, N non-embedding"
STEP_LAW = "Step Law, Li 2025, arXiv 2503.04715"
DEEPSEEK = "DeepSeek-AI 2024, arXiv 2401.02954, eq. 1"
PORIAN = "Porian 2024, arXiv 2406.19146"
LADDER = "OLMo ladder, Bhagia 2024, arXiv 2412.04403, after Porian 2024"
YANG = "Yang 2022, arXiv 2203.03466"
DEY = "Dey 2025, arXiv 2505.01618"

LEAST_STEPS = 1000
"""Updates that `standard` leaves a short run: its published batch is of runs a thousand times as long."""
PORIAN_N = 108e6
"""The size at which Porian's rules, and the ladder's, are anchored."""


@checked
def standard(family: Family, **more: Any) -> Recipe:
    """What most papers do: Kaplan's rate, half a million tokens a batch, and the settings of GPT-3.

    The batch is bounded to a thousandth of D, so that short runs have steps to learn in.
    """

    def batch(model: ModelConfig, tokens: float) -> float:
        return power_of_two(min(2**19, tokens / LEAST_STEPS) / model.context)

    return _recipe(
        "standard",
        GPT3,
        family,
        Rule(lambda model, tokens: 0.003239 - 0.0001395 * math.log(active_params_non_embedding(model)), KAPLAN),
        Rule(batch, f"2^19 tokens ({GPT3}), at most D / {LEAST_STEPS}, as a power of two of sequences"),
        {"beta2": 0.95, "weight_decay": 0.1, "final_lr_fraction": 0.1, "warmup_fraction": 0.1},
        more,
    )


@checked
def step_law_lr(model: ModelConfig, tokens: Positive) -> float:
    """Peak rate 1.797 N^-.7129 D^.3075, N non-embedding (Li 2025, Step Law, arXiv 2503.04715)."""
    return 1.797 * active_params_non_embedding(model) ** -0.7129 * tokens**0.3075


@checked
def step_law_batch(largest_tokens: Count | None = None) -> Callable[[ModelConfig, float], int]:
    """Batch .5807 D^.5709 tokens (Step Law, as above), as the nearest power of two of sequences.

    `largest_tokens` bounds it to what a device holds: said here because a bound batch is a departure from the rule.
    """

    def sequences(model: ModelConfig, tokens: float) -> int:
        batch_tokens = min(0.5807 * tokens**0.5709, largest_tokens or math.inf)
        return power_of_two(batch_tokens / model.context)

    return sequences


@checked
def step_law(family: Family, *, largest_batch: Count | None = None, **more: Any) -> Recipe:
    """Step Law's rate and batch; `largest_batch` bounds the batch in tokens."""
    bound = f", at most {largest_batch:,} tokens" if largest_batch else ""
    return _recipe(
        "step_law",
        STEP_LAW,
        family,
        Rule(step_law_lr, f"{STEP_LAW}: 1.797 N^-.7129 D^.3075, N non-embedding"),
        Rule(step_law_batch(largest_batch), f"{STEP_LAW}: .5807 D^.5709 tokens, as a power of two of sequences{bound}"),
        {"beta2": 0.95, "weight_decay": 0.1},
        more,
    )


@checked
def deepseek(family: Family, **more: Any) -> Recipe:
    """Rate .3118 C^-.125 and batch .2920 C^.3271 tokens, C = M D with DeepSeek's M per token."""

    def flops(model: ModelConfig, tokens: float) -> float:
        return flops_per_token_deepseek(model) * tokens

    return _recipe(
        "deepseek",
        DEEPSEEK,
        family,
        Rule(lambda model, tokens: 0.3118 * flops(model, tokens) ** -0.125, f"{DEEPSEEK}: .3118 C^-.125, C = M D"),
        Rule(
            lambda model, tokens: 0.2920 * flops(model, tokens) ** 0.3271 / model.context,
            f"{DEEPSEEK}: .2920 C^.3271 tokens, C = M D",
        ),
        {"beta2": 0.95, "weight_decay": 0.1, "final_lr_fraction": 0.1},
        more,
    )


def _porian_lr(source: str) -> Rule:
    return Rule(
        lambda model, tokens: 0.0047 * (active_params_non_embedding(model) / PORIAN_N) ** (-1 / 3),
        f"{source}: .0047 (N / 108M)^-1/3, N non-embedding",
    )


def _porian_batch(source: str) -> Rule:
    return Rule(
        lambda model, tokens: 160 * 2048 * (active_params_non_embedding(model) / PORIAN_N) ** (2 / 3) / model.context,
        f"{source}: 160 (N / 108M)^2/3 sequences of 2048, N non-embedding",
    )


def _warmup_of_n(model: ModelConfig, tokens: float) -> float:
    return min(0.2, active_params_non_embedding(model) / tokens)


@checked
def olmo_ladder(family: Family, **more: Any) -> Recipe:
    """Rate and batch follow N; warmup over N tokens. The batch grows with N along an IsoFLOP, and the plan says so."""
    warmup = Rule(_warmup_of_n, f"{LADDER}: N tokens, at most a fifth of the run")
    settings = {"beta2": 0.95, "weight_decay": 0.1, "final_lr_fraction": 0.1, "warmup_fraction": warmup}
    return _recipe("olmo_ladder", LADDER, family, _porian_lr(LADDER), _porian_batch(LADDER), settings, more)


@checked
def porian_tuned(family: Family, **more: Any) -> Recipe:
    """Porian's tuned chain: rate, batch and beta2 follow N, warmup is short, no weight decay.

    The paper raises beta2 where batches are small; that the switch lies at 108M parameters is our reading.
    """
    beta2 = Rule(
        lambda model, tokens: 0.99 if active_params_non_embedding(model) <= PORIAN_N else 0.95,
        f"{PORIAN}: .99 where batches are small, .95 else; the switch at 108M is ours",
    )
    warmup = Rule(_warmup_of_n, f"{PORIAN}: N tokens, at most a fifth of the run")
    settings = {"beta2": beta2, "weight_decay": 0.0, "warmup_fraction": warmup}
    return _recipe("porian_tuned", PORIAN, family, _porian_lr(PORIAN), _porian_batch(PORIAN), settings, more)


@checked
def mup(family: Family, *, base_width: Count, peak_lr: Positive, batch_tokens: Count, **more: Any) -> Recipe:
    """One rate for all widths under muP, that which was tuned at `base_width`; the batch is the same for all."""
    base = family.shape(base_width)
    return _transferred("mup", YANG, family, base, None, peak_lr, batch_tokens, more)


@checked
def completep(family: Family, *, base_width: Count, peak_lr: Positive, batch_tokens: Count, **more: Any) -> Recipe:
    """One rate for all widths and depths under CompleteP, that of the member of width `base_width`."""
    base = family.shape(base_width)
    return _transferred("completep", DEY, family, base, base.layers, peak_lr, batch_tokens, more)


def _transferred(
    name: Any,
    source: str,
    family: Family,
    base: ModelConfig,
    base_layers: int | None,
    peak_lr: float,
    batch_tokens: int,
    more: dict[str, Any],
) -> Recipe:
    shared = replace(family.base, parametrization=name, base_width=base.width, base_layers=base_layers)
    return _recipe(
        name,
        source,
        replace(family, base=shared),
        constant(peak_lr, f"{source}: tuned at width {base.width} x {base.layers} layers, carried over"),
        Rule(lambda model, tokens: batch_tokens / model.context, "the recipe's own, one for all sizes"),
        {},
        more,
    )


def _recipe(
    name: str,
    source: str,
    family: Family,
    lr: Rule,
    batch: Rule,
    settings: dict[str, Any],
    more: dict[str, Any],
) -> Recipe:
    """The recipe of a source with the settings `more` that its caller gives, as `Recipe.__call__` takes them."""
    recipe = Recipe(name=name, source=source, family=family, lr=lr, batch_sequences=batch, optimizer=settings)
    return recipe(**more)
