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


class _Signature(NamedTuple):
    """The arguments of a function: those that have a position, those that have a name, *args and **kwargs."""

    positional: tuple[_Argument, ...]
    by_name: dict[str, _Argument]
    var_positional: _Argument | None
    var_keyword: _Argument | None


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
    @functools.cache
    def signature() -> _Signature:  # at the first call: annotations may name what is defined later
        return _signature(function, names)

    @functools.wraps(function)
    def wrapper(*given: Any, **named: Any) -> Any:
        arguments = signature()
        in_order = _in_order(arguments, len(given))
        values = [_converted(called, one.name, one, value) for one, value in zip(in_order, given)]
        for name, value in named.items():
            argument = arguments.by_name.get(name) or arguments.var_keyword
            if argument is not None:
                named[name] = _converted(called, name, argument, value)
        try:
            return function(*values, *given[len(values) :], **named)
        except BrokenPipeError:  # nobody reads what it prints
            raise
        except OSError as error:
            raise refusal(error) from error

    setattr(wrapper, CHECKED, True)
    return wrapper


def _in_order(arguments: _Signature, count: int) -> Iterator[_Argument]:
    """The arguments that `count` values without a name are for."""
    yield from arguments.positional[:count]
    if arguments.var_positional is not None:
        for _ in range(count - len(arguments.positional)):
            yield arguments.var_positional


def _converted(called: str, name: str, argument: _Argument, value: Any) -> Any:
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


def _signature(function: Callable[..., Any], names: dict[str, Any]) -> _Signature:
    positional, by_name, var_positional, var_keyword = [], {}, None, None
    for one in inspect.signature(function).parameters.values():
        kind = None if one.annotation is inspect.Parameter.empty else kind_of(one.annotation, names)
        argument = _Argument(one.name, kind, one.default)
        if one.kind is inspect.Parameter.VAR_POSITIONAL:
            var_positional = argument
        elif one.kind is inspect.Parameter.VAR_KEYWORD:
            var_keyword = argument
        else:
            if one.kind is not inspect.Parameter.KEYWORD_ONLY:
                positional.append(argument)
            if one.kind is not inspect.Parameter.POSITIONAL_ONLY:
                by_name[one.name] = argument
    return _Signature(tuple(positional), by_name, var_positional, var_keyword)
