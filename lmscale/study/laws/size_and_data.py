"""Forms of the loss in parameters N and tokens D."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lmscale.core.arguments import Amounts, checked
from lmscale.study.laws.compute import SIX_ND, Allocation, ComputeModel
from lmscale.study.laws.law import Law
from lmscale.study.laws.parameter import Parameter


@dataclass(frozen=True)
class Chinchilla(Law):
    """L(N, D) = E + A/N^alpha + B/D^beta (Hoffmann 2022, arXiv 2203.15556, eq. 2)."""

    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any

    NAME: ClassVar[str] = "chinchilla"
    FORMULA: ClassVar[str] = "L = E + A/N^alpha + B/D^beta"
    SOURCE: ClassVar[str] = "Hoffmann 2022, arXiv 2203.15556, eq. 2"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("E", 1e-6, 50, (1, 2), log=False),
        Parameter("A", 1e-6, 1e15, (50, 500, 5000)),
        Parameter("B", 1e-6, 1e15, (50, 500, 5000)),
        Parameter("alpha", 1e-3, 5, (0.2, 0.35, 0.6), log=False),
        Parameter("beta", 1e-3, 5, (0.2, 0.35, 0.6), log=False),
    )

    def loss(self, params: Any, tokens: Any) -> Any:
        return self.E + self.A * params ** (-self.alpha) + self.B * tokens ** (-self.beta)

    @checked
    def optimum(self, flops: Amounts, compute: ComputeModel = SIX_ND, **given: Any) -> Allocation:
        """Closed form: N^(alpha + p beta) = alpha A / (p beta B) (C/k)^beta, for C = k N^p D.

        With k = 6, p = 1 this is Hoffmann 2022, eq. 4.
        """
        self.check_given(given)
        ratio = np.log(self.alpha * self.A / (compute.p * self.beta * self.B))
        log_params = (ratio + self.beta * np.log(flops / compute.k)) / (self.alpha + compute.p * self.beta)
        params = np.exp(log_params)
        tokens = compute.tokens(flops, params)
        return Allocation(flops, params, tokens, tokens / params, self.loss(params, tokens))

    def exponents(self, compute: ComputeModel = SIX_ND) -> dict[str, Any]:
        a = self.beta / (self.alpha + compute.p * self.beta)
        return {"params": a, "tokens": 1 - compute.p * a}


@dataclass(frozen=True)
class Kaplan(Law):
    """L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D (Kaplan 2020, arXiv 2001.08361, eq. 1.5; N non-embedding)."""

    N_c: Any
    D_c: Any
    alpha_N: Any
    alpha_D: Any

    NAME: ClassVar[str] = "kaplan"
    FORMULA: ClassVar[str] = "L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D"
    SOURCE: ClassVar[str] = "Kaplan 2020, arXiv 2001.08361, eq. 1.5"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("N_c", 1e3, 1e25, (1e11, 1e14)),
        Parameter("D_c", 1e3, 1e25, (1e11, 1e14)),
        Parameter("alpha_N", 1e-3, 3, (0.07, 0.15)),
        Parameter("alpha_D", 1e-3, 3, (0.07, 0.15)),
    )

    def loss(self, params: Any, tokens: Any) -> Any:
        return ((self.N_c / params) ** (self.alpha_N / self.alpha_D) + self.D_c / tokens) ** self.alpha_D

    @checked
    def optimum(self, flops: Amounts, compute: ComputeModel = SIX_ND, **given: Any) -> Allocation:
        self.check_given(given)
        ratio = self.alpha_N / self.alpha_D
        inner = Chinchilla(0.0, self.N_c**ratio, self.D_c, ratio, 1.0).optimum(flops, compute)
        return dataclasses.replace(inner, loss_nats=self.loss(inner.params, inner.tokens))

    def exponents(self, compute: ComputeModel = SIX_ND) -> dict[str, Any]:
        a = self.alpha_D / (self.alpha_N + compute.p * self.alpha_D)
        return {"params": a, "tokens": 1 - compute.p * a}


@dataclass(frozen=True)
class OverTraining(Law):
    """L = E + alpha N^eta + beta 6^(eta/2) (M N)^eta, M = D/N, eta < 0 (Gadre 2024, arXiv 2403.08540, eq. 4)."""

    E: Any
    alpha: Any
    beta: Any
    eta: Any

    NAME: ClassVar[str] = "over-training"
    FORMULA: ClassVar[str] = "L = E + alpha N^eta + beta 6^(eta/2) D^eta"
    SOURCE: ClassVar[str] = "Gadre 2024, arXiv 2403.08540, eq. 4"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("E", 1e-6, 50, (1, 2), log=False),
        Parameter("alpha", 1e-6, 1e12, (50, 200)),
        Parameter("beta", 1e-6, 1e12, (50, 200)),
        Parameter("eta", -3, -1e-3, (-0.15, -0.25, -0.5), log=False),
    )
    RESIDUAL: ClassVar[str] = "raw"

    def loss(self, params: Any, tokens: Any) -> Any:
        return self.E + self.alpha * params**self.eta + self.beta * 6 ** (self.eta / 2) * tokens**self.eta

    @checked
    def optimum(self, flops: Amounts, compute: ComputeModel = SIX_ND, **given: Any) -> Allocation:
        self.check_given(given)
        same = Chinchilla(self.E, self.alpha, self.beta * 6 ** (self.eta / 2), -self.eta, -self.eta)
        return same.optimum(flops, compute)

    def exponents(self, compute: ComputeModel = SIX_ND) -> dict[str, Any]:
        a = 1 / (1 + compute.p) + 0 * self.eta
        return {"params": a, "tokens": 1 - compute.p * a}


@dataclass(frozen=True)
class OuterExponent(Law):
    """L = (A/N^alpha + B/D^beta)^gamma + E: Kaplan's outer exponent with an irreducible loss."""

    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    gamma: Any

    NAME: ClassVar[str] = "outer-exponent"
    FORMULA: ClassVar[str] = "L = E + (A/N^alpha + B/D^beta)^gamma"
    SOURCE: ClassVar[str] = "Kaplan 2020 (eq. 1.5) with the irreducible loss of Hoffmann 2022"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (*Chinchilla.PARAMETERS, Parameter("gamma", 1e-2, 10, (0.5, 1, 2)))

    def loss(self, params: Any, tokens: Any) -> Any:
        inner = self.A * params ** (-self.alpha) + self.B * tokens ** (-self.beta)
        return self.E + inner**self.gamma

    @checked
    def optimum(self, flops: Amounts, compute: ComputeModel = SIX_ND, **given: Any) -> Allocation:
        self.check_given(given)
        inner = Chinchilla(0.0, self.A, self.B, self.alpha, self.beta).optimum(flops, compute)
        return dataclasses.replace(inner, loss_nats=self.loss(inner.params, inner.tokens))

    def exponents(self, compute: ComputeModel = SIX_ND) -> dict[str, Any]:
        return Chinchilla(0.0, self.A, self.B, self.alpha, self.beta).exponents(compute)


@dataclass(frozen=True)
class PowerMean(Law):
    """L = [(A N^-alpha)^q + (B D^-beta)^q]^(1/q) + E; q = 1 is Chinchilla, large q lets the worse term decide.

    The same family as `OuterExponent` (gamma = 1/q, exponents alpha q, beta q) in other coordinates: the two fit alike,
    and here alpha and beta stay the slopes of the terms.
    """

    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    q: Any

    NAME: ClassVar[str] = "power-mean"
    FORMULA: ClassVar[str] = "L = E + [(A/N^alpha)^q + (B/D^beta)^q]^(1/q)"
    SOURCE: ClassVar[str] = "generalised mean of the two terms of Hoffmann 2022, eq. 2"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (*Chinchilla.PARAMETERS, Parameter("q", 0.05, 30, (0.7, 1, 2)))

    def loss(self, params: Any, tokens: Any) -> Any:
        terms = (self.A * params ** (-self.alpha)) ** self.q + (self.B * tokens ** (-self.beta)) ** self.q
        return self.E + terms ** (1 / self.q)

    @checked
    def optimum(self, flops: Amounts, compute: ComputeModel = SIX_ND, **given: Any) -> Allocation:
        self.check_given(given)
        q = self.q
        inner = Chinchilla(0.0, self.A**q, self.B**q, self.alpha * q, self.beta * q).optimum(flops, compute)
        return dataclasses.replace(inner, loss_nats=self.loss(inner.params, inner.tokens))

    def exponents(self, compute: ComputeModel = SIX_ND) -> dict[str, Any]:
        return Chinchilla(0.0, self.A, self.B, self.alpha, self.beta).exponents(compute)


ANCHOR, LOG_ANCHOR_TOKENS = 1e9, float(np.log(2e10))
"""Parameters, and ln of tokens, at which a search states a law of bent valleys: any point near the runs serves."""


@dataclass(frozen=True)
class Farseer(Law):
    """L = exp(s N^q + S) + exp(B N^b + Q) D^-exp(A N^a + E) (Li 2025, arXiv 2506.10972, eq. 8).

    No power law in N or D alone: a truth to test others by. The ranges of q, b and a end where their powers of N are
    logarithms in all but name; those of the others are so wide that none of them ends a search before.
    """

    s: Any
    q: Any
    S: Any
    B: Any
    b: Any
    Q: Any
    A: Any
    a: Any
    E: Any

    NAME: ClassVar[str] = "farseer"
    FORMULA: ClassVar[str] = "L = exp(s N^q + S) + exp(B N^b + Q) D^-exp(A N^a + E)"
    SOURCE: ClassVar[str] = "Li 2025, arXiv 2506.10972 (Farseer)"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("s", -1e5, -1e-6, (-0.02, -0.2, -2), log=False),
        Parameter("q", 1e-3, 2, (0.05, 0.15)),
        Parameter("S", -1e5, 1e5, (0, 1), log=False),
        Parameter("B", 1e-3, 1e20, (30, 300)),
        Parameter("b", -2, -1e-3, (-0.1, -0.2), log=False),
        Parameter("Q", -1e5, 1e5, (-2, 0), log=False),
        Parameter("A", -1e5, -1e-6, (-1, -3), log=False),
        Parameter("a", 1e-3, 2, (0.03, 0.06)),
        Parameter("E", -1e5, 1e5, (2, 4), log=False),
    )

    BENT: ClassVar[tuple[str, ...]] = ("s", "S", "B", "Q", "A", "E")

    @classmethod
    def to_search(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Each of the three functions of N by its value and its slope in ln N at 1e9 parameters; data at 2e10 tokens.

        A power of N with a small exponent is nearly a constant and a multiple of ln N: s and S, B and Q, A and E have
        long bent valleys, along which the value and the slope hardly change.
        """
        s, q, S, B, b, Q, A, a, E = (values[name] for name in cls.names())
        size, data, power = s * ANCHOR**q, B * ANCHOR**b, A * ANCHOR**a
        level, exponent = data + Q, power + E
        return {
            **values,
            "s": size * q,
            "S": size + S,
            "B": -data * b,
            "Q": level - np.exp(exponent) * LOG_ANCHOR_TOKENS,
            "A": power * a,
            "E": exponent,
        }

    @classmethod
    def from_search(cls, unknowns: Mapping[str, Any]) -> dict[str, Any]:
        s, q, S, B, b, Q, A, a, E = (unknowns[name] for name in cls.names())
        size, data, power = s / q, -B / b, A / a
        return {
            **unknowns,
            "s": size * ANCHOR**-q,
            "S": S - size,
            "B": data * ANCHOR**-b,
            "Q": Q + np.exp(E) * LOG_ANCHOR_TOKENS - data,
            "A": power * ANCHOR**-a,
            "E": E - power,
        }

    def loss(self, params: Any, tokens: Any) -> Any:
        slope = np.exp(self.A * params**self.a + self.E)
        data = np.exp(self.B * params**self.b + self.Q - slope * np.log(tokens))
        return np.exp(self.s * params**self.q + self.S) + data
