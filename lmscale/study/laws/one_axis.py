"""Forms in compute alone, in a schedule's areas, and from loss to a benchmark's score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lmscale.core.arguments import Share, checked
from lmscale.core.errors import UserError
from lmscale.study.laws.law import Law
from lmscale.study.laws.parameter import Parameter


@dataclass(frozen=True)
class ComputeLaw(Law):
    """L(C) = E + A (C/1e18)^-gamma: the frontier of one recipe (Kaplan 2020, eq. 1.3, with an asymptote)."""

    E: Any
    A: Any
    gamma: Any

    NAME: ClassVar[str] = "compute"
    FORMULA: ClassVar[str] = "L = E + A (C/1e18)^-gamma"
    SOURCE: ClassVar[str] = (
        "Kaplan 2020, arXiv 2001.08361, eq. 1.3, with the asymptote of Henighan 2020, arXiv 2010.14701"
    )
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("E", 1e-9, 50, (0.5, 1, 2)),
        Parameter("A", 1e-9, 1e9, (0.1, 1)),
        Parameter("gamma", 1e-3, 3, (0.05, 0.15, 0.4)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("flops",)

    def loss(self, flops: Any) -> Any:
        return self.E + self.A * (flops / 1e18) ** (-self.gamma)

    def flops(self, loss_nats: Any) -> Any:
        """The compute at which the law reaches a loss; infinite at or below the asymptote."""
        above = np.asarray(loss_nats - self.E, dtype=float)
        with np.errstate(over="ignore"):
            return np.where(above > 0, 1e18 * (np.maximum(above, 1e-300) / self.A) ** (-1 / self.gamma), np.inf)


@dataclass(frozen=True)
class BrokenPowerLaw(Law):
    """L = a + b x^-c0 (1 + (x/d)^(1/f))^(-c1 f), x = C/1e18 (Caballero 2022, arXiv 2210.14891, eq. 1, one break)."""

    a: Any
    b: Any
    c0: Any
    c1: Any
    d: Any
    f: Any

    NAME: ClassVar[str] = "broken-power-law"
    FORMULA: ClassVar[str] = "L = a + b x^-c0 (1 + (x/d)^(1/f))^(-c1 f), x = C/1e18"
    SOURCE: ClassVar[str] = "Caballero 2022, arXiv 2210.14891, eq. 1, one break"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("a", 1e-9, 50, (0.5, 1.5)),
        Parameter("b", 1e-9, 1e9, (0.3, 3)),
        Parameter("c0", 1e-4, 3, (0.02, 0.15)),
        Parameter("c1", -3, 3, (-0.1, 0.1), log=False),
        Parameter("d", 1e-12, 1e12, (1e-2, 1, 1e2)),
        Parameter("f", 0.02, 5, (0.2, 1)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("flops",)

    def loss(self, flops: Any) -> Any:
        x = flops / 1e18
        return self.a + self.b * x ** (-self.c0) * (1 + (x / self.d) ** (1 / self.f)) ** (-self.c1 * self.f)


@dataclass(frozen=True)
class Annealing(Law):
    """L = L0 + A S1^-alpha - C S2, from a schedule's forward and annealing areas (Tissue 2024, arXiv 2408.11029).

    `annealing_areas` gives S1 and S2. The form is the abstract's; the areas, and decay = 0.999, are as independent
    reimplementations of the paper state them. The paper's fitted constants were not at hand to check against. Checked
    instead on measured curves: fitted to one cosine run of Luo 2025 (arXiv 2503.12811), the law predicts a run whose
    rate stays and then falls within 0.3 % on average (tests/test_laws.py).
    """

    L0: Any
    A: Any
    alpha: Any
    C: Any

    NAME: ClassVar[str] = "annealing"
    FORMULA: ClassVar[str] = "L = L0 + A S1^-alpha - C S2"
    SOURCE: ClassVar[str] = "Tissue 2024, arXiv 2408.11029 (the paper's fitted constants not checked)"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("L0", 1e-3, 50, (1, 2)),
        Parameter("A", 1e-6, 1e6, (0.1, 1)),
        Parameter("alpha", 1e-2, 5, (0.3, 0.6)),
        Parameter("C", 1e-9, 1e3, (0.01, 0.5)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("rate_sum", "annealing_sum")

    def loss(self, rate_sum: Any, annealing_sum: Any) -> Any:
        return self.L0 + self.A * rate_sum ** (-self.alpha) - self.C * annealing_sum


@checked
def annealing_areas(
    learning_rates: np.ndarray | Sequence[float], decay: Share = 0.999, warmup_sum: float = 0.0
) -> tuple[Any, Any]:
    """(S1, S2) after every step of a schedule, each of shape (steps,).

    S1 sums the rates; S2 sums the momentum m_i = decay m_(i-1) + (rate_(i-1) - rate_i) of their falls. The steps of
    warmup are to be left out, since a rising rate would count as negative annealing; the sum of their rates is not:
    as `warmup_sum` it enters S1, without which a power of S1 does not fit the first steps.
    """
    rates = np.asarray(learning_rates, dtype=float)
    if rates.ndim != 1:
        raise UserError(f"annealing_areas was given an array of shape {rates.shape}: give the rate of every step")
    falls = np.concatenate([[0.0], rates[:-1] - rates[1:]])
    momentum = np.empty_like(falls)
    average = 0.0
    for step, fall in enumerate(falls):
        average = decay * average + fall
        momentum[step] = average
    return warmup_sum + np.cumsum(rates), np.cumsum(momentum)


@dataclass(frozen=True)
class DownstreamError(Law):
    """Err = eps - k exp(-gamma L): average top-1 error from the loss (Gadre 2024, arXiv 2403.08540, eq. 5)."""

    eps: Any
    k: Any
    gamma: Any

    NAME: ClassVar[str] = "downstream-error"
    FORMULA: ClassVar[str] = "Err = eps - k exp(-gamma L)"
    SOURCE: ClassVar[str] = "Gadre 2024, arXiv 2403.08540, eq. 5"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("eps", 1e-3, 2, (0.7, 0.9)),
        Parameter("k", 1e-4, 1e4, (0.5, 3)),
        Parameter("gamma", 1e-2, 20, (0.5, 1.5)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("loss_nats",)
    TARGET: ClassVar[str] = "error"
    RESIDUAL: ClassVar[str] = "raw"

    def loss(self, loss_nats: Any) -> Any:
        return self.eps - self.k * np.exp(-self.gamma * loss_nats)


@dataclass(frozen=True)
class LadderAccuracy(Law):
    """accuracy = low + rise / (1 + exp(k (L - L_mid))): the ladder's second step (Bhagia 2024, arXiv 2412.04403)."""

    low: Any
    rise: Any
    k: Any
    L_mid: Any

    NAME: ClassVar[str] = "ladder"
    FORMULA: ClassVar[str] = "accuracy = low + rise / (1 + exp(k (L - L_mid)))"
    SOURCE: ClassVar[str] = "Bhagia 2024, arXiv 2412.04403, eq. 3"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("low", 1e-3, 1, (0.1, 0.3)),
        Parameter("rise", 1e-3, 1, (0.4, 0.8)),
        Parameter("k", 1e-2, 100, (1, 5)),
        Parameter("L_mid", 1e-3, 20, (0.5, 1, 2)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("loss_nats",)
    TARGET: ClassVar[str] = "accuracy"
    RESIDUAL: ClassVar[str] = "raw"

    def loss(self, loss_nats: Any) -> Any:
        return self.low + self.rise / (1 + np.exp(self.k * (loss_nats - self.L_mid)))
