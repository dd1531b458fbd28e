"""How far a parabola misses the minimum of a valley whose law is known: by the width of its grid and its centre.

A parabola in ln N is symmetric and a valley is not, so its minimum is pulled to the flatter side (Czech 2026,
arXiv 2603.22339). Runs do not show this, since it is no noise: it is worked out on the prior law before them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmscale.study.laws import SIX_ND, ComputeModel, Law

LEAST_SIZES = 3
"""Below this there is no parabola."""


@dataclass(frozen=True)
class Valley:
    """The planned runs of one budget: their sizes, and where a parabola through noiseless losses has its minimum."""

    flops: float
    sizes: int
    params: float
    """N* of the prior law."""
    found: float | None
    """Minimum of the parabola; None where it has none."""
    lowest: float
    highest: float
    """The smallest and the largest planned N."""

    @property
    def inside(self) -> bool:
        """Whether N* lies between the planned sizes."""
        return self.lowest < self.params < self.highest

    @property
    def bias(self) -> float | None:
        """Of N*, relative."""
        return None if self.found is None else self.found / self.params - 1


def valley(law: Law, flops: float, params_n: np.ndarray, compute: ComputeModel = SIX_ND) -> Valley:
    """The parabola through the law's own losses at the sizes `params_n` of one budget."""
    x_n = np.log(params_n)
    centre = float(x_n.mean())
    curved, slope, _ = np.polyfit(x_n - centre, law.loss(params_n, compute.tokens(flops, params_n)), 2)
    return Valley(
        flops=flops,
        sizes=len(params_n),
        params=float(law.optimum(flops, compute).params),
        found=math.exp(centre - slope / (2 * curved)) if curved > 0 else None,
        lowest=float(params_n.min()),
        highest=float(params_n.max()),
    )


def bias_of_exponent(valleys: Sequence[Valley]) -> float | None:
    """What the parabolas add to a of N* ~ C^a; None for fewer than two minima."""
    found = [(math.log(one.flops), math.log(one.found / one.params)) for one in valleys if one.found is not None]
    if len({x for x, _ in found}) < 2:
        return None
    x, y = zip(*found)
    return float(np.polyfit(x, y, 1)[0])
