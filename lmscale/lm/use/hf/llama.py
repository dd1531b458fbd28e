"""Llama and the classes that share its names: Qwen2, Qwen3, Gemma, Arcee, OLMo, StableLM, Starcoder2."""

from typing import Any

from lmscale.core.config import ModelConfig
from lmscale.lm.use.hf.architecture import ANY, Architecture, Entries, shared_fields, shared_json
from lmscale.lm.use.hf.entries import Constant, Entry
from lmscale.lm.use.hf.fields import ACT_NAME, NOT_GATED, Fields, activation, read_rope, write_rope

Q, K, V = (slice(None),) * 2 + (slice(None, -2),), (slice(None),) * 2 + (-2,), (slice(None),) * 2 + (-1,)
"""Queries, keys and values in `attention_qkv` of one layer, [D, G, P, K]."""
GATE, UP = (slice(None), 0), (slice(None), 1)
"""Branches of `mlp_in` of one layer, [D, C, F]."""


OLMO_EPSILON = 1e-5
"""Epsilon of OLMo's LayerNorm, which config.json does not name."""


def llama_json(config: ModelConfig) -> dict[str, Any]:
    return shared_json(config) | {
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_width,
        "hidden_act": ACT_NAME[config.mlp],
        "rms_norm_eps": config.norm_epsilon,
        "attention_bias": config.biases,
        "mlp_bias": config.biases,
        **write_rope(config.rope_base, config.rope_scaling),
    }


def llama_fields(fields: Fields) -> dict[str, Any]:
    biases = fields.get("attention_bias", bool, False)
    fields.require("mlp_bias", (biases, None), False)
    gated = {"silu": "swiglu", "swish": "swiglu", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu"}
    return shared_fields(fields) | read_rope(fields) | {
        "mlp": activation(fields, "hidden_act", "silu", gated),
        "norm_epsilon": fields.get("rms_norm_eps", float, 1e-6),
        "biases": biases,
    }  # fmt: skip


def _qwen2_fields(fields: Fields) -> dict[str, Any]:
    fields.require("use_sliding_window", (False, None), False)
    return llama_fields(Fields({**fields.values, "attention_bias": False})) | {"qkv_biases": True}


def _qwen3_fields(fields: Fields) -> dict[str, Any]:
    fields.require("use_sliding_window", (False, None), False)
    fields.require("attention_bias", (False, None), False)
    explicit = {"head_dim": 128, **fields.values}
    return llama_fields(Fields(explicit)) | {"qk_norm": True}


def _gemma_fields(fields: Fields) -> dict[str, Any]:
    gated = {"gelu_pytorch_tanh": "geglu", "gelu_new": "geglu"}
    # the first release named gelu in hidden_act and computed its tanh formula all the same
    name = "hidden_activation" if fields.values.get("hidden_activation") is not None else "hidden_act"
    act = activation(fields, name, "gelu_pytorch_tanh", gated | ({"gelu": "geglu"} if name == "hidden_act" else {}))
    explicit = {"head_dim": 256, **fields.values, "hidden_act": None}
    width = fields.get("hidden_size", int)
    return llama_fields(Fields(explicit)) | {
        "mlp": act, "norm": "rmsnorm-offset", "embedding_scale": width**0.5
    }  # fmt: skip


def _gemma_json(config: ModelConfig) -> dict[str, Any]:
    return llama_json(config) | {"hidden_activation": "gelu_pytorch_tanh"}


def _arcee_fields(fields: Fields) -> dict[str, Any]:
    gated = llama_fields(Fields({**fields.values, "hidden_act": "silu"}))
    return gated | {"mlp": activation(fields, "hidden_act", "relu2", NOT_GATED)}


def _olmo_fields(fields: Fields) -> dict[str, Any]:
    fields.require("clip_qkv", (None,), None)
    fields.require("attention_bias", (False, None), False)
    return llama_fields(fields) | {"norm": "layernorm", "norm_epsilon": OLMO_EPSILON}


def _stablelm_json(config: ModelConfig) -> dict[str, Any]:
    return shared_json(config) | {
        "num_key_value_heads": config.num_kv_heads,
        "hidden_act": ACT_NAME[config.mlp],
        "layer_norm_eps": config.norm_epsilon,
        "use_qkv_bias": config.qkv_biases,
        "partial_rotary_factor": config.rope_fraction,
        **write_rope(config.rope_base, config.rope_scaling),
    }


def _stablelm_fields(fields: Fields) -> dict[str, Any]:
    fields.require("qk_layernorm", (False, None), False)
    fields.require("use_parallel_residual", (False, None), False)
    return shared_fields(fields) | read_rope(fields, fraction=0.25) | {
        "mlp": activation(fields, "hidden_act", "silu", {"silu": "swiglu", "gelu_pytorch_tanh": "geglu"}),
        "norm": "layernorm",
        "norm_epsilon": fields.get("layer_norm_eps", float, 1e-5),
        "qkv_biases": fields.get("use_qkv_bias", bool, False),
    }  # fmt: skip


def _starcoder2_json(config: ModelConfig) -> dict[str, Any]:
    return shared_json(config) | {
        "num_key_value_heads": config.num_kv_heads,
        "hidden_act": ACT_NAME[config.mlp],
        "norm_epsilon": config.norm_epsilon,
        "use_bias": config.biases,
        "sliding_window": None,
        **write_rope(config.rope_base, config.rope_scaling),
    }


def _starcoder2_fields(fields: Fields) -> dict[str, Any]:
    fields.require("sliding_window", (None,), None)
    return shared_fields(fields) | read_rope(fields) | {
        "mlp": activation(fields, "hidden_act", "gelu_pytorch_tanh", NOT_GATED),
        "norm": "layernorm",
        "norm_epsilon": fields.get("norm_epsilon", float, 1e-5),
        "biases": fields.get("use_bias", bool, True),
    }  # fmt: skip


def attention_entries(biases: bool, out_bias: bool) -> Entries:
    prefix = "model.layers.{layer}.self_attn."
    parts = {"q_proj": Q, "k_proj": K, "v_proj": V}
    entries: Entries = []
    for name, part in parts.items():
        axes = (1, 2, 3, 0) if name == "q_proj" else (1, 2, 0)
        entries.append(Entry(f"{prefix}{name}.weight", "attention_qkv", part, axes, rows=len(axes) - 1))
        if biases:
            entries.append(Entry(f"{prefix}{name}.bias", "attention_qkv_bias", part[1:]))
    entries.append(Entry(f"{prefix}o_proj.weight", "attention_out", axes=(2, 0, 1), rows=1))
    return [*entries, Entry(f"{prefix}o_proj.bias", "attention_out_bias")] if out_bias else entries


def _gated_mlp(biases: bool) -> Entries:
    prefix = "model.layers.{layer}.mlp."
    entries: Entries = [
        Entry(f"{prefix}gate_proj.weight", "mlp_in", GATE, (1, 0), rows=1),
        Entry(f"{prefix}up_proj.weight", "mlp_in", UP, (1, 0), rows=1),
        Entry(f"{prefix}down_proj.weight", "mlp_out", (), (1, 0), rows=1),
    ]
    if not biases:
        return entries
    return [
        *entries,
        Entry(f"{prefix}gate_proj.bias", "mlp_in_bias", GATE[1:]),
        Entry(f"{prefix}up_proj.bias", "mlp_in_bias", UP[1:]),
        Entry(f"{prefix}down_proj.bias", "mlp_out_bias"),
    ]


def _plain_mlp(up: str, down: str, biases: bool) -> Entries:
    prefix = "model.layers.{layer}.mlp."
    entries: Entries = [
        Entry(f"{prefix}{up}.weight", "mlp_in", GATE, (1, 0), rows=1),
        Entry(f"{prefix}{down}.weight", "mlp_out", (), (1, 0), rows=1),
    ]
    if not biases:
        return entries
    return [*entries, Entry(f"{prefix}{up}.bias", "mlp_in_bias"), Entry(f"{prefix}{down}.bias", "mlp_out_bias")]


NORMS = {
    "model.layers.{layer}.input_layernorm": "attention_norm",
    "model.layers.{layer}.post_attention_layernorm": "mlp_norm",
    "model.norm": "final_norm",
}


def gain_entries() -> Entries:
    return [Entry(f"{tensor}.weight", param) for tensor, param in NORMS.items()]


def _norm_biases(config: ModelConfig) -> Entries:
    """The biases of LayerNorm, which are zero where our model has none."""
    if config.biases:
        return [Entry(f"{tensor}.bias", f"{param}_bias") for tensor, param in NORMS.items()]
    return [Constant(f"{tensor}.bias", 0.0, (config.width,)) for tensor in NORMS]


def outer_entries(config: ModelConfig) -> Entries:
    table: Entries = [Entry("model.embed_tokens.weight", "embedding", rows=1)]
    return table if config.tied_embeddings else [*table, Entry("lm_head.weight", "head", (), (1, 0), rows=1)]


def _llama_entries(config: ModelConfig) -> Entries:
    return [
        *outer_entries(config),
        *gain_entries(),
        *attention_entries(config.biases or config.qkv_biases, config.biases),
        *_gated_mlp(config.biases),
    ]


NORMS_OF_HEADS: Entries = [
    Entry(f"model.layers.{{layer}}.self_attn.{name}.weight", param)
    for name, param in (("q_norm", "query_norm"), ("k_norm", "key_norm"))
]
"""Gains of the norms of queries and keys."""


def _qwen3_entries(config: ModelConfig) -> Entries:
    return [*_llama_entries(config), *NORMS_OF_HEADS]


def _arcee_entries(config: ModelConfig) -> Entries:
    attention = attention_entries(config.biases, config.biases)
    return [*outer_entries(config), *gain_entries(), *attention, *_plain_mlp("up_proj", "down_proj", config.biases)]


def _olmo_entries(config: ModelConfig) -> Entries:
    return [*outer_entries(config), *attention_entries(biases=False, out_bias=False), *_gated_mlp(biases=False)]


def _stablelm_entries(config: ModelConfig) -> Entries:
    attention = attention_entries(config.qkv_biases, out_bias=False)
    return [*outer_entries(config), *gain_entries(), *_norm_biases(config), *attention, *_gated_mlp(biases=False)]


def _starcoder2_entries(config: ModelConfig) -> Entries:
    attention, mlp = attention_entries(config.biases, config.biases), _plain_mlp("c_fc", "c_proj", config.biases)
    return [*outer_entries(config), *gain_entries(), *_norm_biases(config), *attention, *mlp]


LLAMA = Architecture(
    "LlamaForCausalLM",
    "llama",
    {"mlp": ("swiglu", "geglu"), "biases": (False, True), "rope_scaling": (None, "llama3")},
    _llama_entries,
    llama_json,
    llama_fields,
)
QWEN2 = Architecture(
    "Qwen2ForCausalLM",
    "qwen2",
    {"mlp": ("swiglu", "geglu"), "qkv_biases": (True,), "rope_scaling": (None, "llama3"), "head_features": (None,)},
    _llama_entries,
    llama_json,
    _qwen2_fields,
)
QWEN3 = Architecture(
    "Qwen3ForCausalLM",
    "qwen3",
    {"mlp": ("swiglu", "geglu"), "qk_norm": (True,), "rope_scaling": (None, "llama3")},
    _qwen3_entries,
    llama_json,
    _qwen3_fields,
)
GEMMA = Architecture(
    "GemmaForCausalLM",
    "gemma",
    {"norm": ("rmsnorm-offset",), "mlp": ("geglu",)},
    _llama_entries,
    _gemma_json,
    _gemma_fields,
    tied=True,
    scales_embedding=True,
)
ARCEE = Architecture(
    "ArceeForCausalLM",
    "arcee",
    {"mlp": ("relu2", "gelu", "gelu-erf"), "biases": (False, True), "rope_scaling": (None, "llama3")},
    _arcee_entries,
    llama_json,
    _arcee_fields,
)
OLMO = Architecture(
    "OlmoForCausalLM",
    "olmo",
    {"norm": ("layernorm",), "mlp": ("swiglu", "geglu"), "head_features": (None,)},
    _olmo_entries,
    llama_json,
    _olmo_fields,
    unit_gains=True,
)
STABLELM = Architecture(
    "StableLmForCausalLM",
    "stablelm",
    {
        "norm": ("layernorm",), "mlp": ("swiglu", "geglu"), "qkv_biases": (False, True), "head_features": (None,),
        "rope_fraction": ANY, "rope_scaling": (None, "llama3"),
    },
    _stablelm_entries,
    _stablelm_json,
    _stablelm_fields,
)  # fmt: skip
STARCODER2 = Architecture(
    "Starcoder2ForCausalLM",
    "starcoder2",
    {
        "norm": ("layernorm",), "mlp": ("gelu", "gelu-erf", "relu2"), "biases": (False, True), "head_features": (None,),
        "rope_scaling": (None, "llama3"),
    },
    _starcoder2_entries,
    _starcoder2_json,
    _starcoder2_fields,
    tied=True,
)  # fmt: skip
