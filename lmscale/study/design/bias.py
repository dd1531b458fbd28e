"""How far a parabola misses the minimum of a valley whose law is known: by the width of its grid and its centre.

A parabola in ln N is symmetric and a valley is not, so its minimum is pulled to the flatter side (Czech 2026,
arXiv 2603.22339). Runs do not show this, since it is no noise: it is worked out on the prior law before them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmscale.core.arguments import Positive, checked
from lmscale.core.config import check
from lmscale.study.grouping import group_count
from lmscale.study.laws import SIX_ND, ComputeModel, Law

LEAST_SIZES = 3
"""Fewer sizes fix no parabola."""


@dataclass(frozen=True)
class Valley:
    """The planned runs of one budget: their sizes, and where a parabola through noiseless losses has its minimum."""

    flops: float
    sizes: int
    params: float
    """N* of the prior law."""
    parabola_params: float | None
    """N at the minimum of the parabola; None where it has none."""
    lowest: float
    highest: float
    """The smallest and the largest planned N."""

    @property
    def inside(self) -> bool:
        """Whether N* lies between the planned sizes."""
        return self.lowest < self.params < self.highest

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "flops": self.flops,
            "sizes": self.sizes,
            "params": self.params,
            "found": self.parabola_params,
            "lowest": self.lowest,
            "highest": self.highest,
            "bias": self.bias,
            "inside": self.inside,
        }

    @property
    def bias(self) -> float | None:
        """Relative error of the parabola's N*; None where it has none."""
        return None if self.parabola_params is None else self.parabola_params / self.params - 1


@checked
def planned_valley(law: Law, flops: Positive, params_n: np.ndarray, compute: ComputeModel = SIX_ND) -> Valley:
    """The parabola through the law's own losses at the sizes `params_n` of one budget."""
    check(np.ndim(params_n) == 1 and len(params_n) > 0, "planned_valley(params_n=...): give one or more sizes in a row")
    x_n = np.log(params_n)
    centre = float(x_n.mean())
    curved, slope, _ = np.polyfit(x_n - centre, law.loss(params_n, compute.tokens(flops, params_n)), 2)
    return Valley(
        flops=flops,
        sizes=len(params_n),
        params=float(law.optimum(flops, compute).params),
        parabola_params=math.exp(centre - slope / (2 * curved)) if curved > 0 else None,
        lowest=float(params_n.min()),
        highest=float(params_n.max()),
    )


@checked
def bias_of_exponent(valleys: Sequence[Valley]) -> float | None:
    """What the parabolas add to a of N* ~ C^a; None for fewer than two minima."""
    gaps = [
        (math.log(valley.flops), math.log(valley.parabola_params / valley.params))
        for valley in valleys
        if valley.parabola_params is not None
    ]
    if not gaps or group_count(np.exp([x for x, _ in gaps])) < 2:
        return None
    x, y = zip(*gaps)
    return float(np.polyfit(x, y, 1)[0])
