"""Documents out of text, JSONL and Parquet files, plain, .gz or .zst, and out of the running standard library."""

import codecs
import gzip
import json
import platform
import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lmscale.core import files
from lmscale.core.errors import UserError
from lmscale.lm.data.corpora.cache import Listing, listing

PASSAGE_BYTES = 8192
READ_BYTES = 1 << 20
READ_ROWS = 256
RECORD_SUFFIXES = (".jsonl", ".ndjson")
COLUMN_SUFFIXES = (".parquet",)
TABLE_SUFFIXES = (".json", ".csv", ".tsv")
"""Data rather than prose; a JSON file beside JSONL files mostly describes them."""


class Document(NamedTuple):
    """One text as UTF-8, where it stands in its source, and the file or split that it came from."""

    id: str
    text: bytes
    source: str


@dataclass(frozen=True)
class Skipped:
    """A file, or some lines of one, that gave no text, and why."""

    path: str
    reason: str
    foreign: bool = False
    """Never meant as text, so no trouble either: a table beside the text."""


class Unreadable(Exception):
    """A unit of a source that cannot be used; the message is the reason."""


class Foreign(Unreadable):
    """A unit that is not meant as text."""


class Source(Protocol):
    """Documents in units (files, splits) that are used whole or not at all."""

    @property
    def name(self) -> str:
        """The source in words, with its version."""

    def units(self) -> Iterator[tuple[str, float]]:
        """Each unit with the share of the source that lies before it."""

    def documents(self, unit: str, skipped: list[Skipped]) -> Iterator[Document]:
        """The documents of one unit; appends what was left out to `skipped`. Raises `Unreadable`."""


def stdlib_folder() -> Path:
    """Where the running interpreter keeps its standard library."""
    return Path(sysconfig.get_path("stdlib"))


def stdlib_name() -> str:
    """The standard library in words, with its version."""
    return f"the standard library of {platform.python_implementation()} {platform.python_version()}"


def stdlib_listing(folder: Path) -> Listing:
    """The modules of a standard library that are the same on every machine with that version.

    Left out: installed packages, caches, and what building or packaging the interpreter wrote (its configuration with
    the machine's paths, `sitecustomize`).
    """
    left_out = {"site-packages", "dist-packages", "__pycache__", "lib-dynload"}
    found = listing(
        folder,
        lambda name: name not in left_out and not name.startswith("config-"),
        lambda name: name.endswith(".py") and not name.startswith(("_sysconfigdata", "sitecustomize", "usercustomize")),
    )
    if not found:
        raise UserError(
            f"this Python keeps no source of its standard library in {folder}; take a Python that does (python.org, "
            f"pyenv, uv, Debian) or give a text file or folder as the source"
        )
    return found


def files_listing(place: Path) -> Listing:
    """The visible files of a folder, or one file; Python's and our own cache are no text."""
    cache = files.cache_dir().resolve()
    if not place.exists():
        hint = (
            "did you mean 'stdlib'?"
            if get_close_matches(place.name, ["stdlib"])
            else "give a path, stdlib or tfds:NAME"
        )
        raise UserError(f"there is no file or folder {place} to read text from; {hint}")
    inside = cache.is_relative_to(place.absolute()) and cache != place.absolute()
    top = cache.relative_to(place.absolute()).parts[0] + "/" if inside else None
    found = listing(place, lambda name: not name.startswith((".", "__pycache__")), lambda name: name[0] != ".")
    return [item for item in found if not (top and item[0].startswith(top))]


@dataclass
class TextFiles:
    """The files of `found` below `folder` (or `folder` itself, if it is a file); see `Source`."""

    name: str
    folder: Path
    found: Listing
    text_field: str
    whole_files: bool = False
    """Keep a file one document even if it is the only one."""
    sizes: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.sizes = {path: size for path, size, _, _ in self.found}

    def units(self) -> Iterator[tuple[str, float]]:
        total, before = max(1, sum(size for size in self.sizes.values() if size > 0)), 0
        for path, size in self.sizes.items():
            yield path or self.folder.name, before / total
            before += max(0, size)

    def documents(self, unit: str, skipped: list[Skipped]) -> Iterator[Document]:
        path = self.folder if "" in self.sizes else self.folder / unit
        plain = unit.removesuffix(".gz").removesuffix(".zst").lower()
        try:
            if plain.endswith(TABLE_SUFFIXES):
                raise Foreign("neither text nor JSONL nor Parquet")
            if plain.endswith(RECORD_SUFFIXES):
                yield from self._records(unit, _lines(path), skipped)
            elif plain.endswith(COLUMN_SUFFIXES):
                yield from self._column(unit, path, skipped)
            elif len(self.sizes) == 1 and not self.whole_files:
                for number, text in enumerate(_passages(_text(path))):
                    yield Document(f"{unit}:{number + 1}", text, unit)
            else:
                yield Document(unit, _text(path), unit)
        except (OSError, EOFError, zlib.error) as error:
            raise Unreadable(str(getattr(error, "strerror", None) or error)) from None

    def _records(self, unit: str, lines: Iterator[bytes], skipped: list[Skipped]) -> Iterator[Document]:
        wrong: dict[str, list[Any]] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            text, what, detail = _text_of_line(line, self.text_field)
            if what:
                wrong.setdefault(what, [0, number, detail])[0] += 1
            else:
                yield Document(f"{unit}:{number}", text, unit)
        for what, (count, number, detail) in wrong.items():
            skipped.append(Skipped(unit, f"{count} line{'s' * (count > 1)} {what}, first line {number}{detail}"))

    def _column(self, unit: str, path: Path, skipped: list[Skipped]) -> Iterator[Document]:
        import pyarrow
        import pyarrow.parquet

        try:
            content = pyarrow.BufferReader(b"".join(_chunks(path))) if path.suffix.lower() in (".gz", ".zst") else path
            table = pyarrow.parquet.ParquetFile(content)
            names = table.schema_arrow.names
            if self.text_field not in names:
                raise Unreadable(
                    f"without the column {self.text_field!r}, with {', '.join(map(repr, names)) or 'none'}"
                )
            kind = table.schema_arrow.field(self.text_field).type
            if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
                raise Unreadable(f"whose column {self.text_field!r} is not text: {kind}")
            number, missing = 0, 0
            for batch in table.iter_batches(READ_ROWS, columns=[self.text_field]):
                for value in batch.column(0).cast(pyarrow.large_binary()).to_pylist():
                    number += 1
                    if value is None:
                        missing += 1
                        continue
                    try:
                        value.decode()
                    except UnicodeDecodeError:
                        raise Unreadable(f"not UTF-8 in row {number:,}") from None
                    yield Document(f"{unit}:{number}", value, unit)
        except pyarrow.ArrowException as error:
            raise Unreadable(f"corrupt: {str(error).splitlines()[0]}") from None
        if missing:
            skipped.append(Skipped(unit, f"{missing} row{'s' * (missing > 1)} without a text"))


def _text_of_line(  # noqa: PLR0911 - one return for each thing that can be wrong
    line: bytes, text_field: str
) -> tuple[bytes, str, str]:
    """The text of one line of JSONL as UTF-8, or what is wrong with the line, and a detail of it."""
    try:
        record = json.loads(line)
    except UnicodeDecodeError:
        return b"", "not UTF-8", ""
    except (ValueError, RecursionError):
        return b"", "not JSON", ""
    if not isinstance(record, dict):
        return b"", "not a JSON object", ""
    if text_field not in record:
        return b"", f"without the field {text_field!r}", f" with fields {', '.join(map(repr, record)) or 'none'}"
    if not isinstance(record[text_field], str):
        return b"", f"whose field {text_field!r} is not text", f": {type(record[text_field]).__name__}"
    try:
        return record[text_field].encode(), "", ""
    except UnicodeEncodeError:
        return b"", "with a lone surrogate, which UTF-8 cannot write", ""


def _text(path: Path) -> bytes:
    """A whole text file, without a byte order mark."""
    content = b"".join(_chunks(path)).removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:
        raise Unreadable("holds zero bytes, so it is not text")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 at byte {error.start:,}") from None
    return content


def _passages(text: bytes) -> Iterator[bytes]:
    """Cut at the first blank line after each `PASSAGE_BYTES`, or at a line's end where none comes in as many more."""
    start = 0
    while start < len(text):
        least = start + PASSAGE_BYTES
        blank = text.find(b"\n\n", least, least + PASSAGE_BYTES)
        cut = blank + 2 if blank >= 0 else text.find(b"\n", least) + 1
        cut = cut or len(text)
        yield text[start:cut]
        start = cut


def _lines(path: Path) -> Iterator[bytes]:
    rest = b""
    for chunk in _chunks(path):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    yield rest


def _chunks(path: Path) -> Iterator[bytes]:
    """The content of a file, decompressed if its name ends in .gz or .zst. Raises OSError, EOFError or `Unreadable`."""
    suffix = path.suffix.lower()
    if suffix == ".zst":
        yield from _zstd_chunks(path)
    else:
        with gzip.open(path) if suffix == ".gz" else path.open("rb") as file:
            while chunk := file.read(READ_BYTES):
                yield chunk


def _zstd_chunks(path: Path) -> Iterator[bytes]:
    """Frame after frame; unlike zstandard's own stream reader, this tells a file that was cut short."""
    import zstandard

    frame = None
    try:
        with path.open("rb") as file:
            while data := file.read(READ_BYTES // 8):
                while data:
                    frame = frame or zstandard.ZstdDecompressor().decompressobj()
                    yield frame.decompress(data)
                    data = frame.unused_data
                    frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise Unreadable(f"corrupt: {error}") from None
    if frame is not None:
        raise Unreadable("corrupt: its end is missing")
