"""Forms of the loss where text is repeated: in parameters N, tokens D and unique tokens U."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lmscale.study.laws.law import Law
from lmscale.study.laws.parameter import Parameter
from lmscale.study.laws.size_and_data import Chinchilla


@dataclass(frozen=True)
class DataConstrained(Law):
    """Chinchilla in effective parameters and tokens: repeats are worth less and less (Muennighoff 2023, eq. 5-6).

    D' = U + U R*_D (1 - exp(-R/R*_D)), R = D/U - 1, and the same for N with U_N = min(N, the optimal N for U tokens).
    """

    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    R_N: Any
    R_D: Any

    NAME: ClassVar[str] = "data-constrained"
    FORMULA: ClassVar[str] = "L = E + A/N'^alpha + B/D'^beta"
    SOURCE: ClassVar[str] = "Muennighoff 2023, arXiv 2305.16264, eq. 5-6 and appendix A"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        *Chinchilla.PARAMETERS,
        Parameter("R_N", 1e-2, 1e6, (0.5, 2, 5, 20)),
        Parameter("R_D", 1e-2, 1e6, (3, 10, 30, 100)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("params", "tokens", "unique_tokens")

    @staticmethod
    def effective(amount: Any, unique: Any, decay: Any) -> Any:
        """N' or D'. `expm1`, since 1 - exp(-x) cancels at large R* and fakes a minimum there."""
        return unique - unique * decay * np.expm1(-(amount / unique - 1) / decay)

    def optimal_params(self, tokens: Any) -> Any:
        """The N whose Chinchilla-optimal data set, at C = 6ND, is `tokens`."""
        balance = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return balance * (tokens * balance) ** (self.beta / self.alpha)

    def loss(self, params: Any, tokens: Any, unique_tokens: Any = None) -> Any:
        """`unique_tokens` None: no repeats, so that D' = D."""
        if unique_tokens is None:
            return self.E + self.A * params ** (-self.alpha) + self.B * tokens ** (-self.beta)
        unique = np.minimum(unique_tokens, tokens)
        enough = self.optimal_params(unique)
        unique_params = np.minimum(enough, params)
        params = self.effective(params, unique_params, self.R_N)
        tokens = self.effective(tokens, unique, self.R_D)
        return self.E + self.A * params ** (-self.alpha) + self.B * tokens ** (-self.beta)


@dataclass(frozen=True)
class BoundedDataConstrained(Law):
    """L = E + (L0 - E) h/(1 + h), h = a/N^alpha + b/D^beta + c N^gamma/U^delta, U unique tokens (arXiv 2605.09189).

    Repeats harm large models most: a rival to `DataConstrained`, whose repeats are only worth less.
    """

    E: Any
    L0: Any
    a: Any
    alpha: Any
    b: Any
    beta: Any
    c: Any
    gamma: Any
    delta: Any

    NAME: ClassVar[str] = "bounded-data-constrained"
    FORMULA: ClassVar[str] = "L = E + (L0 - E) h/(1 + h), h = a/N^alpha + b/D^beta + c N^gamma/U^delta"
    SOURCE: ClassVar[str] = "arXiv 2605.09189"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("E", 1e-6, 50, (1, 2), log=False),
        Parameter("L0", 1, 100, (8, 11)),
        Parameter("a", 1e-6, 1e12, (10, 300)),
        Parameter("alpha", 1e-3, 5, (0.3, 0.5), log=False),
        Parameter("b", 1e-6, 1e12, (30, 1000)),
        Parameter("beta", 1e-3, 5, (0.35, 0.5), log=False),
        Parameter("c", 1e-9, 1e12, (1e-2, 1)),
        Parameter("gamma", 0, 5, (0.2, 0.5), log=False),
        Parameter("delta", 1e-3, 5, (0.3, 0.6), log=False),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("params", "tokens", "unique_tokens")

    def loss(self, params: Any, tokens: Any, unique_tokens: Any) -> Any:
        trained = self.a * params ** (-self.alpha) + self.b * tokens ** (-self.beta)
        h = trained + self.c * np.exp(self.gamma * np.log(params) - self.delta * np.log(unique_tokens))
        return self.E + (self.L0 - self.E) * h / (1 + h)
