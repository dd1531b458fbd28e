"""The decorator: every argument of a call is held against its annotation."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

from lmscale.core.arguments.kinds import Kind, kind_of
from lmscale.core.arguments.refused import Refused, hint, shown
from lmscale.core.errors import UserError
from lmscale.core.files import refusal

F = TypeVar("F", bound=Callable[..., Any])
CHECKED = "__lmscale_checked__"
"""Attribute of functions and classes whose arguments are checked."""


class _Argument(NamedTuple):
    name: str
    kind: Kind | None
    default: Any


class _Call(NamedTuple):
    """The arguments of a function by place and by name."""

    places: tuple[_Argument, ...]
    more: _Argument | None
    """*args"""
    names: dict[str, _Argument]
    others: _Argument | None
    """**kwargs"""


def checked(function: F) -> F:
    """`function`, or the class with its fields, called only with arguments that its annotations take.

    Raises `UserError` that names the function, the argument, what was given and the rule; and for what the system
    refuses, as a file that is not there. Arguments that are missing or have no such name are left to Python. A default
    is always taken.
    """
    if isinstance(function, type):
        init = vars(function)["__init__"]
        names = sys.modules[function.__module__].__dict__
        type.__setattr__(function, "__init__", _wrapped(init, function.__name__, names))
        setattr(function, CHECKED, True)
        return function
    return cast(F, _wrapped(function, function.__name__, sys.modules[function.__module__].__dict__))


def _wrapped(function: Callable[..., Any], called: str, names: dict[str, Any]) -> Callable[..., Any]:
    calls: list[_Call] = []

    @functools.wraps(function)
    def wrapper(*given: Any, **named: Any) -> Any:
        if not calls:  # annotations may name what is defined later
            calls.append(_call(function, names))
        call = calls[0]
        values = [_taken(called, one.name, one, value) for one, value in zip(_in_order(call, len(given)), given)]
        for name, value in named.items():
            argument = call.names.get(name) or call.others
            if argument is not None:
                named[name] = _taken(called, name, argument, value)
        try:
            return function(*values, *given[len(values) :], **named)
        except BrokenPipeError:  # nobody reads what it prints
            raise
        except OSError as error:
            raise refusal(error) from error

    setattr(wrapper, CHECKED, True)
    return wrapper


def _in_order(call: _Call, count: int) -> Iterator[_Argument]:
    yield from call.places[:count]
    if call.more is not None:
        for _ in range(count - len(call.places)):
            yield call.more


def _taken(called: str, name: str, argument: _Argument, value: Any) -> Any:
    """The value to hand on. Raises `UserError`."""
    kind = argument.kind
    if kind is None or value is argument.default:
        return value
    try:
        return kind.convert(value)
    except Refused as refused:
        rule = refused.words or kind.one
        leave_out = argument.default is not inspect.Parameter.empty and value is None
        fix = "; leave it out for the default" if leave_out else hint(refused.value, kind.numeric)
        raise UserError(f"{called}({name}={shown(refused.value)}): must be {rule}{fix}") from None


def _call(function: Callable[..., Any], names: dict[str, Any]) -> _Call:
    places, more, by_name, others = [], None, {}, None
    for one in inspect.signature(function).parameters.values():
        kind = None if one.annotation is inspect.Parameter.empty else kind_of(one.annotation, names)
        argument = _Argument(one.name, kind, one.default)
        if one.kind is inspect.Parameter.VAR_POSITIONAL:
            more = argument
        elif one.kind is inspect.Parameter.VAR_KEYWORD:
            others = argument
        else:
            if one.kind is not inspect.Parameter.KEYWORD_ONLY:
                places.append(argument)
            if one.kind is not inspect.Parameter.POSITIONAL_ONLY:
                by_name[one.name] = argument
    return _Call(tuple(places), more, by_name, others)
