"""What the public functions are given, checked by their annotations before anything is computed.

    @checked
    def fixed_model(params: Positive, tokens: Sequence[Positive], seeds: Sequence[Natural] = (0,)) -> Points: ...

    fixed_model("1e9", [1e10])    # fixed_model(params='1e9'): must be a positive number; write it without quotation ...

The annotation is the rule: a class, a literal, a union, a list or a mapping of them, or a number in a range, for which
there are names here (`Positive`, `Count`, ...). Type checkers see the plain types. Numbers of NumPy and arrays without
an axis are handed on as numbers of Python, any collection where a sequence is asked for as a tuple.
"""

from lmscale.core.arguments.checked import checked
from lmscale.core.arguments.numbers import (
    Amounts,
    Budget,
    Count,
    Finite,
    Level,
    Natural,
    NotNegative,
    Number,
    Positive,
    Share,
)
from lmscale.core.arguments.refused import hint, shown

__all__ = [
    "Amounts",
    "Budget",
    "Count",
    "Finite",
    "Level",
    "Natural",
    "NotNegative",
    "Number",
    "Positive",
    "Share",
    "checked",
    "hint",
    "shown",
]
