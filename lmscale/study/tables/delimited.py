"""CSV and its relatives: cells parted by commas, semicolons, tabs or bars, with one line of names above them."""

import csv
import io
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core.errors import UserError
from lmscale.study.tables.headers import MOST_COLUMNS
from lmscale.study.tables.numerals import Mark, decimal_marks, missing, typed

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LINE = re.compile(r"[^\r\n]*+(?:\r\n?|\n)|[^\r\n]+")
TWO_POINTS = re.compile(r"\.[^.\n]*\.")
ACTIVE = "=+-@\t\r"
"""Characters with which a formula of a spreadsheet begins; `writing` puts an apostrophe before them in text."""


def read_delimited(text: str, path: Path, tabs: bool = False) -> "pd.DataFrame":
    """The table of a file's text. `tabs`: its ending says that tabs part the cells.

    Raises `UserError` for a file without names, and for a line with another number of cells than these.
    """
    import pandas as pd

    text, stated = _stated_delimiter(text)
    delimiter = stated or _delimiter(text, "\t" if tabs else ",")
    header, rows = _cells(text, path, delimiter)
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    filled = [place for place, name in enumerate(header) if name or any(map(str.strip, columns[place]))]
    marks = decimal_marks(itertools.chain.from_iterable(columns)) if _marks_in_doubt(columns) else set[Mark]()
    table = pd.concat(
        [pd.Series(_column(columns[place], header[place], marks), name=header[place]) for place in filled], axis=1
    )
    table.columns = pd.Index([header[place] or f"Unnamed: {place}" for place in filled])
    table.attrs["decimal_marks"] = tuple(sorted(marks))
    if delimiter not in (",", "\t"):
        decimals = "commas" if "," in marks else "points"
        table.attrs["notes"] = [
            f"read with {DELIMITERS.get(delimiter, repr(delimiter))} between columns and decimal {decimals}"
        ]
    return table


def _stated_delimiter(text: str) -> tuple[str, str | None]:
    """The text below a first line "sep=;", which spreadsheets write, and what that line states."""
    first, _, rest = text.partition("\n")
    stated = first.strip('\r\ufeff"')
    return (rest, stated[4]) if len(stated) == 5 and stated.startswith("sep=") else (text, None)


def _delimiter(text: str, default: str) -> str:
    """What parts the cells: the mark that gives the first rows as many cells as there are names, and the most."""
    sample = text[:200_000]

    def judged(mark: str) -> tuple[bool, int, bool]:
        try:
            first = list(
                itertools.islice((row for row in csv.reader(io.StringIO(sample, newline=""), delimiter=mark) if row), 3)
            )
        except csv.Error:
            return False, 0, False
        widths = [len(row) for row in first] or [0]
        return widths[0] > 1 and len(set(widths)) == 1, widths[0], mark == default

    with _long_cells():
        best = max(DELIMITERS, key=judged)
        return best if judged(best)[1] > 1 else default


@contextmanager
def _long_cells() -> Iterator[None]:
    """Cells may be longer than the 128 KiB which the module csv allows: configurations are."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _cells(text: str, path: Path, delimiter: str) -> tuple[list[str], list[list[str]]]:
    """The names, and the rows of as many cells; rows without any value are no rows."""
    spaced = text.lstrip("\r\n").startswith(" ") or f"{delimiter} " in text.lstrip("\r\n").partition("\n")[0]
    lines = csv.reader(_lines(text), delimiter=delimiter, skipinitialspace=spaced, strict=True)
    rows: list[list[str]] = []
    header: list[str] | None = None
    try:
        with _long_cells():
            for row in lines:
                if not "".join(row).strip():
                    continue
                if header is None:
                    header = [unguarded(name) for name in row]
                    continue
                rows.append(_fitting(row, len(header), lines.line_num, path))
    except csv.Error as error:
        raise UserError(f"the table {path} is corrupt or no csv file (line {lines.line_num}: {error})") from None
    if header is None:
        raise UserError(f"the table {path} is empty: its first line names the columns")
    if len(header) > MOST_COLUMNS:
        raise UserError(f"the table {path} has {len(header)} columns: at most {MOST_COLUMNS} are read")
    return [_name(name) for name in header], rows


def _lines(text: str) -> Iterator[str]:
    """The lines of a text with their ends; a file in memory would hold four bytes for every letter."""
    return (match[0] for match in LINE.finditer(text))


def _fitting(row: list[str], width: int, line: int, path: Path) -> list[str]:
    """A row of `width` cells; what is beyond must be blank."""
    if len(row) > width and not any(map(str.strip, row[width:])):
        row = row[:width]
    if len(row) != width:
        raise UserError(
            f"the table {path} has {len(row)} cells in line {line} and {width} names in its first line: the file is "
            f"cut, or a cell that holds the separator lacks quotation marks"
        )
    return row


def _name(text: str) -> str:
    return " ".join(text.replace("\ufeff", "").split())


def _marks_in_doubt(columns: Sequence[Sequence[str]]) -> bool:
    """Whether some cell that begins like a number holds a comma or two points: only then is a decimal mark in doubt."""
    return any(_in_doubt(column) for column in columns)


def _in_doubt(cells: Sequence[str]) -> bool:
    joined = "\n".join(cells)
    if "," not in joined and not TWO_POINTS.search(joined):
        return False
    return any(("," in cell or cell.count(".") > 1) and cell.lstrip(" +-")[:1].isdigit() for cell in cells)


def _column(cells: Sequence[str], name: str, marks: set[Mark]) -> Any:
    values = None if is_name(name) else typed(cells, marks)
    if values is not None:
        return values
    return [None if missing(cell) else unguarded(cell) for cell in cells]


def is_name(header: str) -> bool:
    """Whether a column holds names of runs, which stay as they are written: 007, 12e4567."""
    return header.lower().replace("_", " ").replace("-", " ") in (
        "run",
        "run id",
        "run name",
        "name",
        "id",
        "group",
        "trunk",
    )


def unguarded(cell: str) -> str:
    """A cell of text without the apostrophe that `writing` puts before what a spreadsheet would execute."""
    bare = cell.lstrip("'")
    return cell[1:] if cell[:1] == "'" and bare[:1] and bare[0] in ACTIVE else cell
