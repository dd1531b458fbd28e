"""Laws of routed experts: how the loss depends on their number, their granularity, or the share that is not used."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lmscale.study.laws.law import Law
from lmscale.study.laws.parameter import Parameter


def saturated_experts(experts: Any, start: Any, most: Any) -> Any:
    """E^ of E experts: about E between `start` and `most`, at which its growth begins and ends (Clark 2022, eq. 4)."""
    return 1 / (1 / (experts - 1 + 1 / (1 / start - 1 / most)) + 1 / most)


@dataclass(frozen=True)
class Clark(Law):
    """log10 L = a log10 N + b log10 E^ + c log10 N log10 E^ + d (Clark 2022, arXiv 2202.01169, eq. 3-4).

    N counts the parameters that one token passes; a dense model has one expert.
    """

    a: Any
    b: Any
    c: Any
    d: Any
    E_start: Any
    E_max: Any

    NAME: ClassVar[str] = "clark"
    FORMULA: ClassVar[str] = "log10 L = a log10 N + b log10 E^ + c log10 N log10 E^ + d"
    SOURCE: ClassVar[str] = "Clark 2022, arXiv 2202.01169, eq. 3-4"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("a", -2, -1e-4, (-0.05, -0.1), log=False),
        Parameter("b", -2, 0, (-0.05, -0.2), log=False),
        Parameter("c", -0.5, 0.5, (0, 0.01), log=False),
        Parameter("d", -5, 5, (1,), log=False),
        Parameter("E_start", 1.0001, 100, (1.5, 3)),
        Parameter("E_max", 5, 1e6, (100, 1000)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("params", "experts")

    def loss(self, params: Any, experts: Any) -> Any:
        size, routed = np.log10(params), np.log10(saturated_experts(experts, self.E_start, self.E_max))
        return 10 ** (self.a * size + self.b * routed + self.c * size * routed + self.d)

    def effective_dense_params(self, params: Any, experts: Any) -> Any:
        """The size of a dense model with the loss of N active parameters and E experts (Clark 2022, eq. 8)."""
        routed, dense = saturated_experts(experts, self.E_start, self.E_max), self.E_start
        slope, dense_slope = (self.a + self.c * np.log10(x) for x in (routed, dense))
        return params ** (slope / dense_slope) * (routed / dense) ** (self.b / dense_slope)


@dataclass(frozen=True)
class Granular(Law):
    """L = c + (g/G^gamma + a)/N^alpha + b/D^beta, G the granularity of the experts (Krajewski 2024, arXiv 2402.07871).

    The form is as others quote it: no constants are offered.
    """

    c: Any
    g: Any
    gamma: Any
    a: Any
    alpha: Any
    b: Any
    beta: Any

    NAME: ClassVar[str] = "granular-experts"
    FORMULA: ClassVar[str] = "L = c + (g/G^gamma + a)/N^alpha + b/D^beta"
    SOURCE: ClassVar[str] = "Krajewski 2024, arXiv 2402.07871 (as quoted by others)"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("c", 1e-6, 50, (0.5, 1.5), log=False),
        Parameter("g", 1e-6, 1e12, (2, 50)),
        Parameter("gamma", 1e-2, 5, (0.3, 0.8), log=False),
        Parameter("a", 1e-6, 1e12, (20, 500)),
        Parameter("alpha", 1e-3, 5, (0.12, 0.35), log=False),
        Parameter("b", 1e-6, 1e12, (30, 1000)),
        Parameter("beta", 1e-3, 5, (0.15, 0.4), log=False),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("params", "tokens", "granularity")

    def loss(self, params: Any, tokens: Any, granularity: Any) -> Any:
        amplitude = self.g * granularity ** (-self.gamma) + self.a
        return self.c + amplitude * params ** (-self.alpha) + self.b * tokens ** (-self.beta)


@dataclass(frozen=True)
class JointExperts(Law):
    """L = a E^^delta N^(alpha + gamma ln E^) + b E^^omega D^(beta + zeta ln E^) + c (Ludziejewski 2025, 2502.05172).

    N counts the parameters that one token passes. The form is as others quote it: no constants are offered.
    """

    a: Any
    delta: Any
    alpha: Any
    gamma: Any
    b: Any
    omega: Any
    beta: Any
    zeta: Any
    c: Any
    E_start: Any
    E_max: Any

    NAME: ClassVar[str] = "joint-experts"
    FORMULA: ClassVar[str] = "L = a E^^delta N^(alpha + gamma ln E^) + b E^^omega D^(beta + zeta ln E^) + c"
    SOURCE: ClassVar[str] = "Ludziejewski 2025, arXiv 2502.05172 (as quoted by others)"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("a", 1e-6, 1e9, (30, 300)),
        Parameter("delta", -3, 3, (-0.2, 0.2), log=False),
        Parameter("alpha", -3, -1e-3, (-0.2, -0.4), log=False),
        Parameter("gamma", -0.5, 0.5, (-0.01,), log=False),
        Parameter("b", 1e-6, 1e9, (30, 300)),
        Parameter("omega", -3, 3, (-0.4, 0.1), log=False),
        Parameter("beta", -3, -1e-3, (-0.2, -0.4), log=False),
        Parameter("zeta", -0.5, 0.5, (0.02,), log=False),
        Parameter("c", 1e-6, 50, (1, 1.5), log=False),
        Parameter("E_start", 1.0001, 100, (1.5, 3)),
        Parameter("E_max", 5, 1e6, (300,)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("params", "tokens", "experts")

    def loss(self, params: Any, tokens: Any, experts: Any) -> Any:
        log_experts = np.log(saturated_experts(experts, self.E_start, self.E_max))
        size = self.a * np.exp(self.delta * log_experts + (self.alpha + self.gamma * log_experts) * np.log(params))
        data = self.b * np.exp(self.omega * log_experts + (self.beta + self.zeta * log_experts) * np.log(tokens))
        return size + data + self.c


@dataclass(frozen=True)
class Sparse(Law):
    """L = a/N^alpha + b/D^beta + c/(1-S)^lam + d/((1-S)^delta N^gamma) + e, S the sparsity (Abnar 2025, 2501.12370).

    N counts all parameters. The form is as others quote it: no constants are offered.
    """

    a: Any
    alpha: Any
    b: Any
    beta: Any
    c: Any
    lam: Any
    d: Any
    delta: Any
    gamma: Any
    e: Any

    NAME: ClassVar[str] = "sparse"
    FORMULA: ClassVar[str] = "L = a/N^alpha + b/D^beta + c/(1-S)^lam + d/((1-S)^delta N^gamma) + e"
    SOURCE: ClassVar[str] = "Abnar 2025, arXiv 2501.12370 (as quoted by others)"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("a", 1e-6, 1e12, (50, 2000)),
        Parameter("alpha", 1e-3, 5, (0.2, 0.5), log=False),
        Parameter("b", 1e-6, 1e12, (50, 2000)),
        Parameter("beta", 1e-3, 5, (0.2, 0.5), log=False),
        Parameter("c", 1e-9, 1e6, (0.1,)),
        Parameter("lam", -5, 5, (-0.3, 0.3), log=False),
        Parameter("d", 1e-9, 1e12, (1, 100)),
        Parameter("delta", -5, 5, (-0.3, 0.3), log=False),
        Parameter("gamma", 1e-3, 5, (0.2,), log=False),
        Parameter("e", 1e-6, 50, (0.5, 1.5), log=False),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("params", "tokens", "sparsity")

    def loss(self, params: Any, tokens: Any, sparsity: Any) -> Any:
        log_used = np.log(1 - sparsity)
        both = self.d * np.exp(-self.delta * log_used - self.gamma * np.log(params))
        alone = (
            self.a * params ** (-self.alpha) + self.b * tokens ** (-self.beta) + self.c * np.exp(-self.lam * log_used)
        )
        return alone + both + self.e
