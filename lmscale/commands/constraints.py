"""Flags that name several things at once: values, ranges and pairs of parameters."""

from collections.abc import Callable, Mapping
from typing import Any

from tyro.constructors import PrimitiveConstructorSpec

from lmscale.core.errors import UserError


def named(text: str, read: Callable[[str], Any], example: str) -> dict[str, Any]:
    """{"E": ...} from "E=...,A=...", each value by `read`. Raises `UserError` for no pair, or a name given twice."""
    values: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, sign, given = (part.strip() for part in pair.partition("="))
        try:
            value = read(given) if sign and name else None
        except ValueError:
            value = None
        if value is None:
            raise UserError(f"{pair!r} is no pair of a name and a value: write them as in {example}")
        if name in values:
            raise UserError(f"{name} is given twice, {values[name]} and {given}: give it once")
        values[name] = value
    if not values:
        raise UserError(f"no pair of a name and a value was given: write them as in {example}")
    return values


def _range(text: str) -> tuple[float, float]:
    low, high = text.split(":")
    return float(low), float(high)


def _word(text: str) -> str:
    if not text.isidentifier():
        raise ValueError(text)
    return text


def _spec(read: Callable[[str], Any], example: str) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=example,
        instance_from_str=lambda strings: named(strings[0], read, example),
        is_instance=lambda value: value is None or isinstance(value, Mapping),
        str_from_instance=lambda value: [str(value)],
    )


VALUES = _spec(float, "E=1.8,alpha=0.34")
RANGES = _spec(_range, "alpha=0.1:0.5")
TIES = _spec(_word, "beta=alpha")
