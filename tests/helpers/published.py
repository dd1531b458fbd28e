"""Tiny models of every published class that lmscale writes, with random parameters that are the same everywhere."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lmscale.core.config import ModelConfig, RopeScaling, RouterConfig
from lmscale.lm.model.parameters import parameter_table

MUP = {"parametrization": "mup", "base_width": 8, "base_head_width": 4}
COMPLETEP = {"parametrization": "completep", "base_width": 8, "base_layers": 1}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "llama, untied, grouped, biases": (
        "LlamaForCausalLM", {"kv_heads": 2, "tied_embeddings": False, "biases": True, "rope_base": 1e5}
    ),
    "llama, muP, multi-query": ("LlamaForCausalLM", {**MUP, "kv_heads": 1}),
    "llama, CompleteP, untied": ("LlamaForCausalLM", {**COMPLETEP, "tied_embeddings": False}),
    "llama 3": (
        "LlamaForCausalLM",
        {"rope_scaling": RopeScaling(factor=8.0, original_context=16), "head_features": 12, "mlp": "geglu"},
    ),
    "qwen2": ("Qwen2ForCausalLM", {"qkv_biases": True, "kv_heads": 2}),
    "qwen3, muP": ("Qwen3ForCausalLM", {**MUP, "qk_norm": True, "head_features": 16, "kv_heads": 2}),
    "gemma": ("GemmaForCausalLM", {"norm": "rmsnorm-offset", "mlp": "geglu", "head_features": 16, "kv_heads": 1}),
    "gemma, muP": ("GemmaForCausalLM", {**MUP, "norm": "rmsnorm-offset", "mlp": "geglu"}),
    "arcee": ("ArceeForCausalLM", {"mlp": "relu2", "biases": True}),
    "arcee, GELU, untied": ("ArceeForCausalLM", {"mlp": "gelu", "kv_heads": 2, "tied_embeddings": False}),
    "gpt2": (
        "GPT2LMHeadModel",
        {"norm": "layernorm", "positions": "learned", "mlp": "gelu", "biases": True, "init": "gpt2"},
    ),
    "gpt2, CompleteP, untied, no biases": (
        "GPT2LMHeadModel",
        {**COMPLETEP, "norm": "layernorm", "positions": "learned", "mlp": "gelu-erf", "tied_embeddings": False},
    ),
    "neox": (
        "GPTNeoXForCausalLM",
        {
            "norm": "layernorm", "mlp": "gelu-erf", "biases": True, "parallel_block": True, "rope_fraction": 0.25,
            "tied_embeddings": False,
        },
    ),
    "neox, tied, no biases": ("GPTNeoXForCausalLM", {"norm": "layernorm", "mlp": "relu2"}),
    "starcoder2": ("Starcoder2ForCausalLM", {"norm": "layernorm", "mlp": "gelu", "biases": True, "kv_heads": 2}),
    "stablelm": ("StableLmForCausalLM", {"norm": "layernorm", "kv_heads": 2, "rope_fraction": 0.5, "qkv_biases": True}),
    "mixtral": ("MixtralForCausalLM", {"experts": 4, "experts_per_token": 2, "kv_heads": 2, "tied_embeddings": False}),
    "mixtral, muP, narrow": (
        "MixtralForCausalLM", {**MUP, "experts": 6, "experts_per_token": 3, "expert_width": 24, "mlp": "geglu"}
    ),
    "qwen3-moe, one expert": ("Qwen3MoeForCausalLM", {"qk_norm": True, "experts": 5, "head_features": 16}),
    "qwen3-moe, CompleteP": (
        "Qwen3MoeForCausalLM",
        {**COMPLETEP, "qk_norm": True, "experts": 4, "experts_per_token": 2, "expert_width": 24, "kv_heads": 2},
    ),
    "glm4-moe": (
        "Glm4MoeForCausalLM",
        {
            "experts": 6, "experts_per_token": 3, "expert_width": 24, "shared_experts": 2, "qkv_biases": True,
            "rope_fraction": 0.5, "router": RouterConfig(gate="sigmoid", scale=2.5, bias_rate=1e-3),
        },
    ),
    "glm4-moe, muP, nothing shared": (
        "Glm4MoeForCausalLM",
        {
            **MUP, "experts": 4, "experts_per_token": 2, "qk_norm": True, "kv_heads": 2, "tied_embeddings": False,
            "router": RouterConfig(gate="sigmoid", normalized=False),
        },
    ),
}  # fmt: skip
"""Name -> the class that it is, and its options."""


def tiny(**options: Any) -> ModelConfig:
    return ModelConfig(**{"width": 32, "layers": 2, "heads": 4, "vocab": 61, "context": 64, **options})


def random_params(config: ModelConfig, seed: int = 1) -> dict[str, np.ndarray]:
    """Parameters of the table's scale, with biases and gains off 0 and 1, so that each of them is seen."""
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(row.mean + (row.std or 0.1) * rng.standard_normal(row.shape), config.param_dtype)
        for name, row in parameter_table(config).items()
    }


def random_tokens(config: ModelConfig) -> np.ndarray:
    """Two sequences of the whole context."""
    return np.random.default_rng(0).integers(0, config.vocab, (2, config.context))


def checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """The same for the same names, shapes and bits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape} {tensors[name].dtype}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()[:16]
