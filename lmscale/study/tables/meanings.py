"""What a column holds by its name: none of tokens is taken for a loss.

A law fits whatever numbers it is given, so that `loss=n_tokens`, one slip in a long command, would give constants with
intervals. Only sizes, data, FLOPs and losses are told apart: any other input may be read from any column.
"""

from collections.abc import Mapping, Sequence

from lmscale.core.errors import UserError
from lmscale.study.laws import KNOWN_INPUTS, MEASURED_INPUTS
from lmscale.study.tables.headers import INPUT_NAMES, KNOWN, Column, find

STEMS = {"size": "param", "data": "token", "compute": "flop", "loss": "loss"}
"""Roles of inputs that are told apart -> what the name of such a column often has in it."""
CALLED = {"size": "counts parameters", "data": "is an amount of data", "compute": "counts FLOPs", "loss": "is a loss"}
SCORES = MEASURED_INPUTS - {"loss_nats"}
"""What is measured on a run: any of it, an error rate, say, may be fitted as its loss."""


def check_meanings(sources: Mapping[str, Column], asked: Mapping[str, str], present: Sequence[str]) -> None:
    """Raise `UserError` where `columns` (`asked`) names a column that holds something else.

    That shows by its name, or by its being read as something else too; `sources` are all columns that are read, by
    canonical name. A stated factor is taken at its word.
    """
    for name in asked:
        column = sources[name]
        if column.unit.stated or _role(name) is None:
            continue
        fix = f"where it holds {name} all the same, say so by {column.name}*1"
        check_meaning(name, column.name, present, fix)
        for other in sources:
            both = sources[other].name == column.name and other != name and not sources[other].unit.stated
            if both and _role(other) and (_role(name) != _role(other) or _role(name) == "loss"):
                raise UserError(f"one column, {column.name!r}, is given as {name} and as {other}: name one for each")


def check_meaning(name: str, column: str, present: Sequence[str], fix: str) -> None:
    """Raise `UserError` where `column` cannot be `name` by what its own name says; `fix` says what else to do."""
    role, held = _role(name), held_by(column)
    if role is None or held is None or _agree(name, held):
        return
    usual = find(name, present)
    likely = [one for one in present if STEMS[role] in one.lower()] if usual is None else [usual.name]
    named = f"name another, such as {likely[0]!r}" if likely else "name another"
    raise UserError(f"the column {column!r} holds {held} by its name, and {name} {CALLED[role]}: {named}; {fix}")


def without_others(name: str, sources: Mapping[str, Column], present: Sequence[str]) -> list[str]:
    """The columns that are not known to hold another quantity than `name`."""
    others = {column.name for other, column in sources.items() if _role(name) and not _agree(name, other)}
    return [one for one in present if one not in others]


def _agree(name: str, held: str) -> bool:
    """Whether a column of `held` may be read as `name`, which is told apart from others."""
    return _role(name) == _role(held) or (_role(name) == "loss" and held in SCORES)


def held_by(header: str) -> str | None:
    """The known quantity that a column holds by its name; None for a name that says nothing."""
    names = dict.fromkeys((*KNOWN, *INPUT_NAMES, *KNOWN_INPUTS))
    return next((name for name in names if find(name, [header]) is not None), None)


def _role(name: str) -> str | None:
    """The role of a quantity that is told apart from others; None for any other."""
    if name == "flops_budget":
        return "compute"
    if name.startswith(("params_", "active_params_")):
        return "size"
    role = KNOWN_INPUTS[name].role if name in KNOWN_INPUTS else None
    return role if role in STEMS else None
