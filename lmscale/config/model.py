"""What the model is."""

import math
from dataclasses import dataclass
from typing import Literal

from lmscale.config.checks import check, check_types, positive


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only transformer with RMSNorm and rotary positions (Vaswani 2017; Touvron 2023)."""

    width: int
    """d_model: size of the residual stream."""
    layers: int
    heads: int
    vocab: int = 256
    """Size of the token table; 256 is the byte tokenizer."""
    context: int = 128
    """Tokens a prediction can see, itself included; the length of a training sequence."""
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    mlp_width: int | None = None
    """Hidden units of the MLP; None takes 4 x width for GELU and 8/3 x width, rounded up to 8, for SwiGLU."""
    tied_embeddings: bool = True
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-6
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_types(self)
        positive(self, "width", "layers", "heads", "vocab", "context", "rope_base", "norm_epsilon")
        if self.mlp_width is not None:
            positive(self, "mlp_width")
        fitting = [heads for heads in range(1, self.width // 2 + 1) if self.width % (2 * heads) == 0]
        check(bool(fitting), f"width = {self.width}: rotary positions turn pairs, so take {self.width + 1}")
        check(
            self.heads in fitting,
            f"heads = {self.heads} must cut width = {self.width} into equal parts of an even size (rotary positions "
            f"turn pairs); the nearest is {min(fitting, key=lambda heads: abs(heads - self.heads), default=1)}",
        )

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """Hidden units of the MLP, the default resolved."""
        if self.mlp_width is not None:
            return self.mlp_width
        return 4 * self.width if self.mlp == "gelu" else 8 * math.ceil(self.width / 3)
