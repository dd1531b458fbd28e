"""Options that are given several times, so that no value is lost.

`--stop a b`, `--stop a --stop b` and `--stop=--a --stop=--b` say the same, and so do `--at 1e20,1e21` and `--at 1e20
--at 1e21`. An option that has one value is refused where it is given two.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from lmscale.core.errors import UserError

VALUE = re.compile(r"(?!-)|-$|-\.?\d")
"""How a word begins that is a value, not an option: no dash, a dash alone, or a number."""
ALONE = {"--json": "-"}
"""Options that may stand without a value, and the value that they then have."""


@dataclass(frozen=True)
class Joined:
    """Marks an option that has all its values in one word, as `--at 1e20,1e21`."""

    by: str = ","
    """What stands between them."""


@dataclass(frozen=True)
class Option:
    """An option of a verb."""

    flag: str
    """The long spelling of the option."""
    count: int
    """Words of a value: 0 of a switch."""
    several: bool
    """Whether each of its values has a flag of its own, as `tyro.conf.UseAppendAction` reads them."""
    joined: Joined | None


def one_by_one(words: Sequence[str], arguments: type[Any]) -> list[str]:
    """The words of a call with every value of an option of several after a flag of its own, as `--stop=a --stop=b`, and
    every other option once. Raises `UserError` for two values of an option that has one."""
    options = dict(_spellings(arguments))
    return _once(_each_with_its_flag(words, options), options)


def _each_with_its_flag(words: Sequence[str], options: dict[str, Option]) -> list[str]:
    """The words with every value of an option of several after a flag of its own."""
    flags = {spelling: option.flag for spelling, option in options.items() if option.several}
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


def _once(words: Sequence[str], options: dict[str, Option]) -> list[str]:
    """The words with no option of one value twice: the values of a `Joined` one together, where the first stood."""
    out: list[list[str]] = []
    firsts: dict[str, list[str]] = {}
    rest = list(words)
    while rest and rest[0] != "--":
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        option = options.get(name)
        if option is None or option.several:
            out.append([word])
            continue
        following = list(takewhile(lambda each: not each.startswith("--"), rest[: 0 if equals else option.count]))
        del rest[: len(following)]
        alone = [ALONE[option.flag]] if option.flag in ALONE else []
        values = [value] if equals else following or alone
        option_words = [f"{option.flag}={values[0]}"] if option.count == 1 and values else [word, *values]
        if option.flag not in firsts:
            firsts[option.flag] = option_words
            out.append(option_words)
        elif option.joined is not None and values:
            firsts[option.flag][0] += option.joined.by + values[0]
        elif firsts[option.flag] != option_words:
            both = " and ".join(map(" ".join, (firsts[option.flag], option_words)))
            raise UserError(f"{option.flag} is given twice, {both}: give it once")
    return [*(word for group in out for word in group), *rest]


def _spellings(arguments: type[Any]) -> Iterator[tuple[str, Option]]:
    """Every spelling of every option of a verb, with the option."""
    from tyro.conf import Positional, UseAppendAction

    (append,), (positional,) = get_args(UseAppendAction[int])[1:], get_args(Positional[int])[1:]
    for field, hint in get_type_hints(arguments, include_extras=True).items():
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if positional in marks:
            continue
        names = {field, *(mark.name for mark in marks if getattr(mark, "name", None))}
        flag = f"--{(names - {field} or names).pop().replace('_', '-')}"
        joined = next((mark for mark in marks if isinstance(mark, Joined)), None)
        option = Option(flag, _words(kind), append in marks, joined)
        aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
        for spelling in {flag, flag.replace("-", "_").replace("__", "--", 1), *aliases}:
            yield spelling, option
        if kind is bool:
            yield from ((f"--no{dash}{flag[2:].replace('-', dash)}", option) for dash in "-_")


def _words(kind: Any) -> int:
    """How many words a value of this type has: none for a switch, two for a pair, else one."""
    kinds = [each for each in get_args(kind) or (kind,) if each is not type(None)] if _is_union(kind) else [kind]
    if kinds == [bool]:
        return 0
    members = get_args(kinds[0]) if get_origin(kinds[0]) is tuple else ()
    return len(members) if members and ... not in members else 1


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)
