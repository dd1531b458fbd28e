"""GPT-2 and GPT-NeoX, the class of Pythia."""

from typing import Any

from lmscale.core.config import ModelConfig
from lmscale.lm.use.hf.architecture import ANY, Architecture, Entries, shared_fields, shared_json
from lmscale.lm.use.hf.entries import Constant, Entry
from lmscale.lm.use.hf.fields import ACT_NAME, NOT_GATED, Fields, activation, read_rope, write_rope


def _neox_json(config: ModelConfig) -> dict[str, Any]:
    return shared_json(config) | {
        "hidden_act": ACT_NAME[config.mlp],
        "layer_norm_eps": config.norm_epsilon,
        "use_parallel_residual": config.parallel_block,
        "rotary_pct": config.rope_fraction,
        "rotary_emb_base": config.rope_base,
        **write_rope(config.rope_base, config.rope_scaling),
    }


def _neox_fields(fields: Fields) -> dict[str, Any]:
    fields.require("attention_bias", (True, None), True)
    return shared_fields(fields) | read_rope(fields, fraction=0.25) | {
        "mlp": activation(fields, "hidden_act", "gelu", NOT_GATED),
        "norm": "layernorm",
        "norm_epsilon": fields.get("layer_norm_eps", float, 1e-5),
        "biases": True,
        "parallel_block": fields.get("use_parallel_residual", bool, True),
    }  # fmt: skip


def _gpt2_json(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.hidden,
        "n_positions": config.context,
        "activation_function": ACT_NAME[config.mlp],
        "layer_norm_epsilon": config.norm_epsilon,
    }


def _gpt2_fields(fields: Fields) -> dict[str, Any]:
    for name, default in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        fields.require(name, (default, None), default)
    return {
        "vocab": fields.get("vocab_size", int),
        "width": fields.get("n_embd", int),
        "layers": fields.get("n_layer", int),
        "heads": fields.get("n_head", int),
        "mlp_width": fields.optional("n_inner", int),
        "context": fields.get("n_positions", int),
        "positions": "learned",
        "mlp": activation(fields, "activation_function", "gelu_new", NOT_GATED),
        "norm": "layernorm",
        "norm_epsilon": fields.get("layer_norm_epsilon", float, 1e-5),
        "biases": True,
    }


def _biases(config: ModelConfig, sizes: dict[str, tuple[str, int]], norms: dict[str, str]) -> Entries:
    """Biases of matrices and norms, which the classes always have; zeros where our model has none."""
    if config.biases:
        return [
            *(Entry(tensor, param) for tensor, (param, _) in sizes.items()),
            *(Entry(f"{tensor}.bias", f"{param}_bias") for tensor, param in norms.items()),
        ]
    return [
        *(Constant(tensor, 0.0, (size,)) for tensor, (_, size) in sizes.items()),
        *(Constant(f"{tensor}.bias", 0.0, (config.width,)) for tensor in norms),
    ]


def _gpt2_entries(config: ModelConfig) -> Entries:
    block, width = "transformer.h.{layer}.", config.width
    norms = {f"{block}ln_1": "attention_norm", f"{block}ln_2": "mlp_norm", "transformer.ln_f": "final_norm"}
    sizes = {
        f"{block}attn.c_proj.bias": ("attention_out_bias", width),
        f"{block}mlp.c_fc.bias": ("mlp_in_bias", config.hidden),
        f"{block}mlp.c_proj.bias": ("mlp_out_bias", width),
    }
    # the projections of all queries stand before those of all keys and all values, [G, P, K] -> [P, G, K]
    qkv_bias = Entry(f"{block}attn.c_attn.bias", "attention_qkv_bias", axes=(1, 0, 2))
    return [
        Entry("transformer.wte.weight", "embedding", rows=1),
        Entry("transformer.wpe.weight", "positions", rows=1),
        *([] if config.tied_embeddings else [Entry("lm_head.weight", "head", (), (1, 0), rows=1)]),
        *(Entry(f"{tensor}.weight", param) for tensor, param in norms.items()),
        Entry(f"{block}attn.c_attn.weight", "attention_qkv", axes=(0, 2, 1, 3), rows=1),
        qkv_bias if config.biases else Constant(qkv_bias.tensor, 0.0, (3 * width,)),
        Entry(f"{block}attn.c_proj.weight", "attention_out", rows=2),
        Entry(f"{block}mlp.c_fc.weight", "mlp_in", rows=1),
        Entry(f"{block}mlp.c_proj.weight", "mlp_out", rows=1),
        *_biases(config, sizes, norms),
    ]


def _neox_entries(config: ModelConfig) -> Entries:
    block, width = "gpt_neox.layers.{layer}.", config.width
    norms = {
        f"{block}input_layernorm": "attention_norm",
        f"{block}post_attention_layernorm": "mlp_norm",
        "gpt_neox.final_layer_norm": "final_norm",
    }
    sizes = {
        f"{block}attention.query_key_value.bias": ("attention_qkv_bias", 3 * width),
        f"{block}attention.dense.bias": ("attention_out_bias", width),
        f"{block}mlp.dense_h_to_4h.bias": ("mlp_in_bias", config.hidden),
        f"{block}mlp.dense_4h_to_h.bias": ("mlp_out_bias", width),
    }
    return [
        Entry("gpt_neox.embed_in.weight", "embedding", rows=1),
        *([] if config.tied_embeddings else [Entry("embed_out.weight", "head", (), (1, 0), rows=1)]),
        *(Entry(f"{tensor}.weight", param) for tensor, param in norms.items()),
        # each head's query, key and value stand together, as in our own layout
        Entry(f"{block}attention.query_key_value.weight", "attention_qkv", axes=(1, 2, 3, 0), rows=3),
        Entry(f"{block}attention.dense.weight", "attention_out", axes=(2, 0, 1), rows=1),
        Entry(f"{block}mlp.dense_h_to_4h.weight", "mlp_in", (slice(None), 0), (1, 0), rows=1),
        Entry(f"{block}mlp.dense_4h_to_h.weight", "mlp_out", axes=(1, 0), rows=1),
        *_biases(config, sizes, norms),
    ]


GPT2 = Architecture(
    "GPT2LMHeadModel",
    "gpt2",
    {
        "norm": ("layernorm",), "positions": ("learned",), "mlp": ("gelu", "gelu-erf", "relu2"),
        "biases": (True, False), "kv_heads": (None,), "head_features": (None,),
    },
    _gpt2_entries,
    _gpt2_json,
    _gpt2_fields,
    tied=True,
    ignored=(".attn.bias", ".attn.masked_bias"),
)  # fmt: skip
NEOX = Architecture(
    "GPTNeoXForCausalLM",
    "gpt_neox",
    {
        "norm": ("layernorm",), "mlp": ("gelu-erf", "gelu", "relu2"), "biases": (True, False),
        "parallel_block": (True, False), "rope_fraction": ANY, "rope_scaling": (None, "llama3"),
        "kv_heads": (None,), "head_features": (None,),
    },
    _neox_entries,
    _neox_json,
    _neox_fields,
    heads=("embed_out.weight", "lm_head.weight"),
    ignored=(".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"),
)  # fmt: skip
