"""One unknown of a law: its name, its bounds, and where a search for it begins."""

import math
from dataclasses import dataclass
from numbers import Complex
from typing import Any

from lmscale.core.arguments import Number, checked, hint, shown
from lmscale.core.errors import UserError

ARRAYS = ("i", "u", "f", "c")
"""Kinds of NumPy's types that are numbers."""


@checked
@dataclass(frozen=True)
class Parameter:
    """One unknown of a law, with its bounds. Raises `UserError` for bounds or starts that cannot be."""

    name: str
    low: Number
    high: Number
    starts: tuple[float, ...] = ()
    """Values from which it is searched, crossed with those of the others; else three points inside the bounds."""
    log: bool = True
    """Whether its logarithm is what is searched, and what designs and conditions are judged by; it is then positive."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise UserError(f"Parameter({self.name!r}): the name is that of a field of the law, for example 'alpha'")
        if not -math.inf < self.low < self.high < math.inf:
            raise UserError(
                f"parameter {self.name!r} lies between {self.low:g} and {self.high:g}: give finite bounds, the lower "
                f"one first"
            )
        if self.log and not self.low > 0:
            raise UserError(
                f"parameter {self.name!r} is searched by its logarithm and its lower bound is {self.low:g}: give a "
                f"positive one, or log=False"
            )
        if outside := [start for start in self.starts if not self.low <= start <= self.high]:
            raise UserError(
                f"parameter {self.name!r} starts at {outside[0]:g}, outside of its bounds {self.low:g} to {self.high:g}"
            )

    def check(self, value: Any, of: str) -> None:
        """Raise `UserError` for a value that is no number, nor an array of them; `of` names the class of the law.

        Complex numbers and duals are numbers: derivatives are taken by both.
        """
        kind = getattr(getattr(value, "dtype", None), "kind", None)
        if kind in ARRAYS or hasattr(value, "tangents"):
            return
        if kind is None and isinstance(value, Complex) and not isinstance(value, bool):
            return
        fix = "; make an array of it, np.array([...])" if isinstance(value, list | tuple) else hint(value, True)
        raise UserError(f"{of}({self.name}={shown(value)}): must be a number, or an array of numbers{fix}")

    @property
    def search_from(self) -> tuple[float, ...]:
        """The starts, or where none are given three points that divide the bounds, on the scale of the search.

        None of them is 0, where a law's derivatives may not exist.
        """
        if self.starts:
            return self.starts
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        points = [low + share * (high - low) for share in (0.2, 0.5, 0.8)]
        if self.log:
            return tuple(math.exp(point) for point in points)
        return tuple(point if abs(point) > 1e-9 * (high - low) else 0.02 * (high - low) for point in points)
