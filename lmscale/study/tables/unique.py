"""One column per name, and no column that only counts the rows."""

from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.quantities import counted
from lmscale.study.tables.headers import KNOWN, plain

if TYPE_CHECKING:
    import pandas as pd


def one_column_per_name(table: "pd.DataFrame", source: object, notes: list[str]) -> "pd.DataFrame":
    """The table with text for names, each once: equal columns of one name are one, others are numbered and noted.

    `attrs["ambiguous"]` has the names that stood above columns which differ.
    """
    import pandas as pd

    attrs = table.attrs
    names = [" ".join(str(name).replace("\ufeff", "").split()) for name in table.columns]
    columns: dict[str, int] = {}
    ambiguous: dict[str, int] = {}
    for place, name in enumerate(names):
        if name not in columns:
            columns[name] = place
        elif not table.iloc[:, columns[name]].equals(table.iloc[:, place]):
            ambiguous[name] = ambiguous.get(name, 0) + 1
            columns[_free(f"{name}.{ambiguous[name]}", {*names, *columns})] = place
    if len(columns) < len(names):
        notes.append(
            f"{source} has {counted(len(names) - len(columns), 'column')} twice under one name, with equal cells: "
            f"one of each is taken"
        )
    if ambiguous:
        notes.append(f"{source} has several columns named {', '.join(map(repr, ambiguous))}, which differ")
    table = table.iloc[:, list(columns.values())]
    table.columns = pd.Index(list(columns), dtype=object)
    table.attrs = {**attrs, "ambiguous": tuple(ambiguous)}
    return table


def _free(name: str, taken: set[str]) -> str:
    return name if name not in taken else _free(f"{name}'", taken)


def without_index(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table without a first column that only counts its rows; one of texts without a name holds the runs' names."""
    first = str(table.columns[0]) if table.shape[1] else ""
    if not first.startswith("Unnamed: "):
        return table
    attrs = table.attrs
    cells = table.iloc[:, 0]
    if cells.dtype.kind in "iu":
        values = cells.to_numpy()
        if table.shape[1] > 1 and len(values) == len(np.unique(values)):
            table = table.iloc[:, 1:]
    elif not any(plain(str(name)) in KNOWN["run"] for name in table.columns):
        table = table.rename(columns={first: "run"})
    table.attrs = attrs
    return table
