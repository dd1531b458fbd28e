"""Reading a task's file: every error names the file, the item and the field."""

import csv
import io
import math
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmscale.core.errors import UserError
from lmscale.core.files import open_regular, parse_json

MOST_BYTES = 2**30
"""The largest benchmark has a fifth of this in one file; more is no benchmark."""
LARGEST = 1e15
"""Numbers in a task's file are counts, positions and scores: beyond this they are damaged."""
DEEPEST_YAML = 100
"""A file of openings or a rubric has two levels."""


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The location and the object of every line of a JSONL file that is not empty."""
    for number, line in enumerate(read_text(path).split("\n"), 1):  # JSON may hold other line breaks as they are
        if line.strip():
            yield f"{path}, line {number}", _object(line, f"{path}, line {number}")


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    return _object(read_text(path), str(path))


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file."""
    try:
        return list(csv.reader(io.StringIO(read_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: {error}") from error


def files_in(path: Path, pattern: str, what: str) -> list[Path]:
    """`path` itself where it is a file, else the files below it, in order. Raises `UserError` where there is none."""
    files = sorted(path.rglob(pattern)) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no {what} ({pattern}) here; give the file or the folder that holds it")
    return files


def field(given: dict[str, Any], name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """`given[name]`, checked to be present and of this type; numbers are finite, and true is none."""
    if name not in given:
        raise UserError(f"{where}: the field {name!r} is missing; there are {', '.join(map(repr, given)) or 'none'}")
    value = given[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(one.__name__.replace("NoneType", "null") for one in kinds)
        raise UserError(f"{where}: the field {name!r} is {reprlib.repr(value)}; it must be a {expected}")
    return number(value, f"{where}: the field {name!r}") if isinstance(value, int | float) else value


def number(value: Any, where: str) -> Any:
    """`value`, checked to be a finite number of ordinary size."""
    if not isinstance(value, int | float) or not (math.isfinite(value) if isinstance(value, float) else True):
        raise UserError(f"{where} is {reprlib.repr(value)}; it must be a finite number")
    if abs(value) > LARGEST:
        raise UserError(f"{where} is beyond {LARGEST:g} in size: the file is damaged")
    return value


def texts(given: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    """The list of texts, or of numbers as texts, in `given[name]`; none where it is not there."""
    values = field(given, name, list, where) if name in given else []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UserError(f"{where}: the field {name!r} holds {reprlib.repr(value)} where a text is expected")
    return tuple(map(str, values))


def pattern(text: str | None, where: str) -> str | None:
    """A regular expression, checked to be one."""
    try:
        re.compile(text or "")
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"{where} is {reprlib.repr(text)}, which is no regular expression: {error}") from None
    return text


def read_yaml(path: Path) -> Any:
    """The value of a YAML file without aliases, whose lists and maps lie in each other at most `DEEPEST_YAML` deep."""
    import yaml

    # libyaml reads megabytes a second where the reader in Python needs the square of a long line; but it builds values
    # by recursion without a limit, so the depth is counted first.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text, depth = read_text(path), 0
    too_deep = UserError(f"{path} is nested too deeply: more than {DEEPEST_YAML} lists or maps in each other")
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):  # a few of them can stand for more than any memory holds
                raise UserError(f"{path} has an alias, *{event.anchor}; write what it stands for in its place")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST_YAML:
                raise too_deep
        return yaml.load(text, Loader=loader)
    except UserError:
        raise
    except (ValueError, yaml.YAMLError) as error:
        # From 6.0.4 on PyYAML's own scanner, which reads ahead of the events, stops at a depth, a larger one.
        raise (too_deep if "nesting depth" in str(error) else UserError(f"{path} is not YAML: {error}")) from error


def read_text(path: Path) -> str:
    """A file's text, UTF-8 with or without a mark. Raises `UserError` where it cannot be read or is no benchmark."""
    try:
        with open_regular(path) as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} has more than {MOST_BYTES:,} bytes: no benchmark has; give its own file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        packed = "; unpack it first" if content[:2] == b"\x1f\x8b" else ""
        raise UserError(f"{path} cannot be read: it is not UTF-8 text{packed}") from error


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: a {type(value).__name__} stands where an object is expected")
    return value
