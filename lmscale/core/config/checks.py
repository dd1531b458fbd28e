"""Checks that all configurations share, and the reading of a configuration from JSON."""

import dataclasses
import math
import types
import typing
from typing import Any, Literal, TypeVar

from lmscale.core.errors import UserError, nearest

T = TypeVar("T")
_HINTS: dict[type[Any], dict[str, Any]] = {}


def check(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(math.isfinite(value) and value > 0, f"{type(config).__name__}.{name} = {value!r}: must be positive")


def fraction(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(0.0 <= value <= 1.0, f"{type(config).__name__}.{name} = {value!r}: must lie between 0 and 1")


def from_json(cls: type[T], value: Any, where: str = "") -> T:
    """An instance of the dataclass `cls` from JSON values; the inverse of `dataclasses.asdict`.

    Raises `UserError` that names the field for an unknown or missing field or a value of the wrong type.
    """
    where = where or cls.__name__
    check(isinstance(value, dict), f"{where} must be a mapping of fields, not {type(value).__name__}")
    known = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := [str(name) for name in value if name not in known]:
        raise UserError(f"{where} has no field {unknown[0]!r}{nearest(unknown[0], known)}")
    for name, item in known.items():
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        check(name in value or not required, f"{where} lacks the field {name!r}")
    hints = _hints(cls)
    arguments: dict[str, Any] = {}
    for name, item in value.items():
        hint = hints[name]
        variants: list[Any] = [kind for kind in _kinds(hint) if dataclasses.is_dataclass(kind)]
        if variants and (isinstance(item, dict) or (variants == [hint] and not isinstance(item, hint))):
            place = f"{where}.{name}"
            variant = _variant(variants, item, place) if len(variants) > 1 else variants[0]
            arguments[name] = from_json(variant, item, place)
        elif isinstance(item, list) and any(typing.get_origin(kind) is tuple for kind in _kinds(hint)):
            arguments[name] = tuple(item)
        else:
            arguments[name] = item
    return cls(**arguments)


def _variant(variants: list[Any], value: dict[str, Any], where: str) -> Any:
    """The one of several dataclasses, distinguished by the default of their field `kind`, that `value` describes."""
    by_kind = {variant.kind: variant for variant in variants}
    kind = value.get("kind")
    if kind not in by_kind:
        known = ", ".join(map(repr, by_kind))
        raise UserError(f"{where}.kind = {kind!r}: one of {known}{nearest(str(kind), by_kind)}")
    return by_kind[kind]


def check_types(config: Any) -> None:
    """Refuse a field whose value is not of its annotated type; a whole number is accepted where a float is expected."""
    for name, hint in _hints(type(config)).items():
        value = getattr(config, name)
        kinds = _kinds(hint)
        if type(value) is int and float in kinds and int not in kinds:
            object.__setattr__(config, name, float(value))
        elif not _fits(value, hint):
            raise UserError(f"{type(config).__name__}.{name} = {value!r}: must be {_expected(hint, value)}")


def _hints(cls: type[Any]) -> dict[str, Any]:
    """The annotated types of a dataclass, read once: a plan makes thousands of configurations."""
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The options of `A | B`, or the one that there is."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, typing.get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _expected(hint: Any, value: Any) -> str:
    if typing.get_origin(hint) is Literal:
        choices = [str(choice) for choice in typing.get_args(hint)]
        return f"one of {', '.join(map(repr, choices))}{nearest(str(value), choices) if isinstance(value, str) else ''}"
    return f"of type {getattr(hint, '__name__', hint)}"
