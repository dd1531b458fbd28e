"""Do all runs lie on one line in (ln N, ln D)? Along it the term of N cannot be told from that of D."""

import math
from dataclasses import dataclass

import numpy as np

from lmscale.core.arguments import Positive, checked
from lmscale.core.errors import UserError

SAME = 0.25
"""Runs within this factor (as a difference of logarithms) of one line lie on it: shapes in whole layers and lengths in
whole batches move them so far, and what they tell beside the line is next to nothing."""
THEOREM = "on which the condition number of any fit grows as 1/(alpha - beta)^2: Kricheli 2026, arXiv 2605.08541"
"""Why runs that all lie on D = k N do not fix a law, however many they are."""


@dataclass(frozen=True)
class Line:
    """D = factor N^slope; or one N, or one D, for all runs."""

    slope: float
    factor: float
    one_params: float | None = None
    one_tokens: float | None = None

    @property
    def sloped(self) -> bool:
        """Whether D follows from N."""
        return self.one_params is None and self.one_tokens is None

    @property
    def theorem(self) -> str:
        """The clause that says why the line fixes no law; "" for another line than D = k N."""
        return f", {THEOREM}" if self.slope == 1 else ""

    def tokens(self, params_n: np.ndarray) -> np.ndarray:
        """D on the line (n,)."""
        return self.factor * params_n**self.slope

    def __str__(self) -> str:
        if self.one_params is not None:
            return f"all runs have N = {self.one_params:.3g}"
        if self.one_tokens is not None:
            return f"all runs have D = {self.one_tokens:.3g}"
        power = "" if self.slope == 1 else f"^{self.slope:.3g}"
        return f"all runs lie on the line D = {self.factor:.3g} N{power}"


@checked
def line_through(params_n: np.ndarray, tokens_n: np.ndarray, same: Positive = SAME) -> Line | None:
    """The line that all runs lie on, within `same`; None where there is none.

    A falling one does not count: along it terms part.
    """
    if not len(params_n) or len(params_n) != len(tokens_n):
        raise UserError(
            f"line_through was given {len(params_n)} sizes and {len(tokens_n)} lengths: a run has one of each"
        )
    x_n, y_n = np.log(params_n), np.log(tokens_n)
    if np.ptp(x_n) < same:
        return Line(math.inf, math.nan, one_params=float(np.exp(x_n.mean())))
    if np.ptp(y_n) < same:
        return Line(0.0, math.nan, one_tokens=float(np.exp(y_n.mean())))
    if np.ptp(y_n - x_n) < same:
        return Line(1.0, math.exp(float((y_n - x_n).mean())))
    slope, shift = np.polyfit(x_n, y_n, 1)
    if slope > 0 and np.ptp(y_n - slope * x_n - shift) < same:
        return Line(float(slope), math.exp(float(shift)))
    return None
