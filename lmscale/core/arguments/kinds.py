"""An annotation as a check: what it takes in words, and the value that is handed on."""

import builtins
import collections.abc
import os
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lmscale.core.arguments.numbers import FINITE, WHOLE, ArrayRange, Range, amounts, integer, number
from lmscale.core.arguments.refused import Refused
from lmscale.core.errors import UserError, nearest
from lmscale.core.user_code import sentence


class Kind(NamedTuple):
    """What an annotation takes."""

    one: str
    """In words: "a positive number"."""
    several: str
    """In words, of the items of a list: "positive numbers"."""
    convert: Callable[[Any], Any]
    """The value to hand on. Raises `Refused`."""
    numeric: bool = False
    never_empty: bool = False
    """Whether a list of them has at least one."""


class Unloaded(type):
    """A class that an annotation names and that only type checkers import: a value is told by the name of its class."""

    def __getattr__(cls, name: str) -> "Unloaded":
        if name.startswith("__"):
            raise AttributeError(name)
        return Unloaded(name, (), {})


class _Names(dict[str, Any]):
    """The names that annotations of a module may use."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        return typing.ForwardRef(value) if isinstance(value, str) else value  # a name for a union of names

    def __missing__(self, name: str) -> Any:
        for module in (collections.abc, typing):
            if hasattr(module, name):
                return getattr(module, name)
        if hasattr(builtins, name):
            raise KeyError(name)  # Python then looks there
        return Unloaded(name, (), {})


def kind_of(annotation: Any, names: Mapping[str, Any]) -> Kind | None:
    """The kind of an annotation, with the names of its module; None where it takes anything.

    An annotation that is a text is evaluated, as type checkers read it: those of code that is being run, never of data.
    """
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    while isinstance(annotation, str):  # of a name that stands for such a text, too
        annotation = eval(annotation, {}, _Names(names))
    if annotation in PLAIN:
        return PLAIN[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _annotated(kind_of(arguments[0], names), *arguments)
    if origin is typing.Literal:
        return _literal(arguments)
    if origin in BUILDERS:
        several_of_one = origin is tuple and arguments[-1] is ...
        parts = [kind_of(argument, names) for argument in arguments if argument is not ...]
        return _several(parts) if several_of_one else BUILDERS[origin](parts)
    return OF_TYPE.get(origin) or _instance(annotation if origin is None else origin)


def _where(fits: Callable[[Any], bool]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not fits(value):
            raise Refused(value)
        return value

    return convert


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):  # NumPy's are no bool
        raise Refused(value)
    return bool(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise Refused(value)
    return value


def _path(value: Any) -> Any:
    if not isinstance(value, os.PathLike) or not isinstance(os.fspath(value), str) or "\0" in os.fspath(value):
        raise Refused(value)
    return value if isinstance(value, Path) else Path(os.fspath(value))


PATH = Kind("a path", "paths", _path)
TEXT = Kind("a text", "texts", _text)
NOTHING = Kind("None", "None", _where(lambda value: value is None))
PLAIN: dict[Any, Kind] = {
    bool: Kind("True or False", "True or False", _boolean),
    int: Kind(WHOLE.one, WHOLE.several, lambda value: integer(value, WHOLE), True),
    float: Kind(FINITE.one, FINITE.several, lambda value: number(value, FINITE), True),
    str: TEXT,
    Path: PATH,
    type(None): NOTHING,
    None: NOTHING,
}


def _annotated(kind: Kind | None, base: Any, rule: Any) -> Kind | None:
    """A number in a range, or a kind with words of its own."""
    if isinstance(rule, str):
        return kind and kind._replace(one=rule, several=rule, convert=_in_those_words(kind.convert))
    if isinstance(rule, ArrayRange):
        return Kind(rule.words, rule.words, lambda value: amounts(value, rule), True)
    assert isinstance(rule, Range), rule
    read = integer if base is int else number
    return Kind(rule.one, rule.several, lambda value: read(value, rule), True, rule.never_empty)


def _in_those_words(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def in_words(value: Any) -> Any:
        try:
            return convert(value)
        except Refused as refused:
            raise Refused(refused.value) from None

    return in_words


def _literal(choices: tuple[Any, ...]) -> Kind:
    words = f"one of {', '.join(map(repr, choices))}"

    def convert(value: Any) -> Any:
        if not isinstance(value, str | int) or value not in choices:
            close = nearest(value, map(str, choices)) if isinstance(value, str) else ""
            raise Refused(value, words + (close if "did you mean" in close else ""))
        return value

    return Kind(words, words, convert)


def _union(kinds: Sequence[Kind | None]) -> Kind | None:
    options = []
    for kind in kinds:
        if kind is None:
            return None
        options.append(kind)
    if PATH in options and TEXT in options:  # a place, which an empty text is not
        options[options.index(TEXT)] = Kind(PATH.one, PATH.several, _where(lambda value: bool(_text(value).strip())))

    def convert(value: Any) -> Any:
        deeper = None
        for option in options:
            try:
                return option.convert(value)
            except Refused as refused:
                deeper = refused if refused.value is not value or refused.words else deeper
        raise deeper or Refused(value)

    shown = [option for option in options if option is not NOTHING]
    return Kind(
        " or ".join(dict.fromkeys(option.one for option in shown)),
        " or ".join(dict.fromkeys(option.several for option in shown)),
        convert,
        any(option.numeric for option in options),
    )


def _several(kinds: Sequence[Kind | None]) -> Kind:
    (item,) = kinds
    words = item.several if item else "a list"

    def convert(value: Any) -> Any:
        items = _items(value)
        if item is None:
            return items
        if item.never_empty and not items:
            raise Refused(value, f"{words}, at least one")
        converted = []
        for one in items:
            try:
                converted.append(item.convert(one))
            except Refused as refused:
                raise Refused(refused.value, refused.words or words) from None
        same = all(after is before for after, before in zip(converted, items))
        return items if same else tuple(converted)

    listed = words if item is None or item.numeric else f"a list of {words}"
    return Kind(listed, f"lists of {words}", convert, item is not None and item.numeric)


def _items(value: Any) -> Any:
    """The items of a collection, itself where it is a list or a tuple. Raises `Refused` for a text and a mapping."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise Refused(value)
    try:
        return tuple(value)
    except TypeError:  # an array without an axis
        raise Refused(value) from None


def _fixed(kinds: Sequence[Kind | None]) -> Kind:
    words = f"{len(kinds)} values, {' and '.join(kind.one if kind else 'anything' for kind in kinds)}"

    def convert(value: Any) -> Any:
        items = _items(value)
        if len(items) != len(kinds):
            raise Refused(value)
        return tuple(kind.convert(one) if kind else one for kind, one in zip(kinds, items))

    return Kind(words, f"of {words}", convert, any(kind is not None and kind.numeric for kind in kinds))


def _mapping(kinds: Sequence[Kind | None]) -> Kind:
    key, item = kinds
    words = f"a mapping{f' of {key.several}' if key else ''}{f' to {item.several}' if item else ''}"

    def convert(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Refused(value)
        converted = {
            key.convert(name) if key else name: item.convert(one) if item else one for name, one in value.items()
        }
        return value if all(converted[name] is value[name] for name in converted) else converted

    return Kind(words, f"mappings{words[len('a mapping') :]}", convert)


def _instance(cls: Any) -> Kind | None:
    if cls is Any or cls is object or not isinstance(cls, type):
        return None
    name = cls.__name__
    if name == "ndarray":
        return Kind("an array of numbers", "arrays of numbers", _array, True)
    if name == "Path":
        return PATH
    if name == "DataFrame":
        return Kind("a DataFrame", "DataFrames", _frame)
    if isinstance(cls, Unloaded):
        return Kind(
            f"a {name}", f"{name}s", _where(lambda value: name in (one.__name__ for one in type(value).__mro__))
        )
    return Kind(f"a {name}", f"{name}s", _where(lambda value: isinstance(value, cls)))


def _frame(value: Any) -> Any:
    """A DataFrame of pandas, also from one of another library.

    Raises `Refused` for anything else, `UserError` for a frame that becomes none of pandas.
    """
    frames = [one for one in type(value).__mro__ if one.__name__ == "DataFrame"]
    if not frames:
        raise Refused(value)
    library = frames[0].__module__.partition(".")[0]
    if library == "pandas":
        return value
    try:
        return value.to_pandas()
    except Exception as error:  # what it needs is not installed, or it has no such method
        raise UserError(
            f"the DataFrame of {library} becomes none of pandas ({sentence(error)}): write it to a Parquet file, and "
            f"give the file's path"
        ) from error


def _array(value: Any) -> Any:
    """An array of numbers. Raises `Refused`."""
    import numpy as np

    try:
        array = np.asarray(tuple(value) if isinstance(value, Iterator) else value)
    except Exception:  # lists of unequal lengths, an array that is being traced
        raise Refused(value) from None
    if array.dtype.kind not in "biufc" or array.ndim == 0:
        raise Refused(value)
    return array


BUILDERS: dict[Any, Callable[[Sequence[Kind | None]], Kind | None]] = {
    typing.Union: _union,
    types.UnionType: _union,
    tuple: _fixed,
    list: _several,
    collections.abc.Sequence: _several,
    collections.abc.Collection: _several,
    collections.abc.Iterable: _several,
    collections.abc.Mapping: _mapping,
    dict: _mapping,
}
"""What makes a kind of the kinds of its parts."""
OF_TYPE: dict[Any, Kind] = {
    collections.abc.Callable: Kind("a function", "functions", _where(callable)),
    type: Kind("a class", "classes", _where(lambda value: isinstance(value, type))),
}
