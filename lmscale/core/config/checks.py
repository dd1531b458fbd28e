"""Checks that all configurations share, and the reading of a configuration from JSON."""

import dataclasses
import marshal
import math
import numbers
import operator
import reprlib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from lmscale.core.arguments.numbers import LARGEST
from lmscale.core.errors import UserError, nearest

T = TypeVar("T")
Parts = dict[tuple[type[Any], bytes], Any]
"""Parts of configurations that were made already, by what they were made of."""
MARSHAL_VERSION = 2
"""The last format that writes a value's content alone; later ones write which objects are shared too."""
_LAYOUTS: dict[type[Any], "_Layout"] = {}
LARGEST_INTEGER = 10**30
"""Beyond any count of a run, and within the range of floats."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


def check(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def positive(config: Any, *names: str) -> None:
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise _refused(config, name, "must be positive")


def fraction(config: Any, *names: str) -> None:
    for name in names:
        if not 0.0 <= getattr(config, name) <= 1.0:
            raise _refused(config, name, "must lie between 0 and 1")


def not_negative(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise _refused(config, name, "must not be negative")


def finite(config: Any, *names: str) -> None:
    """Refuse a number of the given fields, or of all, that is infinite or not a number."""
    values = vars(config)
    for name in names or _kinds_of(_layout(type(config)), values).floats:
        value = values[name]
        if isinstance(value, float) and not math.isfinite(value):
            raise _refused(config, name, "must be a finite number")


def _refused(config: Any, name: str, rule: str) -> UserError:
    """The sentence for a field; written only where it is needed, since thousands of outcomes have forty each."""
    return UserError(f"{type(config).__name__}.{name} = {getattr(config, name)!r}: {rule}")


def from_json(cls: type[T], value: Any, where: str = "", parts: Parts | None = None) -> T:
    """An instance of the dataclass `cls` from JSON values; the inverse of `dataclasses.asdict`.

    Equal parts of several instances are made once where all calls take the same dictionary `parts`, empty at first.

    Raises `UserError` that names the field for an unknown or missing field or a value of the wrong type.
    """
    where = where or cls.__name__
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a mapping of fields, not {type(value).__name__}")
    layout = _layout(cls)
    if (names := tuple(value)) not in layout.complete:  # which fields are there is looked at once, not in every run
        _check_names(layout, value, where)
        layout.complete.add(names)
    arguments = dict(value)
    for name, field in layout.nested:
        if name in value:
            arguments[name] = _field_value(field, value[name], where, name, parts)
    return cls(**arguments)


def field_from_json(cls: type[Any], name: str, item: Any) -> Any:
    """What `from_json` makes of the value of one field of `cls`; of a field that there is not, the value."""
    field = _layout(cls).fields.get(name)
    return item if field is None else _field_value(field, item, cls.__name__, name, None)


def _check_names(layout: "_Layout", value: dict[str, Any], where: str) -> None:
    if not value.keys() <= layout.fields.keys():
        unknown = next(str(name) for name in value if name not in layout.fields)
        raise UserError(f"{where} has no field {_SHORT.repr(unknown)}{nearest(unknown, layout.fields)}")
    if missing := layout.required - value.keys():
        raise UserError(f"{where} lacks the field {next(filter(missing.__contains__, layout.fields))!r}")


def _field_value(field: "_Field", item: Any, where: str, name: str, parts: Parts | None) -> Any:
    variants = field.variants
    if variants and (isinstance(item, dict) or (variants == [field.hint] and not isinstance(item, field.hint))):
        place = f"{where}.{name}"
        variant = _variant(variants, item, place) if len(variants) > 1 else variants[0]
        return _part(variant, item, place, parts)
    return tuple(item) if field.takes_tuple and isinstance(item, list) else item


def _part(cls: type[T], value: Any, where: str, parts: Parts | None) -> T:
    if parts is None:
        return from_json(cls, value, where)
    if (written := content(value)) is None:
        return from_json(cls, value, where, parts)
    key = cls, written
    if key not in parts:
        parts[key] = from_json(cls, value, where, parts)
    return parts[key]


def content(value: Any) -> bytes | None:
    """Bytes that are equal for equal JSON values of equal types in one order; None for what is nested too deeply."""
    try:
        return marshal.dumps(value, MARSHAL_VERSION)
    except ValueError:
        return None


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
    values, layout = vars(config), _layout(type(config))
    kinds = _kinds_of(layout, values)
    beyond = [name for name in kinds.integers if not -LARGEST <= values[name] <= LARGEST]
    for name, field in layout.fields.items() if beyond else kinds.doubtful:
        value = values[name]
        if (plain := _of_python(value)) is not value:
            object.__setattr__(config, name, value := plain)
        kind = type(value)
        if kind in field.exact:
            continue
        if kind is int and abs(value) > LARGEST:
            raise UserError(f"{type(config).__name__}.{name} is beyond {LARGEST:.3g}, more than can be counted here")
        if kind is int and field.takes_int:
            continue
        if kind is int and field.takes_int_as_float and abs(value) <= LARGEST_INTEGER:
            object.__setattr__(config, name, float(value))
        elif not field.fits(value):
            raise UserError(
                f"{type(config).__name__}.{name} = {_SHORT.repr(value)}: must be {_expected(field.hint, value)}"
            )


def _of_python(value: Any) -> Any:
    """A number of NumPy as one of Python, which can be written; anything else as it is."""
    if isinstance(value, numbers.Real) and type(value) not in (int, float, bool):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    return value


class _Field(NamedTuple):
    """The annotated type of a field, prepared for checks of thousands of values."""

    hint: Any
    exact: frozenset[type[Any]]
    """Types whose every value fits."""
    fits: Callable[[Any], bool]
    takes_int: bool
    takes_int_as_float: bool
    takes_tuple: bool
    variants: list[Any]
    """The dataclasses that it may hold."""


class _Layout(NamedTuple):
    """The fields of a dataclass, read once: a plan makes thousands of configurations."""

    fields: dict[str, _Field]
    required: frozenset[str]
    nested: tuple[tuple[str, _Field], ...]
    """Fields that may hold a dataclass or a tuple, which are a mapping or a list in JSON."""
    values: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    """The values of all fields, in their order."""
    complete: set[tuple[str, ...]]
    """Names of fields that were given together before, and are all that is needed and nothing else."""
    kinds: dict[tuple[type[Any], ...], "_Kinds"]
    """By the types of all fields, as they were met before: the runs of a sweep are nearly all alike."""


class _Kinds(NamedTuple):
    """What the types of the values of all fields say."""

    integers: tuple[str, ...]
    floats: tuple[str, ...]
    doubtful: tuple[tuple[str, _Field], ...]
    """Fields whose value may be a wrong one although it has this type; a whole number may be too large besides."""


def _kinds_of(layout: _Layout, values: Mapping[str, Any]) -> _Kinds:
    kinds = tuple(map(type, layout.values(values)))
    if kinds not in layout.kinds:
        of = tuple(zip(kinds, layout.fields.items()))
        layout.kinds[kinds] = _Kinds(
            tuple(name for kind, (name, _) in of if kind is int),
            tuple(name for kind, (name, _) in of if issubclass(kind, float)),
            tuple(
                (name, field)
                for kind, (name, field) in of
                if kind not in field.exact and not (kind is int and field.takes_int)
            ),
        )
    return layout.kinds[kinds]


def _layout(cls: type[Any]) -> _Layout:
    if cls not in _LAYOUTS:
        fields = {name: _field(hint) for name, hint in typing.get_type_hints(cls).items()}
        required = (
            item.name
            for item in dataclasses.fields(cls)
            if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        )
        nested = ((name, field) for name, field in fields.items() if field.variants or field.takes_tuple)
        _LAYOUTS[cls] = _Layout(fields, frozenset(required), tuple(nested), _values_of(tuple(fields)), set(), {})
    return _LAYOUTS[cls]


def _values_of(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return operator.itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)


def _field(hint: Any) -> _Field:
    kinds = _kinds(hint)
    return _Field(
        hint=hint,
        exact=frozenset(kind for kind in kinds if isinstance(kind, type) and typing.get_origin(kind) is None) - {int},
        fits=_fits(hint),
        takes_int=int in kinds,
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
