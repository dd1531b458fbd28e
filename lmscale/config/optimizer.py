"""How a run learns."""

import math
from dataclasses import dataclass
from typing import Literal

from lmscale.config.checks import check, check_types, fraction, positive


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019) with warmup, decay and clipping by the global norm."""

    peak_lr: float
    batch_sequences: int
    """Global batch: sequences of `context` tokens per update."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final_lr_fraction: float = 0.0
    """Learning rate at the last step, as a share of the peak."""
    warmup_fraction: float = 0.1
    """Share of the steps over which the learning rate rises linearly from zero."""
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    """Decoupled, multiplied by the learning rate; on matrices only."""
    clip_norm: float | None = 1.0
    """Largest global gradient norm; None does not clip."""

    def __post_init__(self) -> None:
        check_types(self)
        positive(self, "peak_lr", "batch_sequences", "epsilon")
        fraction(self, "final_lr_fraction", "warmup_fraction")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            check(0 <= value < 1, f"OptimizerConfig.{name} = {value!r}: must be at least 0 and below 1")
        check(
            0 <= self.weight_decay < math.inf,
            f"OptimizerConfig.weight_decay = {self.weight_decay!r}: must not be negative or infinite",
        )
        if self.clip_norm is not None:
            positive(self, "clip_norm")
