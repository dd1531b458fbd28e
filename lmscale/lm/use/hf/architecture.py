"""A published class of transformers: its options, the layout of its tensors, and its config.json."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from lmscale.core.config import ModelConfig
from lmscale.lm.use.hf.entries import Constant, Entry
from lmscale.lm.use.hf.fields import Fields

Entries = list[Entry | Constant]


@dataclass(frozen=True)
class Architecture:
    """One class of transformers."""

    name: str
    """The class."""
    model_type: str
    options: dict[str, tuple[Any, ...]]
    """Option -> the values that the class has a counterpart for, the usual one first; see `options_of`."""
    entries: Callable[[ModelConfig], Entries]
    to_json: Callable[[ModelConfig], dict[str, Any]]
    """Fields of config.json beside those that all classes share."""
    from_json: Callable[[Fields], dict[str, Any]]
    """Fields of `ModelConfig` beside those that all classes share."""
    tied: bool = False
    """Whether embeddings are tied where config.json does not say."""
    scales_embedding: bool = False
    """Whether token vectors enter times sqrt(D)."""
    unit_gains: bool = False
    """Whether norms have no gain: those of the model must be 1, which its options do not say."""
    heads: tuple[str, ...] = ("lm_head.weight",)
    """Names that the output head goes by."""
    ignored: tuple[str, ...] = (".rotary_emb.inv_freq",)
    """Ends of the names of tensors that hold no parameter."""

    @property
    def sparse(self) -> bool:
        """Whether its layers are mixtures of experts."""
        return "experts" in self.options

    def embedding_scale(self, config: ModelConfig) -> float:
        """The factor of token vectors."""
        return config.width**0.5 if self.scales_embedding else 1.0

    def mismatches(self, config: ModelConfig) -> Iterator[str]:
        """One sentence for every option that the class has no counterpart for."""
        for name, value in options_of(config).items():
            allowed = self.options.get(name, DEFAULT_OPTIONS[name])
            if value not in allowed and allowed != ANY:
                shown = attrgetter(name)(config)
                yield f"{name} = {shown!r} has no counterpart in {self.name}; it has {name} = {allowed[0]!r}"


ANY: tuple[Any, ...] = ()
"""In place of values: whatever the option is."""
DEFAULT_OPTIONS: dict[str, tuple[Any, ...]] = {
    "norm": ("rmsnorm",), "positions": ("rotary",), "mlp": ("swiglu",), "biases": (False,), "qkv_biases": (False,),
    "qk_norm": (False,), "parallel_block": (False,), "rope_fraction": (1.0,), "rope_scaling": (None,),
    "logit_softcap": (None,), "kv_heads": (None, "fewer"), "head_features": (None, "other"), "experts": (1,),
    "shared_experts": (0,), "router.gate": ("softmax",), "normalized_gates": ANY, "router.scale": (1.0,),
    "router.bias_rate": (0.0,), "router.capacity": (None,),
}  # fmt: skip
"""What a class has unless it says otherwise."""


def options_of(config: ModelConfig) -> dict[str, Any]:
    """The options that decide which class a model is. Shapes count as "fewer" or "other" where they are not the usual
    ones, several experts as "several", and scaled rotary positions as "llama3"."""
    values = {name: attrgetter(name)(config) for name in DEFAULT_OPTIONS}
    return values | {
        "qkv_biases": config.qkv_biases and not config.biases,
        "rope_scaling": None if config.rope_scaling is None else "llama3",
        "kv_heads": None if config.num_kv_heads == config.heads else "fewer",
        "head_features": None if config.attention_width == config.width else "other",
        "experts": "several" if config.sparse else 1,
    }


def shared_json(config: ModelConfig) -> dict[str, Any]:
    """The fields that all classes but GPT-2 share."""
    return {
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden,
        "max_position_embeddings": config.context,
    }


def shared_fields(fields: Fields) -> dict[str, Any]:
    heads = fields.get("num_attention_heads", int)
    width = fields.get("hidden_size", int)
    head_features = fields.optional("head_dim", int)
    kv_heads = fields.optional("num_key_value_heads", int)
    return {
        "vocab": fields.get("vocab_size", int),
        "width": width,
        "layers": fields.get("num_hidden_layers", int),
        "heads": heads,
        "kv_heads": None if kv_heads == heads else kv_heads,
        "head_features": None if head_features is None or head_features * heads == width else head_features,
        "mlp_width": fields.get("intermediate_size", int),
        "context": fields.get("max_position_embeddings", int),
    }
