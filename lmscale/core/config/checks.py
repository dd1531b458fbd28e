"""Checks that all configurations share, and the reading of a configuration from JSON."""

import dataclasses
import math
import reprlib
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

from lmscale.core.errors import UserError, nearest

T = TypeVar("T")
_LAYOUTS: dict[type[Any], "_Layout"] = {}
LARGEST_INTEGER = 10**30
"""Beyond any count of a run, and within the range of floats."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


LARGEST = (1 << 63) - 1
"""Whole numbers of a configuration fit into 64 bits."""


def check(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(0 < value < math.inf, f"{type(config).__name__}.{name} = {value!r}: must be positive")


def fraction(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(0.0 <= value <= 1.0, f"{type(config).__name__}.{name} = {value!r}: must lie between 0 and 1")


def not_negative(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(value >= 0, f"{type(config).__name__}.{name} = {value!r}: must not be negative")


def finite(config: Any, *names: str) -> None:
    """Refuse a number of the given fields, or of all, that is infinite or not a number."""
    for name in names or _layout(type(config)).fields:
        value = getattr(config, name)
        check(
            not isinstance(value, float) or math.isfinite(value),
            f"{type(config).__name__}.{name} = {value!r}: must be a finite number",
        )


def from_json(cls: type[T], value: Any, where: str = "", parts: dict[tuple[type[Any], str], Any] | None = None) -> T:
    """An instance of the dataclass `cls` from JSON values; the inverse of `dataclasses.asdict`.

    Equal parts of several instances are made once where all calls take the same dictionary `parts`, empty at first.

    Raises `UserError` that names the field for an unknown or missing field or a value of the wrong type.
    """
    where = where or cls.__name__
    check(isinstance(value, dict), f"{where} must be a mapping of fields, not {type(value).__name__}")
    layout = _layout(cls)
    if unknown := [str(name) for name in value if name not in layout.fields]:
        raise UserError(f"{where} has no field {_SHORT.repr(unknown[0])}{nearest(unknown[0], layout.fields)}")
    for name in layout.required:
        check(name in value, f"{where} lacks the field {name!r}")
    arguments = dict(value)
    for name, field in layout.nested:
        if name not in value:
            continue
        item = value[name]
        variants = field.variants
        if variants and (isinstance(item, dict) or (variants == [field.hint] and not isinstance(item, field.hint))):
            place = f"{where}.{name}"
            variant = _variant(variants, item, place) if len(variants) > 1 else variants[0]
            arguments[name] = _part(variant, item, place, parts)
        elif field.takes_tuple and isinstance(item, list):
            arguments[name] = tuple(item)
    return cls(**arguments)


def _part(cls: type[T], value: Any, where: str, parts: dict[tuple[type[Any], str], Any] | None) -> T:
    if parts is None:
        return from_json(cls, value, where)
    key = cls, repr(value)  # of JSON values, so equal texts are equal values of equal types
    if key not in parts:
        parts[key] = from_json(cls, value, where, parts)
    return parts[key]


def _variant(variants: list[Any], value: dict[str, Any], where: str) -> Any:
    """The one of several dataclasses, distinguished by the default of their field `kind`, that `value` describes."""
    by_kind = {variant.kind: variant for variant in variants}
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in by_kind:
        known = ", ".join(map(repr, by_kind))
        raise UserError(f"{where}.kind = {_SHORT.repr(kind)}: one of {known}{nearest(str(kind), by_kind)}")
    return by_kind[kind]


def check_types(config: Any) -> None:
    """Refuse a field whose value is not of its annotated type; a whole number is accepted where a float is expected."""
    for name, field in _layout(type(config)).fields.items():
        value = getattr(config, name)
        kind = type(value)
        if kind is int and abs(value) > LARGEST:
            raise UserError(f"{type(config).__name__}.{name} is beyond {LARGEST:.3g}, more than can be counted here")
        if kind in field.exact:
            continue
        if kind is int and field.takes_int_as_float and abs(value) <= LARGEST_INTEGER:
            object.__setattr__(config, name, float(value))
        elif not field.fits(value):
            raise UserError(
                f"{type(config).__name__}.{name} = {_SHORT.repr(value)}: must be {_expected(field.hint, value)}"
            )


class _Field(NamedTuple):
    """The annotated type of a field, prepared for checks of thousands of values."""

    hint: Any
    exact: frozenset[type[Any]]
    """Types whose every value fits."""
    fits: Callable[[Any], bool]
    takes_int_as_float: bool
    takes_tuple: bool
    variants: list[Any]
    """The dataclasses that it may hold."""


class _Layout(NamedTuple):
    """The fields of a dataclass, read once: a plan makes thousands of configurations."""

    fields: dict[str, _Field]
    required: tuple[str, ...]
    nested: tuple[tuple[str, _Field], ...]
    """Fields that may hold a dataclass or a tuple, which are a mapping or a list in JSON."""


def _layout(cls: type[Any]) -> _Layout:
    if cls not in _LAYOUTS:
        fields = {name: _field(hint) for name, hint in typing.get_type_hints(cls).items()}
        required = (
            item.name
            for item in dataclasses.fields(cls)
            if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        )
        nested = ((name, field) for name, field in fields.items() if field.variants or field.takes_tuple)
        _LAYOUTS[cls] = _Layout(fields, tuple(required), tuple(nested))
    return _LAYOUTS[cls]


def _field(hint: Any) -> _Field:
    kinds = _kinds(hint)
    return _Field(
        hint=hint,
        exact=frozenset(kind for kind in kinds if isinstance(kind, type) and typing.get_origin(kind) is None) - {int},
        fits=_fits(hint),
        takes_int_as_float=float in kinds and int not in kinds,
        takes_tuple=any(typing.get_origin(kind) is tuple for kind in kinds),
        variants=[kind for kind in kinds if dataclasses.is_dataclass(kind)],
    )


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The options of `A | B`, or the one that there is."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _fits(hint: Any) -> Callable[[Any], bool]:
    """Whether a value is of the type `hint`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        options = [_fits(option) for option in arguments]
        return lambda value: any(fits(value) for fits in options)
    if origin is Literal:
        return lambda value: value in arguments
    if origin is tuple:
        fits = _fits(arguments[0])
        return lambda value: isinstance(value, tuple) and all(map(fits, value))
    if origin is dict:
        key, item = map(_fits, arguments)
        return lambda value: isinstance(value, dict) and all(map(key, value)) and all(map(item, value.values()))
    if hint in (int, float):
        return lambda value: (
            (type(value) is int and abs(value) <= LARGEST_INTEGER) or (hint is float and isinstance(value, float))
        )
    return lambda value: isinstance(value, origin or hint)


def _expected(hint: Any, value: Any) -> str:
    if typing.get_origin(hint) is Literal:
        choices = [str(choice) for choice in typing.get_args(hint)]
        return f"one of {', '.join(map(repr, choices))}{nearest(str(value), choices) if isinstance(value, str) else ''}"
    if isinstance(value, int) and {int, float} & {*_kinds(hint)} and abs(value) > LARGEST_INTEGER:
        return f"a number of at most {LARGEST_INTEGER:.0e}"
    return f"of type {getattr(hint, '__name__', hint)}"
