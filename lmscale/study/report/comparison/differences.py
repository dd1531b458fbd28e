"""What differs between sweeps: fields of their configurations, and the versions that trained them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lmscale.core.plans import read_plan
from lmscale.study.plots import number
from lmscale.study.report.account import versions
from lmscale.study.report.comparison.sides import Side

NOT_COMPARED = ("name", "tags", "run_id")
"""Fields that name a run and do not change it."""
FEW = 4
"""Values of a field that are listed; of more, their number and ends are."""
ABSENT = "–"


def configurations(side: Side) -> dict[str, set[str]]:
    """Field -> the values that it has in the side's runs; of a table, the values of its columns that are constant."""
    if side.folder is None:
        return _of_columns(side)
    fields: dict[str, set[str]] = {}
    for run in read_plan(side.folder)[1]:
        for name, value in flattened(asdict(run.config)):
            if name not in NOT_COMPARED:
                fields.setdefault(name, set()).add(str(value))
    return fields


def _of_columns(side: Side) -> dict[str, set[str]]:
    columns = {name: {str(value) for value in side.table[name].dropna()} for name in map(str, side.table.columns)}
    return {name: values for name, values in columns.items() if len(values) == 1 and name != "run"}


def flattened(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(name, value) of every field, those of parts as "model.width"."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from flattened(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def differences(sides: Sequence[Side]) -> list[tuple[str, list[str]]]:
    """(field, its values on every side) where they are not the same, and the versions that differ."""
    known = [configurations(side) | _versions(side) for side in sides]
    names = dict.fromkeys(name for fields in known for name in fields)
    return [
        (name, [listed(fields.get(name, set())) for fields in known])
        for name in names
        if any(fields.get(name, set()) != known[0].get(name, set()) for fields in known)
    ]


def _versions(side: Side) -> dict[str, set[str]]:
    return {f"version of {name}": values for name, values in versions(side.table, side.folder).items()}


def listed(values: set[str]) -> str:
    """A few values, or how many there are and from where to where they go."""
    if not values:
        return ABSENT
    if len(values) <= FEW:
        return ", ".join(sorted(values, key=_order))
    ordered = sorted(values, key=_order)
    return f"{len(values)} values, {ordered[0]} to {ordered[-1]}"


def _order(text: str) -> tuple[int, float, str]:
    """Numbers by size, before words."""
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text


def counted(fields: int) -> str:
    """ "1 field differs", "1,040 fields differ"."""
    return f"{number(fields)} field{'s' * (fields != 1)} differ{'s' * (fields == 1)}"
