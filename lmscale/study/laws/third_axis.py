"""Laws of size and data with one axis more: parallel streams, vocabulary, bits per weight, a datastore, a mixture."""

import functools
from dataclasses import dataclass, make_dataclass
from typing import Any, ClassVar

import numpy as np

from lmscale.core.arguments import Count, checked
from lmscale.study.laws.law import Law
from lmscale.study.laws.parameter import Parameter
from lmscale.study.laws.size_and_data import Chinchilla


@dataclass(frozen=True)
class ParScale(Law):
    """L = (A/(N (k ln P + 1)))^alpha + E: P parallel streams of one model (Chen 2025, arXiv 2505.10475, eq. 3)."""

    A: Any
    k: Any
    alpha: Any
    E: Any

    NAME: ClassVar[str] = "parscale"
    FORMULA: ClassVar[str] = "L = (A/(N (k ln P + 1)))^alpha + E"
    SOURCE: ClassVar[str] = "Chen 2025, arXiv 2505.10475 (ParScale)"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", 1, 1e15, (1e6, 1e8)),
        Parameter("k", 1e-4, 100, (0.1, 0.5)),
        Parameter("alpha", 1e-2, 3, (0.15, 0.4)),
        Parameter("E", 1e-6, 50, (0.5, 1.4), log=False),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("params", "streams")

    def loss(self, params: Any, streams: Any) -> Any:
        return (self.A / (params * (self.k * np.log(streams) + 1))) ** self.alpha + self.E


@dataclass(frozen=True)
class Vocabulary(Law):
    """L_u = -E + A1/N_nv^a1 + A2/(V d)^a2 + B/H^b, in units of 1e6, 1e6 and 1e9 (Tao 2024, arXiv 2407.13623, eq. 5).

    L_u is the loss less that of a unigram model on the same tokens; H counts training *characters*, not tokens.
    """

    E: Any
    A1: Any
    a1: Any
    A2: Any
    a2: Any
    B: Any
    b: Any

    NAME: ClassVar[str] = "vocabulary"
    FORMULA: ClassVar[str] = "L_u = -E + A1/N_nv^a1 + A2/(V d)^a2 + B/H^b"
    SOURCE: ClassVar[str] = "Tao 2024, arXiv 2407.13623, eq. 5"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("E", 1e-3, 50, (3, 6), log=False),
        Parameter("A1", 1e-6, 1e6, (0.5, 2)),
        Parameter("a1", 1e-3, 5, (0.3, 0.6), log=False),
        Parameter("A2", 1e-6, 1e6, (0.1, 1)),
        Parameter("a2", 1e-3, 5, (0.3, 0.7), log=False),
        Parameter("B", 1e-6, 1e6, (0.5, 2)),
        Parameter("b", 1e-3, 5, (0.3, 0.6), log=False),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("params_non_vocab", "params_vocab", "characters")
    TARGET: ClassVar[str] = "loss_unigram_nats"
    RESIDUAL: ClassVar[str] = "raw"

    def loss(self, params_non_vocab: Any, params_vocab: Any, characters: Any) -> Any:
        body = self.A1 * (params_non_vocab / 1e6) ** (-self.a1)
        vocabulary = self.A2 * (params_vocab / 1e6) ** (-self.a2)
        return body + vocabulary + self.B * (characters / 1e9) ** (-self.b) - self.E


@dataclass(frozen=True)
class Precision(Law):
    """L = A/N_eff^alpha + B/D^beta + E, N_eff = N (1 - e^(-P/g)) at P bits per weight (Kumar 2024, arXiv 2411.04330).

    Constants are not offered: fit your own runs, whose weights are rounded to P bits.
    """

    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    g: Any

    NAME: ClassVar[str] = "precision"
    FORMULA: ClassVar[str] = "L = E + A/(N (1 - e^(-P/g)))^alpha + B/D^beta"
    SOURCE: ClassVar[str] = "Kumar 2024, arXiv 2411.04330, eq. 3, weights alone"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (*Chinchilla.PARAMETERS, Parameter("g", 0.05, 50, (1, 2.5)))
    INPUTS: ClassVar[tuple[str, ...]] = ("params", "tokens", "weight_bits")

    def loss(self, params: Any, tokens: Any, weight_bits: Any) -> Any:
        effective = -params * np.expm1(-weight_bits / self.g)
        return self.E + self.A * effective ** (-self.alpha) + self.B * tokens ** (-self.beta)


@dataclass(frozen=True)
class PostTrainingPrecision(Law):
    """Chinchilla's law with C_T D^g_D N^-g_N e^(-P/g) for weights rounded to P bits afterwards (Kumar 2024, eq. 2)."""

    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    C_T: Any
    g_D: Any
    g_N: Any
    g: Any

    NAME: ClassVar[str] = "post-training-precision"
    FORMULA: ClassVar[str] = "L = E + A/N^alpha + B/D^beta + C_T D^g_D N^-g_N e^(-P/g)"
    SOURCE: ClassVar[str] = "Kumar 2024, arXiv 2411.04330, eq. 2"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        *Chinchilla.PARAMETERS,
        Parameter("C_T", 1e-9, 1e9, (0.1, 10)),
        Parameter("g_D", 1e-3, 3, (0.3,), log=False),
        Parameter("g_N", 1e-3, 3, (0.3,), log=False),
        Parameter("g", 0.05, 50, (0.6, 2)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("params", "tokens", "weight_bits")

    def loss(self, params: Any, tokens: Any, weight_bits: Any) -> Any:
        trained = self.E + self.A * params ** (-self.alpha) + self.B * tokens ** (-self.beta)
        rounding = self.g_D * np.log(tokens) - self.g_N * np.log(params) - weight_bits / self.g
        return trained + self.C_T * np.exp(rounding)


@dataclass(frozen=True)
class Retrieval(Law):
    """L = L0 + A/N^alpha + B/D^beta + C/(R + 1)^gamma, R the tokens of a datastore (arXiv 2604.00715)."""

    L0: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    C: Any
    gamma: Any

    NAME: ClassVar[str] = "retrieval"
    FORMULA: ClassVar[str] = "L = L0 + A/N^alpha + B/D^beta + C/(R + 1)^gamma"
    SOURCE: ClassVar[str] = "arXiv 2604.00715 (no constants published)"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("L0", 1e-6, 50, (1, 2), log=False),
        *Chinchilla.PARAMETERS[1:],
        Parameter("C", 1e-6, 1e3, (0.1, 1)),
        Parameter("gamma", 1e-3, 3, (0.02, 0.1)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("params", "tokens", "datastore_tokens")

    def loss(self, params: Any, tokens: Any, datastore_tokens: Any) -> Any:
        trained = self.L0 + self.A * params ** (-self.alpha) + self.B * tokens ** (-self.beta)
        return trained + self.C * (datastore_tokens + 1) ** (-self.gamma)


class _Mixture(Law):
    """L = c + exp(sum_j t_j r_j), r the shares of the domains (Ye 2024, arXiv 2403.16952, as quoted by others).

    The paper's factor k before the exponential is 1: the shares sum to one, so that ln k is part of every t_j. The loss
    is that of one domain; each domain is a fit of its own.
    """

    def loss(self, *shares: Any) -> Any:
        exponent: Any = 0.0
        for number, share in enumerate(shares, 1):
            exponent = exponent + getattr(self, f"t{number}") * share
        return self.c + np.exp(exponent)  # type: ignore[attr-defined]


@checked
@functools.cache
def mixture(domains: Count) -> type[Law]:
    """The law of a mixture of so many domains, called "mixture-5" of five: of share_1, share_2, ..."""
    names = tuple(f"t{number}" for number in range(1, domains + 1))
    shares = tuple(f"share_{number}" for number in range(1, domains + 1))
    spread = tuple(Parameter(name, -20, 20, (0.5,), log=False) for name in names)
    namespace = {
        "NAME": f"mixture-{domains}",
        "FORMULA": "L = c + exp(sum_j t_j r_j)",
        "SOURCE": "Ye 2024, arXiv 2403.16952, as quoted by others",
        "PARAMETERS": (Parameter("c", 0, 50, (0.5, 1.5, 2.5), log=False), *spread),
        "INPUTS": shares,
        "SHARES": shares,
        "__module__": __name__,
        "__doc__": _Mixture.__doc__,
    }
    fields = [(name, Any) for name in ("c", *names)]
    return make_dataclass(f"Mixture{domains}", fields, bases=(_Mixture,), namespace=namespace, frozen=True)
