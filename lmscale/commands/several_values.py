"""Options that take several values: `--stop a b`, `--stop a --stop b` and `--stop=--a --stop=--b` say the same."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin, get_type_hints

VALUE = re.compile(r"(?!-)|-$|-\.?\d")
"""How a word begins that is a value, not an option: no dash, a dash alone, or a number."""


def one_by_one(words: Sequence[str], arguments: type[Any]) -> list[str]:
    """The words of a call with every value of such an option after a flag of its own, as `--stop=a --stop=b`."""
    flags = dict(_flags(arguments))
    out: list[str] = []
    flag, count = "", 0
    for position, word in enumerate(words):
        if word == "--":
            return [*out, *words[position:]]
        if flag and VALUE.match(word):
            out.append(f"{flag}={word}")
            count += 1
            continue
        if flag and not count:
            out.append(flag)  # without a value: tyro says so
        name, equals, value = word.partition("=")
        flag, count = ("" if equals else flags.get(name, "")), 0
        if not flag:
            out.append(f"{flags[name]}={value}" if equals and name in flags else word)
    return [*out, flag] if flag and not count else out


def _flags(arguments: type[Any]) -> Iterator[tuple[str, str]]:
    """Every spelling of an option whose field is marked with `UseAppendAction`, and the long one."""
    from tyro.conf import UseAppendAction

    (marker,) = get_args(UseAppendAction[int])[1:]
    for field, hint in get_type_hints(arguments, include_extras=True).items():
        marks = get_args(hint)[1:] if get_origin(hint) is not tuple else ()
        if any(mark is marker for mark in marks):
            flag = f"--{field.replace('_', '-')}"
            yield from ((spelling, flag) for spelling in (flag, f"--{field}"))
            yield from ((alias, flag) for mark in marks for alias in getattr(mark, "aliases", None) or ())
