"""Mappings in cells, as exports of trackers have them, become columns of their own: config.lr, summary.loss."""

import ast
import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lmscale.core.errors import UserError
from lmscale.study.tables.json_rows import of_columns

if TYPE_CHECKING:
    import pandas as pd

DEEPEST = 12
"""Mappings in mappings beyond this depth stay one value."""
WORDS: dict[str, Any] = {
    "inf": math.inf, "Infinity": math.inf, "nan": math.nan, "NaN": math.nan, "null": None, "true": True, "false": False,
}  # fmt: skip
"""Values that Python or JSON write as words and `ast` takes for names."""


def spread(table: "pd.DataFrame", source: object) -> "pd.DataFrame":
    """The table whose cells of mappings have become columns "cell.key".

    Raises `UserError` that names the row of a mapping which cannot be read while others of its column can.
    """
    import pandas as pd

    for place in range(table.shape[1] - 1, -1, -1):
        cells = table.iloc[:, place]
        if cells.dtype.kind not in "OTU" and str(cells.dtype) not in ("str", "string", "object"):
            continue
        rows = _mappings(cells.tolist(), str(table.columns[place]), source)
        if rows is None:
            continue
        name = str(table.columns[place])
        flat = [dict(_flat(row, name)) for row in rows]
        names = list(dict.fromkeys(key for row in flat for key in row))
        middle = of_columns({key: [row.get(key) for row in flat] for key in names}, len(flat)).set_axis(table.index)
        attrs = table.attrs
        table = pd.concat([table.iloc[:, :place], middle, table.iloc[:, place + 1 :]], axis=1)
        table.attrs = attrs
    return table


def _mappings(cells: list[Any], name: str, source: object) -> list[Mapping[str, Any]] | None:
    """The mappings in a column's cells; None for a column of other values."""
    if not _begin_like_mappings(cells):
        return None
    rows: list[Mapping[str, Any]] = []
    bad = None
    for index, cell in enumerate(cells):
        value = parsed(cell) if isinstance(cell, str) else cell
        if isinstance(value, Mapping):
            rows.append(value)
        elif value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            rows.append({})
        else:
            bad = bad or (index, cell)
    if bad is None:
        return rows if any(rows) else None
    if not rows or not any(rows):
        return None  # text that begins like a mapping
    shown = str(bad[1]) if len(str(bad[1])) < 60 else f"{str(bad[1])[:57]}..."
    raise UserError(f"column {name!r} of {source} holds mappings, but in row {bad[0] + 1} '{shown}', which is none")


def _begin_like_mappings(cells: list[Any]) -> bool:
    """Whether a cell is a mapping, or a text that begins like one."""
    texts = {cell for cell in cells if type(cell) is str}  # the same few stand in thousands of rows
    if any("{" in text and text.lstrip()[:1] == "{" for text in texts):
        return True
    others = [cell for cell in cells if type(cell) is not str and cell is not None]
    return any(isinstance(cell, Mapping) or (isinstance(cell, str) and cell.lstrip()[:1] == "{") for cell in others)


def parsed(cell: str) -> Any:
    """The mapping that a cell writes as JSON or as Python does, also with inf and NaN; else the text itself."""
    text = cell.strip()
    if text[:1] != "{":
        return cell if text else None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return _literal(ast.parse(text, mode="eval").body)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return cell


def _literal(node: ast.expr) -> Any:
    """The value that a syntax tree writes; whatever is no literal stays its own text, and nothing is executed."""
    value: Any
    match node:
        case ast.Dict(keys, values) if None not in keys:
            value = {_key(key): _literal(item) for key, item in zip(keys, values, strict=True) if key is not None}
        case ast.List(items) | ast.Tuple(items) | ast.Set(items):
            value = [_literal(item) for item in items]
        case ast.Name(name) if name in WORDS:
            value = WORDS[name]
        case ast.UnaryOp(ast.USub(), operand) if isinstance(number := _literal(operand), int | float):
            value = -number
        case ast.Constant(value) | ast.Call(_, [ast.Constant(value)], []):  # 3.5, np.float64(3.5)
            pass
        case _:
            value = ast.unparse(node)
    return value


def _key(node: ast.expr) -> str:
    return str(_literal(node))


def _flat(row: Mapping[str, Any], name: str, depth: int = 1) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        if isinstance(value, Mapping) and value and depth < DEEPEST:
            yield from _flat(value, f"{name}.{key}", depth + 1)
        else:
            yield f"{name}.{key}", value
