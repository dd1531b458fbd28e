"""The loss of a student that learns from a teacher."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lmscale.study.laws.law import Law
from lmscale.study.laws.parameter import Parameter
from lmscale.study.laws.size_and_data import OuterExponent

BUSBRIDGE_2025_SUPERVISED = OuterExponent(
    E=1.220,
    A=3355.0,
    B=18186.0,
    alpha=0.408,
    beta=0.431,
    gamma=0.452,
    citation="Busbridge 2025, arXiv 2502.08606: the loss without a teacher, as printed",
)

MIDDLE_PARAMS, MIDDLE_TOKENS = 1e9, 2e10
"""Near the middle of the runs of the paper: any point of this order serves."""


@dataclass(frozen=True)
class Distillation(Law):
    """The student's loss from its size, its tokens and its teacher's loss (Busbridge 2025, arXiv 2502.08606, eq. 8).

    L_S = L_T + L_T^-c0 (1 + (L_T/(d1 L~))^(1/f1))^(-c1 f1) (A/N^alpha + B/D^beta)^gamma, and L~ the loss of the same
    student without a teacher, by the law `SUPERVISED`: that of the paper's data. For runs on other data, derive a class
    whose `SUPERVISED` is a law fitted to their runs without a teacher. Too strong a teacher harms.
    """

    c0: Any
    c1: Any
    d1: Any
    f1: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    gamma: Any

    NAME: ClassVar[str] = "distillation"
    FORMULA: ClassVar[str] = "L = T + T^-c0 (1 + (T/(d1 L~))^(1/f1))^(-c1 f1) (A/N^alpha + B/D^beta)^gamma"
    SOURCE: ClassVar[str] = "Busbridge 2025, arXiv 2502.08606, eq. 8"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("c0", 1e-3, 20, (1, 2.5)),
        Parameter("c1", 1e-2, 1e6, (50, 500)),
        Parameter("d1", 0.1, 20, (1, 1.3)),
        Parameter("f1", 1e-3, 5, (0.08, 0.3)),
        Parameter("A", 1e-3, 1e9, (500, 3000)),
        Parameter("B", 1e-3, 1e9, (2000, 20000)),
        Parameter("alpha", 1e-2, 3, (0.3, 0.5)),
        Parameter("beta", 1e-2, 3, (0.4,)),
        Parameter("gamma", 1e-2, 5, (0.5, 0.8)),
    )
    INPUTS: ClassVar[tuple[str, ...]] = ("params", "tokens", "teacher_loss")
    SUPERVISED: ClassVar[Law] = BUSBRIDGE_2025_SUPERVISED
    BENT: ClassVar[tuple[str, ...]] = ("d1", "A", "B")

    @classmethod
    def to_search(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """d1 / (c1 f1)^f1 in place of d1, and both power terms at 1e9 parameters and 2e10 tokens in place of A and B.

        For large c1 the second factor tends to exp(-(T/(d1 L~))^(1/f1) c1 f1): the runs know this product, and c1 is
        free along a valley that bends in c1, d1 and f1. A and alpha, B and beta, have another, since ln N and ln D are
        never near 0. In these unknowns the valleys are straight.
        """
        bends = _bends(values)
        return {**values, **{name: values[name] / bends[name] for name in bends}}

    @classmethod
    def from_search(cls, unknowns: Mapping[str, Any]) -> dict[str, Any]:
        bends = _bends(unknowns)
        return {**unknowns, **{name: unknowns[name] * bends[name] for name in bends}}

    def loss(self, params: Any, tokens: Any, teacher_loss: Any) -> Any:
        alone = self.SUPERVISED.loss(params, tokens)
        strength = np.log(teacher_loss / alone) - np.log(self.d1)
        harm = np.exp(-self.c1 * self.f1 * np.logaddexp(0.0, strength / self.f1))
        student = (self.A * params ** (-self.alpha) + self.B * tokens ** (-self.beta)) ** self.gamma
        return teacher_loss + teacher_loss ** (-self.c0) * harm * student


def _bends(values: Mapping[str, Any]) -> dict[str, Any]:
    """What each parameter is divided by as it is searched."""
    return {
        "d1": (values["c1"] * values["f1"]) ** values["f1"],
        "A": MIDDLE_PARAMS ** values["alpha"],
        "B": MIDDLE_TOKENS ** values["beta"],
    }
