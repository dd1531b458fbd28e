"""Numbers in a range, as annotations: `def chinchilla_params(flops: Positive)`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, TypeAlias

from lmscale.core.arguments.refused import Refused

LARGEST = (1 << 63) - 1
"""Whole numbers fit into 64 bits."""


@dataclass(frozen=True)
class Range:
    """Which numbers an annotation takes, in words for one and for several."""

    one: str
    several: str
    holds: Callable[[float], bool]
    never_empty: bool = False
    """Whether a list of them has at least one."""


@dataclass(frozen=True)
class ArrayRange:
    """Which numbers an annotation takes where it takes one, or an array of them of any shape."""

    words: str
    holds: Callable[[Any], Any]


FINITE = Range("a finite number", "finite numbers", math.isfinite)
WHOLE = Range(
    f"a whole number of at most {LARGEST:.1e}", f"whole numbers of at most {LARGEST:.1e}", lambda x: abs(x) <= LARGEST
)

Finite: TypeAlias = Annotated[float, FINITE]
Number: TypeAlias = Annotated[float, Range("a number", "numbers", lambda x: True)]
"""A number of any value, NaN and infinity too: the function itself says which it takes."""
Positive: TypeAlias = Annotated[
    float, Range("a positive number", "positive numbers, as in [1e12, 3e12]", lambda x: 0 < x < math.inf, True)
]
NotNegative: TypeAlias = Annotated[
    float, Range("a number of 0 or more", "numbers of 0 or more", lambda x: 0 <= x < math.inf)
]
Share: TypeAlias = Annotated[float, Range("a number from 0 to 1", "numbers from 0 to 1", lambda x: 0 <= x <= 1)]
Level: TypeAlias = Annotated[
    float, Range("a share of at least 0 and below 1, as 0.95", "shares below 1", lambda x: 0 <= x < 1)
]
Budget: TypeAlias = Annotated[
    float,
    Range("a positive number of FLOPs", "positive numbers of FLOPs, as in [1e20, 1e21]", lambda x: 0 < x < math.inf),
]
Count: TypeAlias = Annotated[
    int, Range("a whole number of at least 1", "whole numbers of at least 1", lambda x: 1 <= x <= LARGEST, True)
]
Natural: TypeAlias = Annotated[
    int, Range("a whole number of 0 or more", "whole numbers of 0 or more", lambda x: 0 <= x <= LARGEST, True)
]
Amounts: TypeAlias = Annotated[
    Any, ArrayRange("a positive number, or an array of them", lambda x: ((x > 0) & (x < math.inf)).all())
]


def number(value: Any, limits: Range) -> float:
    """`value` as a number of Python inside the limits; an array without an axis is one too.

    Raises `Refused`.
    """
    given = _plain(value)
    try:
        fits = limits.holds(given)
    except (OverflowError, TypeError):
        fits = False
    if not fits:
        raise Refused(value)
    return given


def integer(value: Any, limits: Range) -> int:
    """A whole number inside the limits, of Python or of NumPy. Raises `Refused`."""
    given = number(value, limits)
    if not isinstance(given, int):
        raise Refused(value)
    return given


def _plain(value: Any) -> Any:
    """A number of any library as an int or a float. Raises `Refused` for what is none, and for true and false."""
    if isinstance(value, bool):
        raise Refused(value)
    if isinstance(value, int | float):
        return _within_floats(value)
    if isinstance(value, Real):
        return _within_floats(int(value) if isinstance(value, Integral) else float(value))
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        try:
            inside = value.item()
        except Exception:  # of an array that is being traced
            raise Refused(value) from None
        if isinstance(inside, int | float):
            return _plain(inside)
    raise Refused(value)


def _within_floats(value: float) -> float:
    """`value`, as a float beyond 64 bits, where arrays hold no whole numbers. Raises `Refused` beyond floats."""
    try:
        return float(value) if abs(value) > LARGEST else value
    except OverflowError:
        raise Refused(value) from None


def amounts(value: Any, limits: ArrayRange) -> Any:
    """A number, or an array of numbers, all inside the limits. Raises `Refused`."""
    import numpy as np

    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        given = _within_floats(value)
        if not limits.holds(np.asarray(given, dtype=float)):
            raise Refused(value)
        return given
    try:
        array = np.asarray(value)
    except Exception:  # lists of unequal lengths, an array that is being traced
        raise Refused(value) from None
    if array.dtype.kind not in "iuf" or not limits.holds(array):
        raise Refused(value)
    return array if array.ndim else array[()]
