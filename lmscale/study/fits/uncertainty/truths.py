"""The stated family of truths that intervals beyond the data are held against, with designs and targets.

A form is fitted to runs of a truth that it need not be. The family: Chinchilla's form; an outer exponent; Farseer's
constants, whose exponents of data depend on size; three power terms, the third falling with compute, or a slow one with
size alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from lmscale.study.laws import CHINCHILLA_REFIT, FARSEER_2025, SIX_ND, Chinchilla, Law, Parameter
from lmscale.study.laws.size_and_data import OuterExponent

Design = Literal["ladder", "isoflop"]
GRIDS: Mapping[int, Mapping[Design, tuple[int, int]]] = {
    24: {"ladder": (6, 4), "isoflop": (4, 6)},
    56: {"ladder": (8, 7), "isoflop": (7, 8)},
}
"""Runs -> sizes and ratios of a ladder, budgets and sizes of an IsoFLOP."""
RATIOS = (5.0, 80.0)
"""Fewest and most tokens per parameter of a ladder."""
BEYOND = (10.0, 100.0)
"""Targets' FLOPs over those of the largest run."""
OFF = (0.2, 1.0, 5.0)
"""Targets' tokens per parameter over the optimal ones."""
WORTHWHILE = (0.1, 1e4)
"""Tokens per parameter between which an optimum is looked for: far outside, Farseer's constants have others."""


@dataclass(frozen=True)
class ThreeTerms(Law):
    """L = E + A/N^alpha + B/D^beta + G/(N D^q)^gamma: a third power term, of compute (q = 1) or of size (q = 0)."""

    E: Any
    A: Any
    B: Any
    G: Any
    alpha: Any
    beta: Any
    gamma: Any
    q: Any

    NAME: ClassVar[str] = "three-terms"
    FORMULA: ClassVar[str] = "L = E + A/N^alpha + B/D^beta + G/(N D^q)^gamma"
    SOURCE: ClassVar[str] = "a truth for simulations"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        *Chinchilla.PARAMETERS[:3],
        Parameter("G", 1e-6, 1e15, (1, 10)),
        *Chinchilla.PARAMETERS[3:],
        Parameter("gamma", 1e-3, 5, (0.05,), log=False),
        Parameter("q", 0, 1, (0.5,), log=False),
    )

    def loss(self, params: Any, tokens: Any) -> Any:
        third = self.G * (params * tokens**self.q) ** -self.gamma
        return self.E + self.A * params**-self.alpha + self.B * tokens**-self.beta + third


@dataclass(frozen=True)
class Truth:
    """A law that is true in a simulation, at the scale that its constants were fitted at."""

    name: str
    law: Law
    smallest: float = 5e7
    """Parameters of a ladder's smallest model; its largest is sixteen times as large."""

    @property
    def budgets(self) -> tuple[float, float]:
        """Smallest and largest budget of an IsoFLOP."""
        smallest = 400 * self.smallest**2
        return smallest, 100 * smallest

    def best_size(self, flops: float) -> float:
        """The compute-optimal number of parameters."""
        params = np.sqrt(flops / SIX_ND.k / np.geomspace(*WORTHWHILE, 40_001))
        return float(params[np.argmin(self.law.loss(params, SIX_ND.tokens(flops, params)))])

    def design(self, kind: Design, runs: int) -> np.ndarray:
        """Params and tokens of the runs (n, 2)."""
        first, second = GRIDS[runs][kind]
        if kind == "ladder":
            sizes = self.smallest * np.geomspace(1, 16, first)
            return np.array([(n, n * ratio) for n in sizes for ratio in np.geomspace(*RATIOS, second)])
        return np.array(
            [
                (n, SIX_ND.tokens(flops, n))
                for flops in np.geomspace(*self.budgets, first)
                for n in self.best_size(flops) * np.geomspace(1 / 4, 4, second)
            ]
        )

    def targets(self, points_n2: np.ndarray) -> np.ndarray:
        """Params and tokens at `BEYOND` times the largest run's FLOPs, `OFF` times the optimal ratio: (6, 2)."""
        top = float(SIX_ND.flops(*points_n2.T).max())
        sizes = [(times * top, self.best_size(times * top) / ratio**0.5) for times in BEYOND for ratio in OFF]
        return np.array([(n, SIX_ND.tokens(flops, n)) for flops, n in sizes])

    def log_loss(self, points_n2: np.ndarray) -> np.ndarray:
        """ln L without noise (n,)."""
        return np.asarray(np.log(self.law.loss(*points_n2.T)))


FAMILY: Sequence[Truth] = (
    Truth("chinchilla", CHINCHILLA_REFIT),
    Truth("outer exponent", OuterExponent(E=1.220, A=3355.0, B=18186.0, alpha=0.408, beta=0.431, gamma=0.452)),
    Truth("farseer", FARSEER_2025, smallest=2e8),
    Truth("three terms, C", ThreeTerms(E=1.2, A=300.0, B=1500.0, G=3.0, alpha=0.33, beta=0.36, gamma=0.05, q=1.0)),
    Truth("three terms, N", ThreeTerms(E=1.6, A=3e4, B=3000.0, G=1.2, alpha=0.6, beta=0.38, gamma=0.03, q=0.0)),
)
"""The outer exponent's constants are those of the students that Busbridge 2025 (arXiv 2502.08606) trained alone."""
