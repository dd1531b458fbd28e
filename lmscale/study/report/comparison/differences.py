"""What differs between sweeps: fields of their configurations, and the versions that trained them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lmscale.core.plans import read_plan
from lmscale.study.plots import number
from lmscale.study.report.account import versions
from lmscale.study.report.comparison.sides import Side

NOT_COMPARED = ("name", "tags", "run_id", "run")
"""Fields that name a run and do not change it."""
FEW = 4
"""Values of a field that are listed; of more, their number and ends are."""
ABSENT = "–"


def _configured(folder: Path) -> dict[str, set[str]]:
    """Field -> the values that it has in the configurations of a sweep's runs."""
    fields: dict[str, set[str]] = {}
    for run in read_plan(folder)[1]:
        for name, value in flattened(asdict(run.config)):
            if name not in NOT_COMPARED:
                fields.setdefault(name, set()).add(written(value))
    return fields


def _of_columns(side: Side) -> dict[str, set[str]]:
    """Column -> its value, of the columns that are the same in every row."""
    columns = {name: {written(value) for value in side.table[name].dropna()} for name in map(str, side.table.columns)}
    return {name: values for name, values in columns.items() if len(values) == 1 and name not in NOT_COMPARED}


def written(value: Any) -> str:
    """A value as text, the same for 256 and 256.0."""
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_))
    return f"{float(value):.12g}" if is_number else str(value)


def flattened(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(name, value) of every field, those of parts as "model.width"."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from flattened(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def differences(sides: Sequence[Side]) -> list[tuple[str, list[str]]]:
    """(field, its values on every side) where they are not the same, and the versions that differ.

    Of sweeps, the fields of their configurations; where a table is among the sides, the columns that all of them have,
    since a field that a table does not state may be the same.
    """
    folders = [side.folder for side in sides if side.folder is not None]
    of_sweeps = len(folders) == len(sides)
    fields = [_configured(folder) for folder in folders] if of_sweeps else [_of_columns(side) for side in sides]
    stated = [values | _versions(side) for values, side in zip(fields, sides)]
    names = dict.fromkeys(name for values in stated for name in values)
    rows = [(name, [values.get(name, set()) for values in stated]) for name in names]
    return [
        (name, [listed(one) for one in values])
        for name, values in rows
        if any(one != values[0] for one in values) and (of_sweeps or all(values))
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
