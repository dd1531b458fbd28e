"""What a law leaves out: the truth as the law times the exponential of an unknown smooth function of its inputs.

    ln truth(x) = ln f(x; theta) + d(x),    d ~ Gaussian process(0, t^2 exp(-|z - z'|^2 / (2 l^2)))

(Kennedy and O'Hagan 2001, doi 10.1111/1467-9868.00294). z are logarithms of the inputs, l how many factors of e d takes
to change. The kernel enters by its pivoted Cholesky factor, some twenty columns for any number of runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmscale.core.arguments import Number, checked
from lmscale.core.errors import UserError
from lmscale.study.laws.law import Law

LENGTH = 6.0
"""l, in factors of e of an input: `fits.uncertainty.discrepancy` has the measurements that chose it."""
TRUNCATION = 2e-8
"""Share of the kernel's variance below which its factor ends."""
LINEAR = 2.3
"""Factors of e that the range of an input without a logarithm counts as: a decade."""
LOGARITHMIC = ("size", "data", "compute", "count", "amount", "loss")
"""Roles of inputs whose logarithm is taken where all values are positive."""


@checked
@dataclass(frozen=True)
class Discrepancy:
    """How far the truth may lie from a law, and how smoothly. Raises `UserError` for what is not positive."""

    size: Number
    """t: standard deviation of ln(truth / law) before any run."""
    length: Number = LENGTH
    """l: how many factors of e of an input it takes to change."""

    def __post_init__(self) -> None:
        for name, value in (("size", self.size), ("length", self.length)):
            if not (math.isfinite(value) and value > 0):
                raise UserError(
                    f"the {name} of a discrepancy is {value}: give a number above 0, or no discrepancy where the law "
                    f"is taken to be exact"
                )


def coordinates(form: type[Law] | Law, fitted: Sequence[np.ndarray], inputs: Sequence[np.ndarray]) -> np.ndarray:
    """z (m, d) of inputs, each (m,), in factors of e; `fitted` are those of the runs, by which they are scaled."""
    columns = []
    for name, known, values in zip(form.INPUTS, fitted, inputs):
        if form.input(name).role in LOGARITHMIC and (known > 0).all() and (np.asarray(values) > 0).all():
            columns.append(np.log(values))
        else:
            columns.append(LINEAR * (np.asarray(values) - known.min()) / (float(np.ptp(known)) or 1.0))
    return np.stack(columns, axis=1)


def kernel(z_nd: np.ndarray, z_md: np.ndarray, length: float) -> np.ndarray:
    """The correlation of the discrepancy between points (n, m)."""
    square = ((z_nd[:, None] - z_md[None]) ** 2).sum(axis=-1)
    return np.asarray(np.exp(-square / (2 * length**2)))


def factor(z_nd: np.ndarray, length: float) -> np.ndarray:
    """Phi (n, k) with Phi Phi' = kernel, by Cholesky with pivots until `TRUNCATION` of the variance is left."""
    left, columns = np.ones(len(z_nd)), np.zeros((len(z_nd), 0))
    while left.max(initial=0.0) > TRUNCATION and columns.shape[1] < len(z_nd):
        pivot = int(left.argmax())
        column = kernel(z_nd, z_nd[[pivot]], length)[:, 0] - columns @ columns[pivot]
        column = column / math.sqrt(left[pivot])
        columns = np.column_stack([columns, column])
        left = np.maximum(left - column**2, 0.0)
        left[pivot] = 0.0
    return columns
