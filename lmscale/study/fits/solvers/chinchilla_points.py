"""The runs of a Chinchilla fit as its solver sees them, and the unknowns it works with.

The unknowns are theta = (ln E, ln A', ln B', alpha, beta), with A' and B' taken at the table's mean ln N and ln D:
centring takes the near-collinearity of A and alpha out of the Newton system.
E is limited by its range: where the data push it to 0, ln E rests on `LOWEST` and the other four are fitted.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.study.laws import Chinchilla

Array = NDArray[np.float64]

UNKNOWNS = 5
LOWEST = math.log(Chinchilla.PARAMETERS[0].low)  # of ln E: a loss of a millionth of a nat
MANY = 1_000  # runs from which on the law of all lies so near to that of a resample that Newton steps lead there
LAD_DELTA = 1e-8
"""Least absolute deviations is the Huber loss whose quadratic part is this narrow.

Divided by the threshold, it is less than |r| by half of that at most: its minimum lies at most so much per run above
the one of absolute deviations.
"""


@dataclass(frozen=True)
class Cells:
    """Which runs have the same N and D, as seeds have: what depends on these alone is computed once for all of them."""

    first_m: NDArray[np.intp]
    """The first run of each cell; the others follow it."""
    cell_n: NDArray[np.intp]
    """The cell of every run."""

    @classmethod
    def of(cls, x_n: Array, y_n: Array) -> "Cells | None":
        """The cells of a table that has many runs and at most half as many; None for any other.

        Sums over a cell's runs are rounded differently: a small table keeps its numbers to the last bit.
        """
        new_n = np.concatenate([[True], (np.diff(x_n) != 0) | (np.diff(y_n) != 0)])
        if len(x_n) < MANY or 2 * new_n.sum() > len(x_n):
            return None
        return cls(np.flatnonzero(new_n), np.cumsum(new_n) - 1)

    def of_runs(self, values_mb: Array) -> Array:
        """Values of cells for each of their runs (n, b)."""
        return np.take(values_mb, self.cell_n, axis=0)

    def sums(self, values_nb: Array) -> Array:
        """Sums over the runs of each cell (m, b)."""
        return np.asarray(np.add.reduceat(values_nb, self.first_m, axis=0))


@dataclass(frozen=True)
class ChinchillaPoints:
    """What is fitted, and how: centred ln N and ln D, losses in nats, residuals of ln L or of L, the loss function.

    `squared` sums r^2; else the Huber loss with threshold `delta` (LAD_DELTA for least absolute deviations).
    `loss_n` is (n,), or (n, b) where each of b problems has losses of its own.
    """

    x_n: Array
    y_n: Array
    loss_n: Array
    log_residual: bool
    x_mean: float
    y_mean: float
    squared: bool = False
    delta: float = 1e-3
    cells: Cells | None = None

    @classmethod
    def of(
        cls,
        params: Array,
        tokens: Array,
        loss_nats: Array,
        *,
        log_residual: bool = True,
        loss: str = "huber",
        delta: float = 1e-3,
    ) -> "ChinchillaPoints":
        x_n, y_n = np.log(params), np.log(tokens)
        x_mean, y_mean = float(x_n.mean()), float(y_n.mean())
        delta = LAD_DELTA if loss == "lad" else delta
        losses = np.asarray(loss_nats, dtype=float)
        x_n, y_n = x_n - x_mean, y_n - y_mean
        return cls(x_n, y_n, losses, log_residual, x_mean, y_mean, loss == "squared", delta, Cells.of(x_n, y_n))

    @cached_property
    def x_m(self) -> Array:
        """ln N of every cell, or of every run where no two share one."""
        return self.x_n if self.cells is None else self.x_n[self.cells.first_m]

    @cached_property
    def y_m(self) -> Array:
        """ln D alike."""
        return self.y_n if self.cells is None else self.y_n[self.cells.first_m]

    @cached_property
    def design_km(self) -> Array:
        """1, x, y, x^2, y^2 and x y of every cell: what sums over cells are weighted by."""
        x_m, y_m = self.x_m, self.y_m
        return np.stack([np.ones_like(x_m), x_m, y_m, x_m**2, y_m**2, x_m * y_m])

    def of_runs(self, values_mb: Array) -> Array:
        """Values of cells for each of their runs (n, b)."""
        return values_mb if self.cells is None else self.cells.of_runs(values_mb)

    def sums(self, values_nb: Array) -> Array:
        """Sums over the runs of each cell (m, b)."""
        return values_nb if self.cells is None else self.cells.sums(values_nb)

    @property
    def loss_nb(self) -> Array:
        """The losses beside a problem axis: (n, 1) where all problems share them, else (n, b)."""
        return self.loss_n[:, None] if self.loss_n.ndim == 1 else self.loss_n

    @cached_property
    def log_loss_nb(self) -> Array:
        """The logarithms of the losses, of the shape of `loss_nb`."""
        return np.asarray(np.log(self.loss_nb))

    def among(self, problems: Any) -> "ChinchillaPoints":
        """The points of some of the problems, an index into the axis b."""
        return self if self.loss_n.ndim == 1 else replace(self, loss_n=self.loss_n[:, problems])

    def named(self, theta_pb: Array) -> Array:
        """theta (5, b) as the rows E, A, B, alpha, beta of the law."""
        e, a, b, alpha, beta = theta_pb
        return np.stack([np.exp(e), np.exp(a + alpha * self.x_mean), np.exp(b + beta * self.y_mean), alpha, beta])

    def theta(self, named_pb: Array) -> Array:
        """The inverse of `named`."""
        level, scale_n, scale_d, alpha, beta = named_pb
        return np.stack(
            [np.log(level), np.log(scale_n) - alpha * self.x_mean, np.log(scale_d) - beta * self.y_mean, alpha, beta]
        )
