"""Flags that constrain: values, ranges and pairs of parameters; FLOPs, memory and tokens of an allocation."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tyro.constructors import PrimitiveConstructorSpec

from lmscale.core.errors import UserError

if TYPE_CHECKING:
    from lmscale.study.fits import LossLaw
    from lmscale.study.laws.allocation import Constraint

BYTES = {"": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


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


def bytes_of(text: str) -> float:
    """80e9 of "80GB", "80 GB" or "80e9". Raises `UserError` for what is no amount of memory."""
    match = re.fullmatch(r"\s*([\d.]+(?:[eE][+-]?\d+)?)\s*([a-zA-Z]*)\s*", text)
    factor = BYTES.get(match[2].upper().removesuffix("B") + "B" if match[2] else "") if match else None
    try:
        value = float(match[1]) * factor if match and factor else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"--memory {text}: write an amount with its unit, as in 80GB")
    return value


def constraints_of(
    fit: "LossLaw", flops: float | None, inference_tokens: float | None, memory: str | None, unique_tokens: float | None
) -> "list[Constraint]":
    """The constraints that flags name, under the fit's own compute model.

    Raises `UserError` for numbers that cannot be, and for inference without a budget of FLOPs.
    """
    from lmscale.study.laws.allocation import at_most, lifetime_flops, training_flops, weights_memory

    for name, value in (("flops", flops), ("inference-tokens", inference_tokens), ("unique-tokens", unique_tokens)):
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name} {value:g}: must be positive")
    limits = []
    if inference_tokens is not None and flops is None:
        raise UserError("--inference-tokens needs --flops, the FLOPs of training and inference together")
    if flops is not None and inference_tokens is not None:
        limits.append(lifetime_flops(flops, inference_tokens, fit.compute))
    elif flops is not None:
        limits.append(training_flops(flops, fit.compute))
    if memory is not None:
        limits.append(weights_memory(bytes_of(memory)))
    if unique_tokens is not None and "unique_tokens" not in fit.law.INPUTS and "tokens" in fit.law.INPUTS:
        limits.append(at_most("tokens", unique_tokens))
    return limits
