"""Multipliers of the forward pass folded into the parameters, as published classes expect them.

Our models scale the embedding, what a layer adds, the scores of attention and the logits by factors that follow from
their parametrization (muP, CompleteP) and initialisation. Published classes know none of these but for the embedding's.
Every layer reads the residual stream through a norm, so the stream may be divided by any number m if epsilon is divided
by m^2; all other factors go into the matrix or gain next to them. Models without such factors keep every bit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig
from lmscale.lm.model.parameters import (
    attention_scale,
    embedding_multiplier,
    logit_multiplier,
    residual_multiplier,
)

WRITES_TO_RESIDUAL = (
    "attention_out", "attention_out_bias", "mlp_out", "mlp_out_bias", "experts_out", "shared_out"
)  # fmt: skip
QUERIES, KEYS = np.s_[..., :-2, :], np.s_[..., -2, :]
"""Parts of `attention_qkv` and of its bias, [..., P, K]."""


def fold(
    params: Mapping[str, NDArray[Any]], config: ModelConfig, embedding_scale: float = 1.0
) -> tuple[dict[str, NDArray[Any]], ModelConfig]:
    """Parameters and configuration of the same function with `embedding_scale` as its only multiplier.

    Scores of attention are then scaled by 1 / sqrt(K), and nothing else is scaled.
    """
    divisor = embedding_multiplier(config) / embedding_scale
    standard = config.parametrization == "standard"
    query_factor = 1.0 if standard else attention_scale(config) * math.sqrt(config.head_width)
    factors = {name: residual_multiplier(config) / divisor for name in WRITES_TO_RESIDUAL}
    factors["final_norm"] = factors["final_norm_bias"] = logit_multiplier(config)
    if config.qk_norm:
        factors["query_norm"] = query_factor
    folded = {name: _scaled(value, factors.get(name, 1.0), name, config) for name, value in params.items()}
    # epsilon of the norms of queries and keys is divided too, so what they read must be
    parts = [(QUERIES, 1 / divisor), (KEYS, 1 / divisor)] if config.qk_norm else [(QUERIES, query_factor)]
    for name in ("attention_qkv", "attention_qkv_bias"):
        if name in folded:
            folded[name] = _scaled_parts(folded[name], parts)
    plain = replace(
        config,
        parametrization="standard",
        base_width=None,
        base_layers=None,
        base_head_width=None,
        embedding_scale=embedding_scale,
        norm_epsilon=config.norm_epsilon / divisor**2,
    )
    return folded, plain


def _scaled(value: NDArray[Any], factor: float, name: str, config: ModelConfig) -> NDArray[Any]:
    if factor == 1:
        return value
    offset = float(config.norm == "rmsnorm-offset" and name in ("final_norm", "query_norm"))
    return ((value.astype(np.float64) + offset) * factor - offset).astype(value.dtype)


def _scaled_parts(value: NDArray[Any], parts: Sequence[tuple[Any, float]]) -> NDArray[Any]:
    if all(factor == 1 for _, factor in parts):
        return value
    scaled = value.astype(np.float64)
    for part, factor in parts:
        scaled[part] *= factor
    return scaled.astype(value.dtype)
