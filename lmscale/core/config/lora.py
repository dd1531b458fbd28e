"""Low-rank adapters: what is trained of a model whose own parameters stay as they are."""

from dataclasses import dataclass
from typing import Literal, get_args

from lmscale.core.config.checks import check, check_types, positive

Matrix = Literal["attention_qkv", "attention_out", "mlp_in", "mlp_out"]
MATRICES: tuple[str, ...] = get_args(Matrix)
"""Matrices of a layer that may be adapted, by their rows of the parameter table. One pair of factors serves queries,
keys and values, as it does the branches of a gated MLP."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Every chosen matrix W becomes W + alpha / rank A B, of which A and B alone are trained (Hu 2021, arXiv
    2106.09685, equation 3)."""

    rank: int
    """Columns of A and rows of B."""
    alpha: float = 16.0
    """The size of what is added: over the rank, it multiplies A B."""
    matrices: tuple[Matrix, ...] = ("attention_qkv", "attention_out", "mlp_in", "mlp_out")
    """Which matrices of every layer are adapted."""

    def __post_init__(self) -> None:
        check_types(self)
        positive(self, "rank", "alpha")
        check(
            0 < len(self.matrices) == len(set(self.matrices)),
            f"LoraConfig.matrices = {self.matrices!r}: name at least one matrix, and each once: {', '.join(MATRICES)}",
        )

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank
