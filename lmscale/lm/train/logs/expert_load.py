"""What the layers' experts did over the steps of a row of metrics, in figures.

L layers, E experts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from lmscale.core.config import ModelConfig
from lmscale.lm.objectives import ExpertLoad


@dataclass(frozen=True)
class LoadTotals:
    """Sums over the tokens of some steps."""

    counts_LE: np.ndarray
    """Tokens that chose an expert."""
    dropped_L: np.ndarray
    """Choices that found no room at their expert."""
    entropy_L: np.ndarray
    """Nats of the router's distribution over experts."""

    @classmethod
    def of(cls, steps: Iterable[ExpertLoad]) -> Self | None:
        """The sums over some steps, on the host; None without any."""
        each = [(step.counts_LE, step.dropped_L, step.entropy_L) for step in steps]
        if not each:
            return None
        counts, dropped, entropy = zip(*each)
        total = np.sum(counts, axis=0, dtype=int), np.sum(dropped, axis=0, dtype=int)
        return cls(*total, np.sum(entropy, axis=0, dtype=float))

    def __add__(self, other: "LoadTotals | None") -> "LoadTotals":
        if other is None:
            return self
        return LoadTotals(
            self.counts_LE + other.counts_LE, self.dropped_L + other.dropped_L, self.entropy_L + other.entropy_L
        )

    def to_json(self) -> dict[str, Any]:
        """The sums as a checkpoint keeps them; `from_json` reads them back."""
        return {name: getattr(self, name).tolist() for name in ("counts_LE", "dropped_L", "entropy_L")}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The sums of `to_json`."""
        return cls(*(np.asarray(value[name]) for name in ("counts_LE", "dropped_L", "entropy_L")))

    def by_layer(self, model: ModelConfig) -> dict[str, list[Any]]:
        """One number, or a list of one per expert, for each layer; loads are shares of the layer's choices."""
        choices_L1 = np.maximum(self.counts_LE.sum(axis=1, keepdims=True), 1)
        share_LE = self.counts_LE / choices_L1
        logs_LE = np.log(np.where(share_LE > 0, share_LE, 1))
        return {
            "load": [_rounded(share_E) for share_E in share_LE],
            "load_entropy_nats": _rounded(-(share_LE * logs_LE).sum(axis=1)),
            "router_entropy_nats": _rounded(self.entropy_L * model.experts_per_token / choices_L1[:, 0]),
            "dropped_share": _rounded(self.dropped_L / choices_L1[:, 0]),
            "dead": (self.counts_LE == 0).sum(axis=1).tolist(),
        }

    def summary(self, model: ModelConfig) -> dict[str, float]:
        """The worst of all layers: the load of the busiest expert over the mean, choices dropped, experts that no token
        chose."""
        choices_L1 = np.maximum(self.counts_LE.sum(axis=1, keepdims=True), 1)
        figures = {
            "busiest_expert": float((self.counts_LE / choices_L1).max() * model.experts),
            "dead_experts": float((self.counts_LE == 0).sum()),
        }
        if model.expert_capacity is not None:
            figures["dropped_share"] = float((self.dropped_L / choices_L1[:, 0]).max())
        return figures


def _rounded(values: np.ndarray) -> list[float]:
    """Four digits, so that a row of metrics with hundreds of experts stays short."""
    return [float(f"{value:.4g}") for value in values]
