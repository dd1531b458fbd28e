"""Laws of what follows pretraining: a reward that is optimised too far, compute of RL, and repeated sampling."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lmscale.core.best_of_n import kl_bound_nats
from lmscale.study.laws.law import Law
from lmscale.study.laws.parameter import Parameter

LEAST_DISTANCE = 1e-150
"""Stands for a distance of 0, whose logarithm has none; d ln d is 0 there."""


@dataclass(frozen=True)
class BestOfN(Law):
    """R = d (alpha - beta d), d = sqrt(KL): gold reward of the best of n by a proxy (Gao 2022, arXiv 2210.10760)."""

    alpha: Any
    beta: Any

    NAME: ClassVar[str] = "best-of-n"
    FORMULA: ClassVar[str] = "R = d (alpha - beta d), d = sqrt(KL)"
    SOURCE: ClassVar[str] = "Gao 2022, arXiv 2210.10760, eq. 1"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("alpha", -100, 100, (0.3, 1), log=False),
        Parameter("beta", -100, 100, (0.05, 0.2), log=False),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("kl",)
    TARGET: ClassVar[str] = "reward"
    RESIDUAL: ClassVar[str] = "raw"

    def loss(self, kl: Any) -> Any:
        distance = np.sqrt(kl)
        return distance * (self.alpha - self.beta * distance)

    def peak_kl(self) -> Any:
        """The KL at which the gold reward is highest: d* = alpha / (2 beta)."""
        return (self.alpha / (2 * self.beta)) ** 2

    kl_of = staticmethod(kl_bound_nats)


@dataclass(frozen=True)
class RewardUnderRL(Law):
    """R = d (alpha - beta ln d), d = sqrt(KL): the gold reward under RL on a proxy (Gao 2022, arXiv 2210.10760)."""

    alpha: Any
    beta: Any

    NAME: ClassVar[str] = "reward-under-rl"
    FORMULA: ClassVar[str] = "R = d (alpha - beta ln d), d = sqrt(KL)"
    SOURCE: ClassVar[str] = "Gao 2022, arXiv 2210.10760, eq. 2"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = BestOfN.PARAMETERS
    INPUTS: ClassVar[tuple[str, ...]] = ("kl",)
    TARGET: ClassVar[str] = "reward"
    RESIDUAL: ClassVar[str] = "raw"

    def loss(self, kl: Any) -> Any:
        distance = np.sqrt(kl)
        return distance * (self.alpha - self.beta * np.log(np.maximum(distance, LEAST_DISTANCE)))

    def peak_kl(self) -> Any:
        """The KL at which the gold reward is highest: d* = exp(alpha/beta - 1)."""
        return np.exp(2 * (self.alpha / self.beta - 1))


@dataclass(frozen=True)
class RLCompute(Law):
    """R = R0 + (A - R0)/(1 + (C_mid/C)^B): reward against the compute of RL (Khatri 2025, arXiv 2510.13786).

    The form is as others quote it: no constants are offered.
    """

    R0: Any
    A: Any
    C_mid: Any
    B: Any

    NAME: ClassVar[str] = "rl-compute"
    FORMULA: ClassVar[str] = "R = R0 + (A - R0)/(1 + (C_mid/C)^B)"
    SOURCE: ClassVar[str] = "Khatri 2025, arXiv 2510.13786 (as quoted by others)"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("R0", -1e3, 1e3, (0, 0.3), log=False),
        Parameter("A", -1e3, 1e3, (0.6, 1), log=False),
        Parameter("C_mid", 1, 1e30, (1e12, 1e16, 1e20)),
        Parameter("B", 1e-2, 10, (0.5, 1.5)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("flops",)
    TARGET: ClassVar[str] = "reward"
    RESIDUAL: ClassVar[str] = "raw"

    def loss(self, flops: Any) -> Any:
        return self.R0 + (self.A - self.R0) / (1 + (self.C_mid / flops) ** self.B)


@dataclass(frozen=True)
class RepeatedSampling(Law):
    """coverage = exp(a k^b): the share of problems that k samples solve (Brown 2024, arXiv 2407.21787, eq. 2)."""

    a: Any
    b: Any

    NAME: ClassVar[str] = "repeated-sampling"
    FORMULA: ClassVar[str] = "coverage = exp(a k^b)"
    SOURCE: ClassVar[str] = "Brown 2024, arXiv 2407.21787, eq. 2"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("a", -100, -1e-6, (-3, -0.5), log=False),
        Parameter("b", -5, -1e-3, (-0.2, -0.6), log=False),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("samples",)
    TARGET: ClassVar[str] = "coverage"
    RESIDUAL: ClassVar[str] = "raw"

    def loss(self, samples: Any) -> Any:
        return np.exp(self.a * samples**self.b)
