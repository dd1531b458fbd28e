"""Classes whose layers are mixtures of experts: Mixtral, Qwen3-MoE, and GLM-4-MoE, whose router is DeepSeek-V3's.

DeepSeek-V3 itself has attention through latents (MLA), which our models lack.
"""

from typing import Any

from lmscale.core.config import ModelConfig, RouterConfig
from lmscale.lm.use.hf.architecture import ANY, Architecture, Entries
from lmscale.lm.use.hf.entries import Constant, Entry
from lmscale.lm.use.hf.fields import Fields
from lmscale.lm.use.hf.llama import (
    GATE,
    NORMS_OF_HEADS,
    UP,
    attention_entries,
    gain_entries,
    llama_fields,
    llama_json,
    outer_entries,
)

LAYER = "model.layers.{layer}."
BIAS_RATE = 1e-3
"""Rate of loss-free balancing (Wang 2024) of an imported model whose router has a bias, for further training."""


def _gated(prefix: str, names: tuple[str, str, str], params: tuple[str, str]) -> Entries:
    """The matrices of a gated MLP: gate, up, down."""
    (gate, up, down), (inner, outer) = names, params
    return [
        Entry(f"{prefix}{gate}.weight", inner, GATE, (1, 0), rows=1),
        Entry(f"{prefix}{up}.weight", inner, UP, (1, 0), rows=1),
        Entry(f"{prefix}{down}.weight", outer, (), (1, 0), rows=1),
    ]


PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def _experts(block: str, names: tuple[str, str, str]) -> Entries:
    matrices = _gated(f"{LAYER}{block}.experts.{{expert}}.", names, ("experts_in", "experts_out"))
    return [Entry(f"{LAYER}{block}.gate.weight", "router", (), (1, 0), rows=1), *matrices]


def _mixtral_entries(config: ModelConfig) -> Entries:
    attention = attention_entries(biases=False, out_bias=False)
    return [*outer_entries(config), *gain_entries(), *attention, *_experts("block_sparse_moe", ("w1", "w3", "w2"))]


def _mixtral_json(config: ModelConfig) -> dict[str, Any]:
    return llama_json(config) | {
        "intermediate_size": config.expert_hidden,
        "num_local_experts": config.experts,
        "num_experts_per_tok": config.experts_per_token,
        "sliding_window": None,
    }


def _mixtral_fields(fields: Fields) -> dict[str, Any]:
    fields.require("sliding_window", (None,), None)
    explicit = {"rms_norm_eps": 1e-5, "rope_theta": 1e6, **fields.values, "attention_bias": False}
    return llama_fields(Fields(explicit)) | {
        "experts": _experts_of(fields, "num_local_experts", 8),
        "experts_per_token": fields.get("num_experts_per_tok", int, 2),
        "router": RouterConfig(normalized=True),
    }


def _qwen3_entries(config: ModelConfig) -> Entries:
    attention = attention_entries(biases=False, out_bias=False)
    return [
        *outer_entries(config), *gain_entries(), *attention, *NORMS_OF_HEADS, *_experts("mlp", PROJECTIONS)
    ]  # fmt: skip


def _qwen3_json(config: ModelConfig) -> dict[str, Any]:
    return llama_json(config) | {
        "moe_intermediate_size": config.expert_hidden,
        "num_experts": config.experts,
        "num_experts_per_tok": config.experts_per_token,
        "norm_topk_prob": config.normalized_gates,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    }


def _qwen3_fields(fields: Fields) -> dict[str, Any]:
    fields.require("use_sliding_window", (False, None), False)
    fields.require("attention_bias", (False, None), False)
    fields.require("decoder_sparse_step", (1, None), 1)
    fields.require("mlp_only_layers", ([], None), None)
    return llama_fields(fields) | _of_few(fields, "num_experts", 128, 768) | {
        "qk_norm": True,
        "router": RouterConfig(normalized=fields.get("norm_topk_prob", bool, False)),
    }  # fmt: skip


def _glm_entries(config: ModelConfig) -> Entries:
    shared = _gated(f"{LAYER}mlp.shared_experts.", PROJECTIONS, ("shared_in", "shared_out"))
    if not config.shared_experts:  # the class has them all the same, of no hidden unit
        shapes = ((0, config.width), (0, config.width), (config.width, 0))
        shared = [
            Constant(f"{LAYER}mlp.shared_experts.{name}.weight", 0.0, shape) for name, shape in zip(PROJECTIONS, shapes)
        ]
    name = f"{LAYER}mlp.gate.e_score_correction_bias"
    bias = Entry(name, "router_bias") if config.router.bias_rate else Constant(name, 0.0, (config.experts,))
    norms = NORMS_OF_HEADS if config.qk_norm else []
    attention = attention_entries(config.qkv_biases, out_bias=False)
    matrices = _experts("mlp", PROJECTIONS)
    return [*outer_entries(config), *gain_entries(), *attention, *norms, *matrices, bias, *shared]


def _glm_json(config: ModelConfig) -> dict[str, Any]:
    return llama_json(config) | {
        "attention_bias": config.qkv_biases,
        "partial_rotary_factor": config.rope_fraction,
        "use_qk_norm": config.qk_norm,
        "moe_intermediate_size": config.expert_hidden,
        "n_routed_experts": config.experts,
        "n_shared_experts": config.shared_experts,
        "num_experts_per_tok": config.experts_per_token,
        "norm_topk_prob": config.normalized_gates,
        "routed_scaling_factor": config.router.scale,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 0,
        "num_nextn_predict_layers": 0,
    }


def _glm_fields(fields: Fields) -> dict[str, Any]:
    fields.require("first_k_dense_replace", (0,), 1)
    fields.require("n_group", (1, None), 1)
    explicit = {"rms_norm_eps": 1e-5, "partial_rotary_factor": 0.5, **fields.values, "attention_bias": False}
    return llama_fields(Fields(explicit)) | _of_few(fields, "n_routed_experts", 128, 1408) | {
        "qkv_biases": fields.get("attention_bias", bool, False),
        "qk_norm": fields.get("use_qk_norm", bool, False),
        "shared_experts": fields.get("n_shared_experts", int, 1),
        "router": RouterConfig(
            gate="sigmoid",
            normalized=fields.get("norm_topk_prob", bool, True),
            scale=fields.get("routed_scaling_factor", float, 1.0),
            bias_rate=BIAS_RATE,
        ),
    }  # fmt: skip


def _of_few(fields: Fields, experts: str, default: int, width: int) -> dict[str, Any]:
    """Experts that are narrower than the MLP whose width config.json names beside theirs."""
    return {
        "experts": _experts_of(fields, experts, default),
        "experts_per_token": fields.get("num_experts_per_tok", int, 8),
        "expert_width": fields.get("moe_intermediate_size", int, width),
    }


def _experts_of(fields: Fields, name: str, default: int) -> int:
    """Releases write the number of experts under the name of the class, or of all classes."""
    return fields.get(name, int, fields.get("num_local_experts", int, default))


SHARED_OPTIONS: dict[str, tuple[Any, ...]] = {
    "mlp": ("swiglu", "geglu"), "rope_scaling": (None, "llama3"), "experts": ("several",)
}  # fmt: skip
MIXTRAL = Architecture(
    "MixtralForCausalLM",
    "mixtral",
    {**SHARED_OPTIONS, "normalized_gates": (True,)},
    _mixtral_entries,
    _mixtral_json,
    _mixtral_fields,
)
QWEN3_MOE = Architecture(
    "Qwen3MoeForCausalLM",
    "qwen3_moe",
    {**SHARED_OPTIONS, "qk_norm": (True,)},
    _qwen3_entries,
    _qwen3_json,
    _qwen3_fields,
)
GLM4_MOE = Architecture(
    "Glm4MoeForCausalLM",
    "glm4_moe",
    {
        **SHARED_OPTIONS, "router.gate": ("sigmoid",), "shared_experts": ANY, "router.scale": ANY,
        "router.bias_rate": ANY, "qk_norm": (True, False), "qkv_biases": (False, True), "rope_fraction": ANY,
    },
    _glm_entries,
    _glm_json,
    _glm_fields,
)  # fmt: skip
