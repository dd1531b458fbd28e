"""Loss of one size of model against what its training took, tokens or FLOPs, and back: a monotone curve through runs.

It says what a run that was fine-tuned or taught is compared with: the loss of a plain run that took as much, and what
a plain run would need for its loss (Hernandez 2021, arXiv 2102.01293, section 2).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmscale.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LossCurve:
    """Loss against an amount between the shortest and the longest of some runs, monotone in logarithms (PCHIP)."""

    amounts_n: NDArray[np.float64]
    """What each run took, rising."""
    losses_n: NDArray[np.float64]
    """What it reached, falling."""

    @classmethod
    def through(cls, runs: "pd.DataFrame", amount: str) -> "LossCurve":
        """The curve of runs of one size against the column `amount`.

        Raises `UserError` for fewer than two runs, or where one that took more has no lower loss.
        """
        rows = runs.sort_values(amount)
        amounts, losses = (rows[name].to_numpy(dtype=float) for name in (amount, "loss_nats"))
        if len(rows) < 2:
            raise UserError(f"a curve of the loss against {amount} needs two runs of a size or more, not {len(rows)}")
        rises = np.flatnonzero(~((np.diff(losses) < 0) & (np.diff(amounts) > 0)))
        if len(rises):
            first = rises[0]
            raise UserError(
                f"the loss does not fall with {amount}: it is {losses[first]:.4f} at {amounts[first]:.6g} and "
                f"{losses[first + 1]:.4f} at {amounts[first + 1]:.6g}; give runs of one size, each to its end"
            )
        return cls(amounts, losses)

    def loss(self, amount: ArrayLike) -> NDArray[np.float64]:
        """The loss after so much, of the shape of `amount`; NaN beyond the ends."""
        return _between(self.amounts_n, self.losses_n, amount)

    def amount(self, loss: ArrayLike) -> NDArray[np.float64]:
        """What a loss takes, of the shape of `loss`; NaN beyond the ends."""
        return _between(self.losses_n[::-1], self.amounts_n[::-1], loss)


def _between(x_n: NDArray[np.float64], y_n: NDArray[np.float64], x: ArrayLike) -> NDArray[np.float64]:
    """The curve through points with rising x_n, at x; NaN beyond the ends."""
    from scipy.interpolate import PchipInterpolator

    curve = PchipInterpolator(np.log(x_n), np.log(y_n), extrapolate=False)
    return np.asarray(np.exp(curve(np.log(np.asarray(x, float)))))
