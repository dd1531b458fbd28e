"""Parameters, FLOPs and bytes of a model under every named convention: the one place with a formula for N or C."""

from dataclasses import dataclass, fields
from functools import lru_cache

from lmscale.core.config import ModelConfig, RunConfig
from lmscale.core.counting.activations import DTYPE_BYTES, Platform, activation_bytes
from lmscale.core.counting.flops import (
    TRAIN_OVER_FORWARD,
    drawing_flops,
    flops_per_token,
    flops_per_token_6n,
    flops_per_token_deepseek,
    flops_per_token_forward,
    flops_per_token_full_attention,
    flops_per_token_kaplan,
    flops_per_token_with_head,
    reference_flops,
    validation_flops,
)
from lmscale.core.counting.memory import (
    drawing_bytes,
    memory_bytes,
    reference_bytes,
    state_bytes,
    state_bytes_on_mesh,
)
from lmscale.core.counting.params import (
    active_params_mlp,
    active_params_non_embedding,
    active_params_total,
    active_params_with_head,
    layer_matrices,
    outer_matrices,
    params_adapters,
    params_attention,
    params_bias,
    params_embedding,
    params_head,
    params_mlp,
    params_non_embedding,
    params_norm,
    params_positions,
    params_router,
    params_total,
    params_with_head,
    trained_params,
)

__all__ = [
    "ACTIVE",
    "DTYPE_BYTES",
    "SIZES",
    "TOTAL",
    "TRAIN_OVER_FORWARD",
    "Counts",
    "Platform",
    "activation_bytes",
    "active_params_mlp",
    "active_params_non_embedding",
    "active_params_total",
    "active_params_with_head",
    "count",
    "drawing_bytes",
    "drawing_flops",
    "flops_per_token",
    "flops_per_token_6n",
    "flops_per_token_deepseek",
    "flops_per_token_forward",
    "flops_per_token_full_attention",
    "flops_per_token_kaplan",
    "flops_per_token_with_head",
    "layer_matrices",
    "memory_bytes",
    "outer_matrices",
    "params_adapters",
    "params_attention",
    "params_bias",
    "params_embedding",
    "params_head",
    "params_mlp",
    "params_non_embedding",
    "params_norm",
    "params_positions",
    "params_router",
    "params_total",
    "params_with_head",
    "reference_bytes",
    "reference_flops",
    "state_bytes",
    "state_bytes_on_mesh",
    "trained_params",
    "validation_flops",
]


TOTAL, ACTIVE = "params", "active_params"
"""The two meanings of N in models with experts, by their names in `Counts` and in tables."""


@dataclass(frozen=True)
class Counts:
    """A run's N and C under every convention; `active_` counts what one token passes, of a dense model the same."""

    params: int
    params_non_embedding: int
    params_with_head: int
    active_params: int
    active_params_non_embedding: int
    active_params_with_head: int
    tokens: int
    flops: int
    flops_6n: int
    flops_kaplan: int
    flops_with_head: int
    flops_full_attention: int
    flops_deepseek: int
    forward_flops: int
    """One pass over the training tokens, in the convention of `flops`."""

    @property
    def tokens_per_param(self) -> float:
        """D / N with N all parameters."""
        return self.tokens / self.params


SIZES = tuple(item.name for item in fields(Counts) if "params" in item.name)
"""The counts of `Counts` that an N may be."""


def count(config: RunConfig, tokens: int | None = None) -> Counts:
    """Count `config` under every convention; `tokens` are those trained on, all of the run's unless given."""
    tokens = config.tokens if tokens is None else tokens
    params, flops = _of_model(config.model)
    return Counts(tokens=tokens, **params, **{name: number * tokens for name, number in flops.items()})


@lru_cache(maxsize=10_000)
def _of_model(model: ModelConfig) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters and FLOPs per token under every convention; the seeds and budgets of a sweep share their models."""
    params = {
        "params": params_total(model),
        "params_non_embedding": params_non_embedding(model),
        "params_with_head": params_with_head(model),
        "active_params": active_params_total(model),
        "active_params_non_embedding": active_params_non_embedding(model),
        "active_params_with_head": active_params_with_head(model),
    }
    return params, {
        "flops": flops_per_token(model),
        "flops_6n": flops_per_token_6n(model),
        "flops_kaplan": flops_per_token_kaplan(model),
        "flops_with_head": flops_per_token_with_head(model),
        "flops_full_attention": flops_per_token_full_attention(model),
        "flops_deepseek": flops_per_token_deepseek(model),
        "forward_flops": flops_per_token_forward(model),
    }
