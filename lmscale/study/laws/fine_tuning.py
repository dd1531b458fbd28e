"""Laws of fine-tuning: the loss after so many examples, alone or with the scale of the model; data transferred."""

from dataclasses import dataclass
from typing import Any, ClassVar

from lmscale.study.laws.inputs import Input
from lmscale.study.laws.law import Law
from lmscale.study.laws.parameter import Parameter


@dataclass(frozen=True)
class Rectified(Law):
    """L(D) = B/(D_l + D^beta) + E: D examples, beside D_l that pre-training has already given (Lin 2024, eq. 2).

    Of models that were fine-tuned: the loss without any example lies off the curve; the paper's errors leave it out.
    """

    B: Any
    D_l: Any
    beta: Any
    E: Any

    NAME: ClassVar[str] = "rectified"
    FORMULA: ClassVar[str] = "L = B/(D_l + D^beta) + E"
    SOURCE: ClassVar[str] = "Lin 2024, arXiv 2402.02314, the rectified law"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("B", 1e-3, 1e15, (10, 1000, 1e5)),
        Parameter("D_l", 1e-3, 1e15, (10, 300, 1e4)),
        Parameter("beta", 1e-2, 5, (0.3, 0.6, 1), log=False),
        Parameter("E", 1e-9, 50, (0.1, 1), log=False),
    )
    INPUTS: ClassVar[tuple[Any, ...]] = (Input("tokens", "data", "examples or tokens"),)

    def loss(self, tokens: Any) -> Any:
        return self.B / (self.D_l + tokens**self.beta) + self.E


@dataclass(frozen=True)
class FineTuningPower(Law):
    """L(D) = (1/(B D^beta) + E)^alpha: the vanilla power law that the rectified one is compared with (Lin 2024)."""

    B: Any
    beta: Any
    E: Any
    alpha: Any

    NAME: ClassVar[str] = "fine-tuning-power"
    FORMULA: ClassVar[str] = "L = (1/(B D^beta) + E)^alpha"
    SOURCE: ClassVar[str] = "Lin 2024, arXiv 2402.02314, the vanilla law"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("B", 1e-15, 1e12, (1e-6, 1e-3, 0.1, 1)),
        Parameter("beta", 1e-3, 10, (0.1, 0.5, 1.5)),
        Parameter("E", 1e-12, 1e9, (0.01, 0.5, 5)),
        Parameter("alpha", 1e-3, 10, (0.1, 0.3, 1)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("tokens",)

    def loss(self, tokens: Any) -> Any:
        return (1 / (self.B * tokens**self.beta) + self.E) ** self.alpha


@dataclass(frozen=True)
class JointFineTuning(Law):
    """L = A/(X^alpha D^beta) + E: D fine-tuning tokens, X a scale (Zhang 2024, arXiv 2402.17193).

    The scale is the size of the model, its pre-training tokens, or the parameters that are tuned. The form is as
    others quote it: no constants are offered.
    """

    A: Any
    alpha: Any
    beta: Any
    E: Any

    NAME: ClassVar[str] = "joint-fine-tuning"
    FORMULA: ClassVar[str] = "L = A/(X^alpha D^beta) + E"
    SOURCE: ClassVar[str] = "Zhang 2024, arXiv 2402.17193, as quoted by others"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", 1e-6, 1e15, (1, 100, 1e4)),
        Parameter("alpha", 0, 3, (0.05, 0.3), log=False),
        Parameter("beta", 0, 3, (0.05, 0.3), log=False),
        Parameter("E", 1e-9, 50, (0.3, 1), log=False),
    )
    INPUTS: ClassVar[tuple[Any, ...]] = (Input("scale", "amount", "parameters or tokens"), "finetuning_tokens")

    def loss(self, scale: Any, finetuning_tokens: Any) -> Any:
        return self.A * scale ** (-self.alpha) * finetuning_tokens ** (-self.beta) + self.E


@dataclass(frozen=True)
class Transfer(Law):
    """D_T = k D_F^alpha N^beta: the tokens from scratch that pre-training is worth (Hernandez 2021, arXiv 2102.01293).

    D_T is measured: the tokens that training from scratch needs for the loss after D_F fine-tuning tokens, less D_F.
    The form is as others quote it: no constants are offered.
    """

    k: Any
    alpha: Any
    beta: Any

    NAME: ClassVar[str] = "transfer"
    FORMULA: ClassVar[str] = "D_T = k D_F^alpha N^beta"
    SOURCE: ClassVar[str] = "Hernandez 2021, arXiv 2102.01293 (as quoted by others)"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("k", 1e-12, 1e15, (1, 1e4)),
        Parameter("alpha", -3, 3, (0.1, 0.5), log=False),
        Parameter("beta", -3, 3, (0.1, 0.5), log=False),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("finetuning_tokens", "params")
    TARGET: ClassVar[str] = "transferred_tokens"

    def loss(self, finetuning_tokens: Any, params: Any) -> Any:
        return self.k * finetuning_tokens**self.alpha * params**self.beta
