"""Numbers as people and spreadsheets write them: separators between thousands, decimal commas, signs of other kinds.

A cell such as "1.845" or "1,845" may be 1845 or 1.845. It is read as the other cells of its column show, else as those
of its file show; without such evidence a point is decimal where the file has no commas, and anything else is ambiguous.
"""

import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lmscale.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Mark = Literal[".", ","]

MISSING = frozenset(
    ("", "na", "n/a", "nan", "-nan", "null", "none", "#n/a", "<na>", "#na", "-1.#ind", "1.#qnan", "#value!", "#div/0!")
)
"""What a cell without a value holds, in lower case."""
PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|infinity)", re.ASCII | re.IGNORECASE)
"""A number with a decimal point, or without decimals."""
DIGITS, PLAINLY = frozenset("0123456789-"), frozenset("0123456789-+.eE")
INTEGER = re.compile(r"[+-]?(?:0|[1-9]\d*)", re.ASCII)
IN_DOUBT = re.compile(r"[+-]?[1-9]\d{0,2}([.,])\d{3}", re.ASCII)
"""One separator before exactly three digits."""
SPACED = re.compile(r"([+-]?\d{1,3})((?:[ '_]\d{3})+)((?:[.,]\d+)?)", re.ASCII)
GROUPED = {
    ".": re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?", re.ASCII),
    ",": re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?", re.ASCII),
}
"""Decimal mark -> numbers with the other mark between thousands."""
COMMA_DECIMAL = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?", re.ASCII)
LETTERED = re.compile(r"(\d+\.?\d*|\.\d+) ?([kKMGBT])", re.ASCII)
LETTERS = {"K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
SPACES = str.maketrans(dict.fromkeys("\u00a0\u2007\u2009\u202f\u2002\u2003", " ") | {"\u2212": "-", "\u2019": "'"})
"""Spaces, minus signs and apostrophes that typesetting puts for the plain ones."""


def missing(cell: Any) -> bool:
    """Whether a cell of text says that it has no value."""
    return isinstance(cell, str) and cell.strip().lower() in MISSING


def tidy(cell: str) -> str:
    """A cell of text with plain spaces, signs and apostrophes."""
    return cell.strip() if cell.isascii() else cell.translate(SPACES).strip()


def decimal_marks(cells: Iterable[Any]) -> set[Mark]:
    """The decimal marks that some cell of text leaves no doubt about."""
    marks: set[Mark] = set()
    for cell in cells:
        if isinstance(cell, str) and ("," in cell or "." in cell) and (mark := _certain(tidy(cell))):
            marks.add(mark)
            if len(marks) == 2:
                break
    return marks


def _certain(text: str) -> Mark | None:
    if spaced := SPACED.fullmatch(text):
        return ("," if "," in spaced[3] else ".") if spaced[3] else None
    if IN_DOUBT.fullmatch(text):
        return None
    if PLAIN.fullmatch(text):
        return "." if "." in text else None
    if COMMA_DECIMAL.fullmatch(text):
        return ","
    return next((mark for mark in (".", ",") if GROUPED[mark].fullmatch(text)), None)


class Ambiguous(UserError):
    """A cell that may be two different numbers."""


def number(cell: Any, marks: Sequence[Mark] | set[Mark] = ()) -> float:
    """The number in a cell, NaN where it has no value; `marks` are the decimal marks that its column or file shows.

    Raises `Ambiguous` for a cell that may be two numbers, `ValueError` for one that is none.
    """
    if not isinstance(cell, str):
        return _plain_number(cell)
    text = tidy(cell)
    if doubt := IN_DOUBT.fullmatch(text):
        decimal = _decided(text, doubt[1], marks)
        return float(text.replace(doubt[1], "." if doubt[1] == decimal else ""))
    if text.lower() in MISSING:
        return math.nan
    if spaced := SPACED.fullmatch(text):
        text = spaced[1] + re.sub(r"[ '_]", "", spaced[2]) + spaced[3].replace(",", ".")
    elif COMMA_DECIMAL.fullmatch(text) or GROUPED[","].fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    elif GROUPED["."].fullmatch(text):
        text = text.replace(",", "")
    if not PLAIN.fullmatch(text):
        raise ValueError(text)
    return float(text)


def _decided(text: str, separator: str, marks: Sequence[Mark] | set[Mark]) -> str:
    """The decimal mark of a cell with one separator before three digits."""
    if len(marks) == 1:
        return next(iter(marks))
    if marks or separator == ",":
        raise Ambiguous(
            f"which may be {text.replace(separator, '')} or {text.replace(',', '.')}: write numbers without "
            f"separators between thousands"
        )
    return "."


def _plain_number(cell: Any) -> float:
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return math.nan
    if isinstance(cell, bool | np.bool_) or not isinstance(cell, int | float | np.integer | np.floating | Decimal):
        raise ValueError(cell)
    try:
        return float(cell)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf if cell > 0 else -math.inf


def numbers(table: "pd.DataFrame", name: str, column: str | None = None, source: object = "the table") -> np.ndarray:
    """A column as float64 (n,), NaN where it is missing. Raises `UserError` for the first value that is no number.

    `column` is what `source` calls it.
    """
    cells = table[name]
    if cells.dtype.kind in "iuf":
        return np.asarray(cells.to_numpy(dtype=float, na_value=math.nan), dtype=float)
    values = np.empty(len(table))
    marks: set[Mark] | None = None
    for index, cell in enumerate(cells.astype(object)):
        try:
            if marks is None and isinstance(cell, str) and IN_DOUBT.fullmatch(tidy(cell)):
                marks = decimal_marks(cells) or set(table.attrs.get("decimal_marks", ()))
            values[index] = number(cell, marks or ())
        except ValueError as error:
            run = f" (run {table['run'].iloc[index]})" if "run" in table else ""
            why = str(error) if isinstance(error, Ambiguous) else _no_number(name, cell)
            shown = str(cell) if len(str(cell)) < 80 else f"{str(cell)[:77]}..."
            raise UserError(f"column {(column or name)!r} of {source} holds '{shown}'{run}, {why}") from None
    return values


def _no_number(name: str, cell: Any) -> str:
    """Why a cell is no number, and how one with a letter for its millions is written: a letter is never guessed at."""
    lettered = LETTERED.fullmatch(tidy(cell)) if isinstance(cell, str) else None
    digits = "" if lettered is None else f"; write {float(lettered[1]) * LETTERS[lettered[2].upper()]:.15g} for it"
    return f"which is no number: {name} must be numeric{digits}"


def typed(cells: Sequence[str], marks: Iterable[Mark]) -> "np.ndarray | None":
    """A column of text as integers, numbers or truth values; None where some cell is neither, or may be two numbers.

    `marks` are those of the file. Numbers with leading zeros are names, and stay text.
    """
    if (values := _plainly_typed(cells, marks)) is not None:
        return values
    texts = [tidy(cell) for cell in cells]
    filled = [text for text in texts if text.lower() not in MISSING]
    if filled and all(text.lower() in ("true", "false") for text in filled):
        return _truths(texts)
    if any(len(text) > 1 and text[0] == "0" and text.isdigit() for text in filled):
        return None
    if len(filled) == len(texts) and all(INTEGER.fullmatch(text) and len(text) < 19 for text in texts):
        return np.array([int(text) for text in texts], dtype=np.int64)
    own = decimal_marks(filled) or set(marks)
    try:
        return np.array([number(text, own) for text in texts], dtype=float)
    except ValueError:
        return None


def _plainly_typed(cells: Sequence[str], marks: Iterable[Mark]) -> np.ndarray | None:
    """A column of numbers without separators, as most are, in a tenth of the time; None for any other."""
    letters = set("".join(cells))
    if (
        not letters <= PLAINLY
        or "," in set(marks)
        or any(cell[:1] == "0" and cell.isdigit() and cell != "0" for cell in cells)
    ):
        return None
    try:
        if letters <= DIGITS and all(cells) and max(map(len, cells)) < 19:
            return np.array(list(map(int, cells)), dtype=np.int64)
        return np.array([float(cell) if cell else math.nan for cell in cells], dtype=float)
    except ValueError:
        return None


def _truths(texts: Sequence[str]) -> np.ndarray:
    values = [None if text.lower() in MISSING else text.lower() == "true" for text in texts]
    return np.array(values, dtype=object if None in values else bool)
