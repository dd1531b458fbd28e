"""The router of a mixture of experts: which experts read a token, by which weights, and how their load is balanced."""

import math
from dataclasses import dataclass
from typing import Literal

from lmscale.core.config.checks import check, check_types, positive


@dataclass(frozen=True, kw_only=True)
class RouterConfig:
    """Token-choice routing: every token takes the experts with its highest scores (Shazeer 2017; Fedus 2021).

    Scores are computed in float32 and without noise. Expert choice (Zhou 2022), where experts take tokens, is left out:
    what an expert takes depends on later tokens, so a causal model could not be sampled as it was trained.
    """

    gate: Literal["softmax", "sigmoid"] = "softmax"
    """From router logits to scores: a softmax over all experts (Shazeer 2017), or each expert's own sigmoid
    (DeepSeek-V3, 2024, eq. 15)."""
    normalized: bool | None = None
    """Whether the gates of a token, the scores of its experts, are divided by their sum. None does so where a token
    takes several experts (GShard, Mixtral, DeepSeek-V3) and not where it takes one (Switch): divided by itself, the
    gate of a single expert is 1, and the loss teaches its router nothing."""
    scale: float = 1.0
    """Factor of the gates (DeepSeek-V3, 2024: 2.5)."""
    balance_loss: float = 0.01
    """Weight alpha of the sequence-wise balance loss (DeepSeek-V3, 2024, eq. 17 to 20), summed over the layers and
    averaged over the sequences. A sequence is a row of the batch, also where documents are packed into it. Its value is
    1 where the load is even; .01 is that of Switch (Fedus 2021, section 2.2) and OLMoE (2024), DeepSeek-V3 takes .0001
    beside a bias."""
    bias_rate: float = 0.0
    """u: what an update adds to, or takes from, the bias by which an expert is chosen, as the expert got fewer or more
    of the batch's tokens than the mean (loss-free balancing, Wang 2024, algorithm 1: .001). Gates do not see the bias.
    0 has no bias."""
    z_loss: float = 0.0
    """Weight of the squared log-partition of the router logits, averaged over tokens and summed over layers (ST-MoE,
    Zoph 2022, eq. 5: .001)."""
    capacity: float | None = None
    """Most tokens of a sequence that an expert reads, over its even share, experts_per_token x context / experts; the
    rest, the last ones of the sequence, pass it by (Fedus 2021, section 2.2: 1.25). The limit is per sequence, so that
    it depends on neither batch nor mesh. None drops no token."""

    def __post_init__(self) -> None:
        check_types(self)
        positive(self, "scale")
        if self.capacity is not None:
            positive(self, "capacity")
        for name in ("balance_loss", "bias_rate", "z_loss"):
            value = getattr(self, name)
            check(0 <= value < math.inf, f"RouterConfig.{name} = {value!r}: must not be negative or infinite")
