"""Tables in JSON: one object per line, an array of objects, or an object of columns."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core.errors import UserError
from lmscale.study.tables.headers import MOST_COLUMNS

if TYPE_CHECKING:
    import pandas as pd


def read_json_lines(text: str, path: Path) -> "pd.DataFrame":
    """The table of one JSON object per line. Raises `UserError` that names the first line which is none.

    Only a line feed ends a line: strings may hold U+2028 and its like.
    """
    rows = []
    for number, line in enumerate(_lines(text), 1):
        if line and not line.isspace():
            row = _value(line, path, f" in line {number}", "every line is one JSON object")
            if not isinstance(row, dict):
                raise UserError(f"the table {path} is corrupt in line {number}: every line is one JSON object")
            rows.append(row)
    del text, line  # of hundreds of megabytes, perhaps
    return frame(rows)


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, of which only one is held at a time."""
    begin = 0
    while (end := text.find("\n", begin)) >= 0:
        yield text[begin:end]
        begin = end + 1
    yield text[begin:]


def read_json(text: str, path: Path) -> "pd.DataFrame":
    """The table of an array of objects, of an object of columns (lists, or index -> value), or of JSON lines."""
    rule = "a table is an array of objects, an object of columns of one length, or one object per line"
    lines = (line for line in _lines(text) if line and not line.isspace())
    first = next(lines, "").strip()
    if first.startswith("{") and first.endswith("}") and next(lines, ""):
        return read_json_lines(text, path)
    del first, lines
    value = _value(text, path, "", rule)
    apart = isinstance(value, dict) and isinstance(value.get("data"), list) and isinstance(value.get("columns"), list)
    if isinstance(value, dict) and value and not apart and all(isinstance(c, dict | list) for c in value.values()):
        return _of_columns(value, path, rule)
    if apart:
        value = _of_rows(value["columns"], value["data"], path, rule)
    rows = [value] if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row for row in rows):
        raise UserError(f"the file {path} holds no table: {rule}")
    return frame(rows)


def _of_columns(columns: dict[str, Any], path: Path, rule: str) -> "pd.DataFrame":
    if all(isinstance(column, dict) for column in columns.values()):
        keys = list(dict.fromkeys(key for column in columns.values() for key in column))
        columns = {name: [column.get(key) for key in keys] for name, column in columns.items()}
    if not all(isinstance(column, list) for column in columns.values()) or len(set(map(len, columns.values()))) != 1:
        raise UserError(f"the file {path} holds no table: {rule}")
    return of_columns(columns, len(next(iter(columns.values()))))


def _of_rows(names: list[Any], rows: list[Any], path: Path, rule: str) -> list[dict[str, Any]]:
    """Rows under names that stand apart from them, as W&B's tables have it."""
    if not all(isinstance(row, list) and len(row) == len(names) for row in rows) or len({*map(str, names)}) < len(
        names
    ):
        raise UserError(f"the file {path} holds no table: {rule}")
    return [dict(zip(map(str, names), row, strict=True)) for row in rows]


def frame(rows: list[dict[str, Any]]) -> "pd.DataFrame":
    """Rows as a table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return of_columns({name: [row.get(name) for row in rows] for name in names}, len(rows))


def of_columns(columns: Mapping[str, list[Any]], rows: int) -> "pd.DataFrame":
    """Columns of any cells as a table; integers may exceed 64 bits, and halves of surrogate pairs are spelled.

    Raises `UserError` for more columns than any table has.
    """
    import pandas as pd

    if len(columns) > MOST_COLUMNS:
        raise UserError(f"the table has {len(columns):,} columns: at most {MOST_COLUMNS:,} are read")
    spelled = {_spelled(name): [_spelled(cell) for cell in cells] for name, cells in columns.items()}
    series = {name: pd.Series(cells, dtype=object) for name, cells in spelled.items()}
    return pd.DataFrame(series, index=range(rows)).infer_objects()


def _spelled(cell: Any) -> Any:
    """Text as UTF-8 can hold it."""
    if not isinstance(cell, str) or cell.isascii():
        return cell
    return cell.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _value(text: str, path: Path, where: str, rule: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _Twice as error:
        raise UserError(f"the table {path} has two values named {error.args[0]!r}{where}: name each once") from None
    except RecursionError:
        raise UserError(f"the table {path} is corrupt{where} (brackets too deep): {rule}") from None
    except ValueError as error:  # of JSON, or a number of thousands of digits
        raise UserError(f"the table {path} is corrupt{where} ({str(error).splitlines()[0]}): {rule}") from None


class _Twice(Exception):
    """A name that an object holds twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _Twice(next(name for name, number in counts.items() if number > 1))
    return value
