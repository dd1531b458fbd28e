"""Tables as text and files: CSV that a spreadsheet cannot execute, JSON lines with all digits, Parquet."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lmscale.core import files
from lmscale.core.errors import UserError
from lmscale.study.tables.delimited import ACTIVE
from lmscale.study.tables.numerals import PLAIN

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["csv", "parquet", "jsonl"]
FORMATS: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl"}
QUOTED = frozenset(",\"\n\r\t;'")
"""Characters for which a cell of CSV is put in quotation marks."""


def format_of(output: Path | None) -> Format:
    """The format that a file's ending names, CSV without a file. Raises `UserError` for another ending."""
    if output is None:
        return "csv"
    if output.suffix.lower() not in FORMATS:
        raise UserError(
            f"--output {output}: the ending says the format, one of {', '.join(sorted(FORMATS))}; or name it with --to"
        )
    return FORMATS[output.suffix.lower()]


def write(table: "pd.DataFrame", path: Path, form: Format) -> None:
    """Write a table, whole or not at all."""
    with files.atomic_write(path, "wb") as file:
        if form == "parquet":
            _for_parquet(table).to_parquet(file, index=False, write_page_checksum=True)
        else:
            text = csv_text(table) if form == "csv" else jsonl_text(table)
            file.write(text.encode("utf-8", errors="backslashreplace"))


def csv_text(table: "pd.DataFrame") -> str:
    """A table as CSV: shortest digits that give the same number back, blank where a value is missing.

    An apostrophe stands before text that a spreadsheet would take for a formula; `read_table` takes it off.
    """
    header = ",".join(_csv_cell(str(name)) for name in table.columns)
    columns = [_csv_column(table.iloc[:, place]) for place in range(table.shape[1])]
    return "\n".join([header, *map(",".join, zip(*columns, strict=True))]) + "\n"


def jsonl_text(table: "pd.DataFrame") -> str:
    """A table as one JSON object per line, null where a value is missing; infinities are the texts "inf", "-inf"."""
    names = [str(name) for name in table.columns]
    columns = [[_json_value(cell) for cell in _values(table.iloc[:, place])] for place in range(table.shape[1])]
    rows = (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
    return "".join(json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n" for row in rows)


def _values(column: "pd.Series") -> Iterable[Any]:
    """The cells of a column as Python's own values, None where missing."""
    if column.dtype.kind == "f":
        return (None if math.isnan(value) else value for value in column.tolist())
    return map(_python, column.astype(object).tolist())


def _python(cell: Any) -> Any:
    import pandas as pd

    if isinstance(cell, np.generic | np.ndarray):
        cell = cell.tolist()
    if isinstance(cell, list | tuple | dict | set):
        return cell
    return None if cell is None or cell is pd.NaT or cell is pd.NA or cell != cell else cell  # noqa: PLR0124


def _csv_column(column: "pd.Series") -> list[str]:
    """The cells of a column; numbers need no quotation marks, and texts that repeat are looked at once."""
    if column.dtype.kind == "f":
        return ["" if math.isnan(value) else str(value) for value in column.tolist()]
    if column.dtype.kind in "iu":
        return list(map(str, column.tolist()))
    texts: dict[str, str] = {}
    cells = []
    for cell in column.astype(object).tolist():
        if type(cell) is not str:
            cells.append(_csv_cell(_python(cell)))
        else:
            if cell not in texts:
                texts[cell] = _csv_cell(cell)
            cells.append(texts[cell])
    return cells


def _csv_cell(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, list | tuple | dict):
        cell = json.dumps(_json_value(cell))
    text = str(cell)
    if isinstance(cell, str) and text.lstrip("'")[:1] in ACTIVE and text.lstrip("'") and not PLAIN.fullmatch(text):
        text = f"'{text}"
    if not QUOTED.isdisjoint(text) or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text


def _json_value(cell: Any) -> Any:
    if cell is None or isinstance(cell, bool | str | int):
        return cell
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None if math.isnan(cell) else str(cell)
    if isinstance(cell, dict):
        return {str(key): _json_value(value) for key, value in cell.items()}
    if isinstance(cell, list | tuple | set):
        return [_json_value(value) for value in cell]
    return _json_value(_python(cell)) if isinstance(cell, np.generic | np.ndarray) else str(cell)


def _for_parquet(table: "pd.DataFrame") -> "pd.DataFrame":
    """A copy whose columns have one type each, as Parquet wants: cells of several types become text."""
    import pandas as pd

    columns = {}
    for place, name in enumerate(table.columns):
        column = table.iloc[:, place]
        if column.dtype == object:
            column = pd.Series(_one_type([_python(cell) for cell in column]), dtype=object, index=table.index)
        columns[str(name)] = column
    return pd.DataFrame(columns, index=table.index)


def _one_type(cells: list[Any]) -> list[Any]:
    """Cells as they are where all have one type that 64 bits hold, integers among numbers as numbers, else as text."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if (len(kinds) <= 1 and kinds <= {bool, float, str}) or (kinds == {int} and not any(map(_beyond, cells))):
        return [cell if not isinstance(cell, str) else _clean(cell) for cell in cells]
    if kinds <= {int, float}:
        return [None if cell is None else _nearest_float(cell) for cell in cells]
    return [
        None if cell is None else _clean(cell if isinstance(cell, str) else json.dumps(_json_value(cell)))
        for cell in cells
    ]


def _beyond(cell: int | None) -> bool:
    return cell is not None and not -(2**63) <= cell < 2**63


def _nearest_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _clean(text: str) -> str:
    """Text without halves of surrogate pairs, which UTF-8 cannot hold."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")
