"""The optimizer and its schedule."""

import math
from dataclasses import dataclass, field
from typing import Literal

from lmscale.core.config.checks import check, check_types, fraction, positive
from lmscale.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optimizer with warmup, decay and clipping by the global norm.

    The default is AdamW; weight decay is decoupled whatever the optimizer (Loshchilov and Hutter 2019).
    """

    peak_lr: float
    batch_sequences: int
    """Global batch: sequences of `context` tokens per update."""
    kind: Literal["adamw", "adam", "sgd", "rmsprop", "adafactor", "lion", "muon"] = "adamw"
    """`adam` is AdamW without decay; `sgd` has momentum; `muon` (Jordan 2024) moves the matrices of the layers,
    with the step size of AdamW (Liu 2025), and AdamW the rest."""
    schedule: Literal["cosine", "linear", "constant", "inverse-sqrt", "wsd"] = "cosine"
    """After warmup: towards the floor along half a cosine; straight; not at all; as 1 / sqrt(step) (Vaswani 2017);
    held, then cooled down (warmup-stable-decay, Hu 2024). The first update of a decay still has the peak."""
    final_lr_fraction: float = 0.0
    """Floor of the decay, as a fraction f of the peak; `constant` and `inverse-sqrt` ignore it. The decay would reach
    it one update after the last, so that no update is wasted on a rate of 0: the last of T decaying updates lies above
    it by 1 - f times 1 / T (linear), 1 - sqrt(1 - 1 / T) (1-sqrt) or sin^2(pi / 2T) (cosine) of the peak."""
    warmup_fraction: float = 0.1
    """Share of the steps over which the learning rate rises linearly: of W steps, the first update has 1 / W of the
    peak and the last the peak."""
    warmup_steps: int | None = None
    """Warmup in steps; if set, it replaces the fraction."""
    cooldown_fraction: float = 0.2
    """Share of the steps at the end over which `wsd` cools down."""
    cooldown: Literal["1-sqrt", "linear"] = "1-sqrt"
    """Shape of the cooldown: 1 - sqrt(t) or 1 - t, with t the share of it that is done before an update (Haegele
    2024)."""
    beta1: float = 0.9
    beta2: float = 0.95
    momentum: float = 0.95
    """Momentum of `sgd` and `muon`."""
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    """Decoupled, multiplied by the learning rate; applied to matrices only."""
    clip_norm: float | None = 1.0
    """Largest global gradient norm; None does not clip."""
    z_loss: float = 0.0
    """Weight of the squared log-partition in the training loss (PaLM, Chowdhery 2022: 1e-4)."""
    ema_decay: float | None = None
    """Decay per step of an exponential moving average of the weights; if set, validation uses the average."""
    micro_batches: int = field(default=1, metadata={"identity": False})
    """Micro-batches of a global batch, run one after the other to save memory; the update is the same."""

    def __post_init__(self) -> None:
        check_types(self)
        positive(self, "peak_lr", "batch_sequences", "epsilon", "micro_batches")
        fraction(self, "final_lr_fraction", "warmup_fraction", "cooldown_fraction")
        for name in ("beta1", "beta2", "momentum", "ema_decay"):
            value = getattr(self, name)
            check(
                value is None or 0 <= value < 1, f"OptimizerConfig.{name} = {value!r}: must be at least 0 and below 1"
            )
        for name in ("weight_decay", "z_loss"):
            value = getattr(self, name)
            check(0 <= value < math.inf, f"OptimizerConfig.{name} = {value!r}: must not be negative or infinite")
        check(
            self.kind != "adam" or self.weight_decay == 0,
            f"weight_decay = {self.weight_decay:g} with kind = 'adam': adam does not decay weights; set weight_decay = "
            f"0, or kind = 'adamw'",
        )
        check(
            self.warmup_steps is None or self.warmup_steps >= 0,
            f"OptimizerConfig.warmup_steps = {self.warmup_steps}: must not be negative",
        )
        if self.batch_sequences % self.micro_batches:
            parts = min(_divisors(self.batch_sequences), key=lambda number: abs(number - self.micro_batches))
            raise UserError(
                f"batch_sequences = {self.batch_sequences} cannot be cut into micro_batches = {self.micro_batches} "
                f"equal parts; the nearest number is {parts}"
            )
        if self.clip_norm is not None:
            positive(self, "clip_norm")


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
