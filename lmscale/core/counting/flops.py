"""FLOPs of a token and of a run under every convention.

FLOPs are floating-point operations, a multiply-add counting two. A training step costs three forward passes: one
forward, two backward (Kaplan 2020, section 2.1). Norms, activations, softmax and rotations are left out, as everywhere
in the field: they are O(width) beside O(width^2). N is what one token is multiplied by: of a mixture of experts, the
active parameters (Clark 2022; DeepSeek-V3, 2024). Letters as in `params`.
"""

from dataclasses import replace

from lmscale.core.config import ModelConfig, Reinforcement, RunConfig
from lmscale.core.counting.params import (
    active_params_non_embedding,
    active_params_total,
    active_params_with_head,
    params_adapters,
)

TRAIN_OVER_FORWARD = 3


def flops_per_token_forward(model: ModelConfig) -> int:
    """Exact forward FLOPs of one token of a full context: projections, MLP, causal attention, head.

    A token attends to s / 2 keys on average (the diagonal's half key is left out, as in the field's tables); a key
    costs 2 a for its score and 2 a for its value, so 2 a s per layer: what is needed, not what a kernel without a
    causal mask computes.
    """
    matrices = active_params_with_head(model) + params_adapters(model)
    return 2 * matrices + model.layers * 2 * model.attention_width * model.context


def flops_per_token(model: ModelConfig) -> int:
    """C / D, the default convention: exact training FLOPs of one token.

    With adapters the matrices that stay as they are cost two passes instead of three: they have no gradient, only the
    activations before them have.
    """
    flops = TRAIN_OVER_FORWARD * flops_per_token_forward(model)
    return flops if model.lora is None else flops - 2 * active_params_with_head(model)


def flops_per_token_full_attention(model: ModelConfig) -> int:
    """6 (N_non-embedding + head) + 12 L a s: every query meets every key, masked or not (Chowdhery 2022, PaLM,
    appendix B)."""
    return flops_per_token_with_head(model) + 12 * model.layers * model.attention_width * model.context


def flops_per_token_with_head(model: ModelConfig) -> int:
    """6 N with N the matrices of the layers and the head, no attention (Porian 2024)."""
    return 6 * active_params_with_head(model)


def flops_per_token_6n(model: ModelConfig) -> int:
    """6 N with N all parameters (Hoffmann 2022)."""
    return 6 * active_params_total(model)


def flops_per_token_kaplan(model: ModelConfig) -> int:
    """6 N with N the non-embedding parameters (Kaplan 2020, equation 2.2 without attention)."""
    return 6 * active_params_non_embedding(model)


def flops_per_token_deepseek(model: ModelConfig) -> int:
    """M, non-embedding FLOPs with full attention: 72 L d^2 + 12 L d s where f = 4 d and a = d (DeepSeek-AI 2024, arXiv
    2401.02954, eq. 2)."""
    return flops_per_token_kaplan(model) + 12 * model.layers * model.attention_width * model.context


def reference_flops(reference: ModelConfig, config: RunConfig, tokens: int | None = None) -> int:
    """Forward FLOPs of a teacher or reference that reads the sequences of a run, or `tokens` tokens of them."""
    within = replace(reference, context=config.model.context)
    return flops_per_token_forward(within) * (config.tokens if tokens is None else tokens)


def drawing_flops(config: RunConfig) -> int:
    """Forward FLOPs per update of a run that draws its own answers: of the prompts, of every token of the longest
    answers, and, where several updates share a batch, of the probabilities at which its tokens were drawn."""
    settings, model = config.objective, config.model
    if not isinstance(settings, Reinforcement):
        return 0
    read = config.prompt_tokens + settings.answer_tokens - 1  # the last token is not read
    per_row = read * flops_per_token_forward(replace(model, context=read))
    if settings.updates > 1:
        per_row += model.context * flops_per_token_forward(model)
    return config.optimizer.batch_sequences * per_row // settings.updates


def validation_flops(config: RunConfig) -> int:
    """Forward FLOPs spent on the validation set, at most (a small split scores fewer tokens)."""
    return flops_per_token_forward(config.model) * config.validation_tokens * config.validations
