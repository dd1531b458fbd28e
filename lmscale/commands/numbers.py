"""Numbers among the words of a call: what is none is refused in a sentence, with the nearest number."""

import re
from types import UnionType
from typing import Any, Union, get_args

from tyro.constructors import PrimitiveConstructorSpec, PrimitiveTypeInfo

from lmscale.core.quantities import THOUSANDS

LEADING = re.compile(r"\s*([+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?)(?:\s*([kKMBT])\b)?")
"""The number that a word begins with, and the letter of a thousand behind it."""
FACTORS = {None: 1.0, "K": 1e3} | {letter: size for size, letter in THOUSANDS}


def number_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """How tyro reads an option that is a number, or unset; None for any other option."""
    types = get_args(info.type) if info.type_origin in (Union, UnionType) else (info.type,)
    kinds = [kind for kind in types if kind is not type(None)]
    if kinds not in ([int], [float]):
        return None
    kind = kinds[0]
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=lambda words: read_number(words[0], kind),
        is_instance=lambda value: value is None or (isinstance(value, int | float) and not isinstance(value, bool)),
        str_from_instance=lambda value: [str(value)],
    )


def read_number(word: str, kind: type[int] | type[float]) -> int | float:
    """The number that a word states. Raises `ValueError` for any other word, with the number that may be meant."""
    try:
        return kind(word)
    except ValueError:
        what = "a number" if kind is float else "a whole number"
        raise ValueError(f"{word!r} is not {what}{_meant(word, kind)}") from None


def _meant(word: str, kind: type[int] | type[float]) -> str:
    """A clause with the number that a word begins with, a comma in it read as a point; "" where there is none."""
    match = LEADING.match(word)
    if match is None:
        return ""
    digits = match[1].replace(",", ".")
    value = float(digits) * FACTORS[match[2]]
    if kind is int and not value.is_integer():
        return ""
    return f"; write {value:.0f}" if kind is int else f"; write {value:g}" if match[2] else f"; write {digits}"
