"""The cost of training and the split of a budget between model size and data."""

from dataclasses import dataclass
from typing import Any

from lmscale.core.arguments import Positive, checked


@checked
@dataclass(frozen=True)
class ComputeModel:
    """Training FLOPs of N parameters and D tokens: C = k N^p D. The field's convention is k = 6, p = 1."""

    k: Positive = 6.0
    p: Positive = 1.0
    largest_residual: float | None = None
    """Largest relative misfit of the table's own FLOPs; None where k and p are a convention, not a fit."""

    def tokens(self, flops: Any, params: Any) -> Any:
        return flops / (self.k * params**self.p)

    def flops(self, params: Any, tokens: Any) -> Any:
        return self.k * params**self.p * tokens

    def __str__(self) -> str:
        if self.p == 1:
            return f"C = {self.k:.4g} N D"
        formula = f"C = {self.k:.4g} N^{self.p:.4f} D"
        if self.largest_residual is None:
            return formula
        return f"{formula}, regressed from the table's FLOPs (largest misfit {100 * self.largest_residual:.2g} %)"


SIX_ND = ComputeModel()


@dataclass(frozen=True)
class Allocation:
    """The compute-optimal split of a budget: floats, or arrays over resamples. Units as in the module."""

    flops: Any
    params: Any
    tokens: Any
    tokens_per_param: Any
    loss_nats: Any
