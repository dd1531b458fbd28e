"""A table of runs from wherever it lies: CSV, Parquet, JSON, the shipped Chinchilla runs, or a sweep's folder.

The canonical columns are `run` (text), `params`, `tokens`, `flops`, `loss_nats`, `flops_budget` (NaN where none), and
where known `active_params` (of models with experts, those that one token passes), `experts`, `held_out`, `group`,
`unique_tokens`, `state`; every other column is kept under its own name. What was completed travels in
`table.attrs["notes"]` (sentences), what was left out in `table.attrs["dropped"]` (run and reason).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np

from lmscale.core.arguments import checked
from lmscale.core.errors import UserError
from lmscale.study.laws import SIX_ND
from lmscale.study.tables import units
from lmscale.study.tables.expression import query
from lmscale.study.tables.files import CHINCHILLA, PUBLISHED, load
from lmscale.study.tables.headers import KNOWN, LONGEST_NAME, NUMBERS, Column, find, mapped, parse_columns
from lmscale.study.tables.meanings import check_meanings, without_others
from lmscale.study.tables.nested import spread
from lmscale.study.tables.numerals import numbers
from lmscale.study.tables.sizes import check_active, params_of_flops, size_column
from lmscale.study.tables.unique import one_column_per_name, without_index

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CHINCHILLA",
    "PUBLISHED",
    "TableSource",
    "flags",
    "numbers",
    "query",
    "read_rows",
    "read_table",
    "size_column",
]

TableSource: TypeAlias = Annotated[
    "pd.DataFrame | str | Path",
    "a DataFrame, the path of a CSV, Parquet or JSONL file, the folder of a sweep, or 'chinchilla'",
]
"""A table, or what one is read from."""
FRONT = ("run", "params", "active_params", "tokens", "flops", "loss_nats", "flops_budget", "held_out", "group")
"""The columns that come first."""


@checked
def read_table(
    source: TableSource,
    columns: Mapping[str, str] | str | None = None,
    where: str | None = None,
    inputs: Sequence[str] = (),
) -> "pd.DataFrame":
    """The runs of `source`, a file, a sweep's folder, "chinchilla" or a DataFrame, in canonical columns.

    `columns` maps canonical names (also `loss`, `budget`) to the source's, as a mapping or as
    "params=n_params,loss=val_loss", with a factor where the source counts in another unit: "params=N*1e6"; what it
    leaves out is recognised by its usual names. `where` is an expression over source or canonical columns, as
    `tables.expression` describes. `inputs` are further columns of numbers, those that a law of one's own reads. Missing
    tokens become C/(6N), missing FLOPs 6ND, N the active parameters of models with experts, and the notes say so.

    Raises `UserError` for a source that is absent or corrupt, an unknown column (naming the nearest), a column that is
    not numeric or holds another quantity by its name, an expression that fails, or numbers in units that nobody stated.
    """
    table = read_rows(source, columns, where, inputs)
    units.check(table)
    check_active(table, table.attrs["source"])
    return _completed(table)


def read_rows(
    source: "str | Path | pd.DataFrame",
    columns: Mapping[str, str] | str | None = None,
    where: str | None = None,
    inputs: Sequence[str] = (),
) -> "pd.DataFrame":
    """The rows of `source` in canonical columns as `read_table` reads them, of anything that is measured at a scale.

    Neither are units doubted nor missing values completed.
    """
    mapping = parse_columns(columns, inputs)
    table = _loaded(source)
    source = "the table" if not isinstance(source, str | Path) else source
    attrs: dict[Any, Any] = {**table.attrs, "source": str(source)}
    attrs |= {name: list(attrs.get(name, ())) for name in ("notes", "dropped")}
    _check_names(table, source)
    table = one_column_per_name(table, source, attrs["notes"])
    table = without_index(spread(table, source))
    table = _canonical(table, mapping, source, attrs, inputs)
    if where is None and str(source) == CHINCHILLA:
        table = _without_outliers(table, attrs["dropped"])
    if where is not None:
        before = len(table)
        table = query(table, where)
        attrs["notes"].append(f"`where={where!r}` keeps {len(table)} of {before} rows")
    table = table.copy()
    if "flops_budget" not in table:
        table["flops_budget"] = float("nan")
    table = table[[*filter(table.columns.__contains__, FRONT), *(name for name in table if name not in FRONT)]]
    table = table.reset_index(drop=True)
    table.attrs = attrs
    return table


def _check_names(table: "pd.DataFrame", source: object) -> None:
    longest = max(map(str, table.columns), key=len, default="")
    if len(longest) > LONGEST_NAME:
        raise UserError(
            f"{source} has a column whose name, {longest[:20]!r}..., is {len(longest):,} letters long: a name has at "
            f"most {LONGEST_NAME:,}; a quotation mark or a line feed is missing"
        )


def _loaded(source: "str | Path | pd.DataFrame") -> "pd.DataFrame":
    """The source as it stands; the names of an index are columns too."""
    import pandas as pd

    if not isinstance(source, pd.DataFrame):
        return load(PUBLISHED / "chinchilla.csv" if str(source) == CHINCHILLA else Path(source))
    if not len(source):
        raise UserError("the table has no rows")
    named = any(name is not None for name in source.index.names)
    table = source.reset_index(drop=not named)
    table.attrs = {key: value for key, value in source.attrs.items() if key in ("notes", "dropped", units.STATED)}
    return table


def _canonical(
    table: "pd.DataFrame", mapping: dict[str, str], source: object, attrs: dict[Any, Any], inputs: Sequence[str]
) -> "pd.DataFrame":
    """The table with our columns beside its own: named, numeric, in our units."""
    present = [str(name) for name in table.columns]
    ambiguous = set(table.attrs.get("ambiguous", ()))
    usual = dict.fromkeys((*KNOWN, *inputs))
    sources: dict[str, Column] = {name: column for name in usual if (column := find(name, present)) is not None}
    sources |= {
        name: mapped(name, given, present, source, without_others(name, sources, present))
        for name, given in mapping.items()
    }
    check_meanings(sources, mapping, present)
    for name, column in sources.items():
        if column.name in ambiguous:
            raise UserError(
                f"{source} has two columns named {column.name!r} that differ, and {name} is one of them: rename one"
            )
    table = table.assign(**{name: table[column.name] for name, column in sources.items()})
    table["run"] = _run_names(table)
    stated = set(attrs.get(units.STATED, ()))
    for name, column in sources.items():
        if name in NUMBERS or name in inputs or column.unit.stated:
            values = numbers(table, name, column.name, source)
            table[name], sentence = units.converted(values, name, column)
            attrs["notes"] += [sentence] if sentence else []
            stated |= {name} if column.unit.stated else set()
    attrs[units.STATED] = tuple(sorted(stated))
    attrs["columns"] = {name: column.name for name, column in sources.items() if name in NUMBERS}
    if "held_out" in table:
        table["held_out"] = flags(table, "held_out", source)
    return table


def _run_names(table: "pd.DataFrame") -> "np.ndarray":
    """The names of the rows, "row 3" for one without."""
    rows = np.array([f"row {index + 1}" for index in range(len(table))], dtype=object)
    if "run" not in table:
        return rows
    blank = table["run"].isna() | (table["run"].astype(str).str.strip() == "")
    return np.where(blank, rows, table["run"].astype(str))


def _without_outliers(table: "pd.DataFrame", dropped: list[dict[str, str]]) -> "pd.DataFrame":
    out = table["used_in_fit"] != 1
    reason = "among the five highest losses, left out by Besiroglu 2024 as outliers"
    dropped += [{"run": run, "reason": reason} for run in table["run"][out]]
    return table[~out]


def flags(table: "pd.DataFrame", name: str, source: object = "the table") -> "pd.Series[bool]":
    """A yes-or-no column as booleans; what is missing is no. Raises `UserError` for a value that is neither."""
    known = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}
    text = table[name].astype(object).where(table[name].notna(), "").astype(str).str.strip().str.lower()
    bad = ~text.isin([*known, ""])
    if bad.any():
        raise UserError(f"column {name!r} of {source} holds '{table[name][bad].iloc[0]}': write true or false")
    return text.map({**known, "": False}).astype(bool)


def _completed(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with tokens = C/(6N) and C = 6ND where one is missing, row by row."""
    notes = table.attrs["notes"]
    columns = set(map(str, table.columns))
    if {"flops", "params"} <= columns:
        missing = table["tokens"].isna() if "tokens" in columns else table["params"].notna()
        missing &= table["flops"].notna() & table["params"].notna()
        if missing.any():
            table.loc[missing, "tokens"] = table["flops"][missing] / (6 * params_of_flops(table)[missing])
            notes.append(f"{int(missing.sum())} rows state no tokens: D = C/(6N){_active(table)}")
    columns = set(map(str, table.columns))
    if {"tokens", "params"} <= columns:
        missing = table["flops"].isna() if "flops" in columns else table["params"].notna()
        missing &= table["tokens"].notna() & table["params"].notna()
        if missing.any():
            table.loc[missing, "flops"] = SIX_ND.flops(params_of_flops(table)[missing], table["tokens"][missing])
            notes.append(f"{int(missing.sum())} rows state no FLOPs: C = 6ND{_active(table)}")
    return table[[*filter(table.columns.__contains__, FRONT), *(name for name in table if name not in FRONT)]]


def _active(table: "pd.DataFrame") -> str:
    """Which N that is, where models have experts."""
    return "" if params_of_flops(table).equals(table["params"]) else ", N the active parameters"
