"""Reading a task's file: every error names the file, the item and the field."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmscale.core.errors import UserError


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The location and the object of every line of a JSONL file that is not empty."""
    for number, line in enumerate(_text(path).split("\n"), 1):  # JSON may hold other line breaks as they are
        if line.strip():
            yield f"{path}, line {number}", _object(line, f"{path}, line {number}")


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    return _object(_text(path), str(path))


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file."""
    try:
        return list(csv.reader(io.StringIO(_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: {error}") from error


def files_in(path: Path, pattern: str, what: str) -> list[Path]:
    """`path` itself where it is a file, else the files below it, in order. Raises `UserError` where there is none."""
    files = [path] if path.is_file() else sorted(path.rglob(pattern))
    if not files:
        raise UserError(f"{path}: no {what} ({pattern}) here; give the file or the folder that holds it")
    return files


def field(given: dict[str, Any], name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """`given[name]`, checked to be present and of this type."""
    if name not in given:
        raise UserError(f"{where}: the field {name!r} is missing; there are {', '.join(map(repr, given)) or 'none'}")
    if not isinstance(given[name], kind):
        expected = kind.__name__ if isinstance(kind, type) else " or ".join(one.__name__ for one in kind)
        raise UserError(f"{where}: the field {name!r} is {given[name]!r:.80}; it must be a {expected}")
    return given[name]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{path} cannot be read: {reason}") from error


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: a {type(value).__name__} stands where an object is expected")
    return value
