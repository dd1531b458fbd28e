"""The model: its shape, the kind of each component, and its parametrization."""

import math
from dataclasses import dataclass, field
from typing import Literal

from lmscale.core.config.checks import check, check_types, positive
from lmscale.core.config.lora import LoraConfig
from lmscale.core.config.router import RouterConfig


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Rotary frequencies for a context longer than the first one (Llama 3.1, 2024).

    With the wavelength w of a pair of features, in tokens, and the first context s: pairs with w below
    s / high_frequency turn as before, those with w above s / low_frequency turn `factor` times more slowly, and between
    the two the frequency is interpolated in s / w.
    """

    factor: float
    original_context: int
    """s: tokens of the context that the frequencies were made for."""
    low_frequency: float = 1.0
    high_frequency: float = 4.0

    def __post_init__(self) -> None:
        check_types(self)
        positive(self, "factor", "original_context", "low_frequency", "high_frequency")
        check(
            self.low_frequency < self.high_frequency,
            f"low_frequency = {self.low_frequency:g} must be below high_frequency = {self.high_frequency:g}",
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only transformer, pre-norm (Vaswani 2017; Radford 2019; Touvron 2023).

    The last three fields say how it is computed, not what is learned, and are not part of a run's identity.
    """

    width: int
    """d_model: size of the residual stream."""
    layers: int
    heads: int
    kv_heads: int | None = None
    """Heads of keys and values, shared by heads / kv_heads query heads each: None is one per query head, 1 is
    multi-query (Shazeer 2019), between is grouped-query attention (Ainslie 2023)."""
    head_features: int | None = None
    """Features of one head; None takes width / heads, else heads need not divide the width (Qwen3, Gemma)."""
    vocab: int = 256
    """Size of the token table; 256 is the byte tokenizer."""
    context: int = 128
    """Tokens a prediction can see, the current one included; the length of a training sequence."""
    norm: Literal["rmsnorm", "rmsnorm-offset", "layernorm"] = "rmsnorm"
    """Zhang and Sennrich 2019; the same with each gain kept as its difference from 1 (Gemma, 2024); Ba 2016."""
    positions: Literal["rotary", "learned", "alibi", "none"] = "rotary"
    """Su 2021; a table of `context` vectors; Press 2022; or what the causal mask alone gives."""
    mlp: Literal["swiglu", "geglu", "gelu", "gelu-erf", "relu2"] = "swiglu"
    """Gated by SiLU or GELU (Shazeer 2020); GELU by its tanh formula, as in GPT-2 and in GEGLU here, or by the error
    function (Hendrycks 2016, section 2); squared ReLU (So 2021)."""
    mlp_width: int | None = None
    """Hidden units of the MLP; None takes 4 x width, for SwiGLU and GEGLU 8/3 x width rounded up to 8."""
    experts: int = 1
    """E: MLPs of a layer, of which every token is read by a few that a router chooses (Shazeer 2017); 1 is a dense
    model (Clark 2022)."""
    experts_per_token: int = 1
    """k: experts that read a token."""
    shared_experts: int = 0
    """Experts of the same size that read every token, without a gate (DeepSeekMoE, Dai 2024)."""
    expert_width: int | None = None
    """Hidden units of one expert; None takes those of the MLP, `mlp_width`. The MLP's over an expert's is the
    granularity (Krajewski 2024)."""
    router: RouterConfig = field(default_factory=RouterConfig)
    """How experts are chosen and weighted; of a dense model, the default."""
    parallel_block: bool = False
    """Attention and MLP both read the residual stream at the layer's entry, each through its own norm (GPT-NeoX, Black
    2022); otherwise the MLP reads the stream that attention has added to."""
    biases: bool = False
    """Add a vector after every matrix but the head, and one to LayerNorm."""
    qkv_biases: bool = False
    """Add a vector to queries, keys and values alone (Qwen2); `biases` include it."""
    qk_norm: bool = False
    """Normalise queries and keys over each head's features, with a gain (Dehghani 2023)."""
    tied_embeddings: bool = True
    scalar_head: bool = False
    """One number per token by a head of its own, in place of logits: a reward model (Ouyang 2022, section 3.5)."""
    logit_softcap: float | None = None
    """c: logits become c tanh(logits / c) (Gemma 2, 2024)."""
    document_end: int | None = None
    """The token that closes a document (255 in bytes); if set, no token attends across it. None lets documents in one
    sequence attend to each other."""
    residual_dropout: float = 0.0
    """Fraction of the features dropped from what each sublayer and the embedding add to the residual stream; training
    only."""
    attention_dropout: float = 0.0
    """Fraction of the attention weights dropped; training only."""
    rope_base: float = 10_000.0
    rope_fraction: float = 1.0
    """Share of each head's features that rotary positions turn, the first ones (GPT-NeoX takes a quarter)."""
    rope_scaling: RopeScaling | None = None
    """How the angles are slowed down for a context longer than the model was first trained with; None leaves them."""
    embedding_scale: float | None = None
    """The factor of token and position vectors at the entry of the residual stream; None takes 1 under init = "gpt2",
    else one over their initial standard deviation, so that the stream starts with unit variance."""
    norm_epsilon: float = 1e-6
    init: Literal["fan-in", "gpt2", "zero-out"] = "fan-in"
    """Initial matrices: variance 1 / fan-in (LeCun 1998); .02 standard deviation (Radford 2019); fan-in with every
    matrix that writes to the residual stream at zero. The first two divide those by sqrt(2 layers)."""
    parametrization: Literal["standard", "mup", "completep"] = "standard"
    """How initial values, rates and multipliers change with the shape: not at all; with the width (Yang 2022); with
    width and depth (Dey 2025). Both leave a model of the base shape as it is under standard."""
    base_width: int | None = None
    """The width at which a rate was tuned; needed by mup and completep."""
    base_layers: int | None = None
    """The depth at which a rate was tuned; needed by completep."""
    base_head_width: int | None = None
    """Features of a head where a rate was tuned; None takes this model's own. Under mup and completep scores are scaled
    by sqrt(base) / K instead of 1 / sqrt(K)."""
    lora: LoraConfig | None = None
    """Low-rank adapters, which alone are trained; None trains every parameter."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "full"] = field(default="none", metadata={"identity": False})
    """What the backward pass recomputes: nothing; all but matrix products; each layer from its input."""
    scan_layers: bool | None = field(default=None, metadata={"identity": False})
    """Compile one layer and loop over it: compile time does not grow with depth. None does so on accelerators only."""
    loss_chunk: int | None = field(default=None, metadata={"identity": False})
    """Positions whose logits are held at once; None chooses by their size."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("width", "layers", "heads", "vocab", "context", "experts", "experts_per_token", "rope_base"):
            positive(self, name)
        positive(self, "norm_epsilon")
        for name in (
            "kv_heads", "head_features", "mlp_width", "expert_width", "logit_softcap", "base_width", "base_layers",
            "loss_chunk", "embedding_scale",
        ):  # fmt: skip
            if getattr(self, name) is not None:
                positive(self, name)
        self._check_heads()
        self._check_rope()
        self._check_parametrization()
        self._check_experts()
        check(
            not self.scalar_head or self.lora is None,
            "ModelConfig.scalar_head is a matrix of its own, which low-rank adapters would leave at 0: train a reward "
            "model without lora",
        )
        if self.lora is not None and self.sparse:
            missing = [name for name in self.lora.matrices if name.startswith("mlp")]
            check(
                not missing,
                f"LoraConfig.matrices names {' and '.join(missing)}, which a model of {self.experts} experts does not "
                f"have; take ('attention_qkv', 'attention_out')",
            )
        for name in ("residual_dropout", "attention_dropout"):
            value = getattr(self, name)
            check(0 <= value < 1, f"ModelConfig.{name} = {value!r}: must be at least 0 and below 1")
        check(
            self.document_end is None or 0 <= self.document_end < self.vocab,
            f"document_end = {self.document_end}: must be a token, 0 to {self.vocab - 1}",
        )

    def _check_heads(self) -> None:
        if self.head_features is None:
            self._check_heads_divide_width()
        dividing = [heads for heads in range(1, self.heads + 1) if self.heads % heads == 0]
        check(
            self.num_kv_heads in dividing,
            f"kv_heads = {self.kv_heads} must divide heads = {self.heads}; the nearest is "
            f"{_nearest(dividing, self.num_kv_heads)}",
        )

    def _check_heads_divide_width(self) -> None:
        multiple, why = (2, " of an even size (rotary positions turn pairs)") if self.positions == "rotary" else (1, "")
        fitting = [heads for heads in range(1, self.width // multiple + 1) if self.width % (multiple * heads) == 0]
        check(bool(fitting), f"width = {self.width}: rotary positions turn pairs, so take {self.width + 1}")
        check(
            self.heads in fitting,
            f"heads = {self.heads} must cut width = {self.width} into equal parts{why}; the nearest is "
            f"{_nearest(fitting, self.heads)}",
        )

    def _check_rope(self) -> None:
        if self.positions != "rotary":
            for name, default in (("rope_fraction", 1.0), ("rope_scaling", None)):
                check(
                    getattr(self, name) == default,
                    f"{name} = {getattr(self, name)!r} has no meaning under positions = {self.positions!r}; leave it "
                    f"out, or take positions = 'rotary'",
                )
            return
        check(0 < self.rope_fraction <= 1, f"rope_fraction = {self.rope_fraction!r}: must be above 0 and at most 1")
        check(self.head_width > 1, f"head_features = {self.head_width}: rotary positions turn pairs, so take 2")
        nearest = max(2, 2 * round(self.head_width * self.rope_fraction / 2 - 0.01))
        check(
            self.rotary_features > 0 and self.rotary_features % 2 == 0,
            f"rope_fraction = {self.rope_fraction:g} of {self.head_width} features is {self.rotary_features}: rotary "
            f"positions turn pairs of features; the nearest is {nearest / self.head_width:g}",
        )

    def _check_parametrization(self) -> None:
        needed = {"standard": (), "mup": ("base_width",), "completep": ("base_width", "base_layers")}
        for name in needed[self.parametrization]:
            check(
                getattr(self, name) is not None,
                f"parametrization = {self.parametrization!r} needs {name}, the one at which the learning rate was "
                f"tuned; for a model to tune on, give its own: {name} = {getattr(self, name.removeprefix('base_'))}",
            )
        for name in ("base_width", "base_layers", "base_head_width"):
            check(
                self.parametrization != "standard" or getattr(self, name) is None,
                f"{name} = {getattr(self, name)} has no meaning under parametrization = 'standard'; leave it out, or "
                f"take parametrization = 'mup' or 'completep'",
            )

    def _check_experts(self) -> None:
        check(self.shared_experts >= 0, f"ModelConfig.shared_experts = {self.shared_experts}: must not be negative")
        check(
            self.experts_per_token <= self.experts,
            f"experts_per_token = {self.experts_per_token} is more than experts = {self.experts}; take at most "
            f"{self.experts}",
        )
        if not self.sparse:
            for name, default in (("shared_experts", 0), ("expert_width", None), ("router", RouterConfig())):
                check(
                    getattr(self, name) == default,
                    f"{name} = {getattr(self, name)!r} has no meaning with experts = 1, a dense model; leave it out, "
                    f"or take experts = 2 or more",
                )
            return
        check(
            not self.biases,
            f"biases = True with experts = {self.experts}: experts have no biases; take biases = False, and "
            f"qkv_biases = True for those of queries, keys and values",
        )
        check(
            not (self.router.normalized and self.experts_per_token == 1),
            "router.normalized = True with experts_per_token = 1 makes every gate 1, so that the loss teaches the "
            "router nothing; leave router.normalized out, or take 2 experts per token",
        )
        check(
            self.router.bias_rate == 0 or self.param_dtype == "float32",
            f"router.bias_rate = {self.router.bias_rate:g} is lost in the rounding of param_dtype = "
            f"{self.param_dtype!r}; take param_dtype = 'float32'",
        )
        self._check_capacity()

    def _check_capacity(self) -> None:
        if self.router.capacity is None:
            return
        check(
            self.router.capacity * self.even_share >= 1,
            f"router.capacity = {self.router.capacity:g} times the even share of an expert, {self.experts_per_token} x "
            f"{self.context} / {self.experts} = {self.even_share:g} tokens of a sequence, is below one token; take at "
            f"least {math.ceil(100 / self.even_share) / 100:g}, or None, which drops none",
        )

    @property
    def num_kv_heads(self) -> int:
        """Heads of keys and values, the default resolved."""
        return self.kv_heads or self.heads

    @property
    def head_width(self) -> int:
        """Features of one attention head, the default resolved."""
        return self.head_features or self.width // self.heads

    @property
    def attention_width(self) -> int:
        """Features of all heads together: the width, unless `head_features` says otherwise."""
        return self.heads * self.head_width

    @property
    def rotary_features(self) -> int:
        """Features of a head that rotary positions turn."""
        return int(self.head_width * self.rope_fraction)

    @property
    def gated(self) -> bool:
        """Whether the MLP gates one projection with another."""
        return self.mlp in ("swiglu", "geglu")

    @property
    def hidden(self) -> int:
        """Hidden units of the MLP, the default resolved."""
        if self.mlp_width is not None:
            return self.mlp_width
        return 8 * math.ceil(self.width / 3) if self.gated else 4 * self.width

    @property
    def sparse(self) -> bool:
        """Whether a router chooses among several experts."""
        return self.experts > 1

    @property
    def expert_hidden(self) -> int:
        """Hidden units of one expert, the default resolved; of a dense model, those of its MLP."""
        return self.expert_width or self.hidden

    @property
    def granularity(self) -> float:
        """G: hidden units of the MLP over those of one expert (Krajewski 2024)."""
        return self.hidden / self.expert_hidden

    @property
    def normalized_gates(self) -> bool:
        """Whether the gates of a token sum to 1 before they are scaled, the default resolved."""
        return self.experts_per_token > 1 if self.router.normalized is None else self.router.normalized

    @property
    def even_share(self) -> float:
        """Tokens of a sequence that every expert reads where the load is even."""
        return self.experts_per_token * self.context / self.experts

    @property
    def expert_capacity(self) -> int | None:
        """Most tokens of a sequence that an expert reads, at most all of it; None drops no token."""
        if self.router.capacity is None:
            return None
        return min(self.context, int(self.router.capacity * self.even_share))

    @property
    def width_ratio(self) -> float:
        """m_N: width over the base width, 1 under the standard parametrization."""
        return self.width / (self.base_width or self.width)

    @property
    def depth_ratio(self) -> float:
        """m_L: layers over the base depth, 1 but under completep."""
        return self.layers / self.base_layers if self.parametrization == "completep" and self.base_layers else 1.0


def _nearest(choices: list[int], value: int) -> int:
    return min(choices, key=lambda choice: abs(choice - value))
