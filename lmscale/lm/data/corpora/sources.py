"""Sources of documents: text, JSONL and Parquet files, and the running standard library."""

import platform
import sysconfig
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lmscale.core import files
from lmscale.core.errors import UserError
from lmscale.lm.data.corpora.cache import Listing, listing
from lmscale.lm.data.corpora.text_formats import (
    Foreign,
    Unreadable,
    passages,
    read_chunks,
    read_lines,
    read_text,
    texts_of_line,
)

READ_ROWS = 256
RECORD_SUFFIXES = (".jsonl", ".ndjson")
COLUMN_SUFFIXES = (".parquet",)
TABLE_SUFFIXES = (".json", ".csv", ".tsv")
"""Data rather than prose; a JSON file beside JSONL files mostly describes them."""


class Document(NamedTuple):
    """One text as UTF-8, its id in its source, and the file or split that it came from."""

    id: str
    text: bytes
    source: str
    prompt_bytes: int = 0
    """How much of the beginning of the text is a prompt."""


@dataclass(frozen=True)
class Skipped:
    """A file, or some lines of one, that were skipped, and why."""

    path: str
    reason: str
    foreign: bool = False
    """Not meant as text, so not a problem either: a table beside the text."""


class Source(Protocol):
    """Documents in units (files, splits), each of which is used as a whole or not at all."""

    @property
    def name(self) -> str:
        """The source in words, with its version."""

    def units(self) -> Iterator[tuple[str, float]]:
        """Each unit with the fraction of the source before it."""

    def documents(self, unit: str, skipped: list[Skipped]) -> Iterator[Document]:
        """The documents of one unit; appends to `skipped` what is left out. Raises `Unreadable`."""


def stdlib_folder() -> Path:
    """Where the running interpreter keeps its standard library."""
    return Path(sysconfig.get_path("stdlib"))


def stdlib_name() -> str:
    """The standard library in words, with its version."""
    return f"the standard library of {platform.python_implementation()} {platform.python_version()}"


def stdlib_listing(folder: Path) -> Listing:
    """The modules of a standard library that are the same on every machine with that version.

    Without installed packages, caches, and files written when the interpreter was built or packaged (its configuration
    with the machine's paths, `sitecustomize`).
    """
    skipped = {"site-packages", "dist-packages", "__pycache__", "lib-dynload"}
    modules = listing(
        folder,
        lambda name: name not in skipped and not name.startswith("config-"),
        lambda name: name.endswith(".py") and not name.startswith(("_sysconfigdata", "sitecustomize", "usercustomize")),
    )
    if not modules:
        raise UserError(
            f"this Python keeps no source of its standard library in {folder}; take a Python that does (python.org, "
            f"pyenv, uv, Debian) or give a text file or folder as the source"
        )
    return modules


def files_listing(path: Path) -> Listing:
    """The visible files of a folder, or one file, without the caches of Python and of this package."""
    cache = files.cache_dir().resolve()
    if not path.exists():
        hint = (
            "did you mean 'stdlib'?" if get_close_matches(path.name, ["stdlib"]) else "give a path, stdlib or tfds:NAME"
        )
        raise UserError(f"there is no file or folder {path} to read text from; {hint}")
    inside = cache.is_relative_to(path.absolute()) and cache != path.absolute()
    top = cache.relative_to(path.absolute()).parts[0] + "/" if inside else None
    visible = listing(path, lambda name: not name.startswith((".", "__pycache__")), lambda name: name[0] != ".")
    return [item for item in visible if not (top and item[0].startswith(top))]


@dataclass
class TextFiles:
    """The files of `listing` below `folder` (or `folder` itself, if it is a file); see `Source`."""

    name: str
    folder: Path
    listing: Listing
    text_field: str
    prompt_field: str | None = None
    whole_files: bool = False
    """Make each file one document even if it is the only file."""
    sizes: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.sizes = {path: size for path, size, _, _ in self.listing}

    @property
    def _fields(self) -> list[str]:
        """The fields of a record that make up a document, in their order."""
        return [*filter(None, [self.prompt_field]), self.text_field]

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
                yield from self._records(unit, read_lines(path), skipped)
            elif plain.endswith(COLUMN_SUFFIXES):
                yield from self._column(unit, path, skipped)
            elif self.prompt_field is not None:
                raise Unreadable(f"plain text, which has no field {self.prompt_field!r}")
            elif len(self.sizes) == 1 and not self.whole_files:
                for number, text in enumerate(passages(read_text(path))):
                    yield Document(f"{unit}:{number + 1}", text, unit)
            else:
                yield Document(unit, read_text(path), unit)
        except (OSError, EOFError, zlib.error) as error:
            raise Unreadable(str(getattr(error, "strerror", None) or error)) from None

    def _records(self, unit: str, lines: Iterator[bytes], skipped: list[Skipped]) -> Iterator[Document]:
        problems: dict[str, list[Any]] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            parts, problem, detail = texts_of_line(line, self._fields)
            if problem:
                problems.setdefault(problem, [0, number, detail])[0] += 1
            else:
                yield _document(f"{unit}:{number}", parts, unit)
        for problem, (count, number, detail) in problems.items():
            skipped.append(Skipped(unit, f"{count} line{'s' * (count > 1)} {problem}, first line {number}{detail}"))

    def _column(self, unit: str, path: Path, skipped: list[Skipped]) -> Iterator[Document]:
        import pyarrow
        import pyarrow.parquet

        try:
            content = (
                pyarrow.BufferReader(b"".join(read_chunks(path))) if path.suffix.lower() in (".gz", ".zst") else path
            )
            table = pyarrow.parquet.ParquetFile(content)
            for name in self._fields:
                _check_column(table.schema_arrow, name)
            number, missing = 0, 0
            for batch in table.iter_batches(READ_ROWS, columns=self._fields):
                columns = [batch.column(name).cast(pyarrow.large_binary()).to_pylist() for name in self._fields]
                for parts in zip(*columns):
                    number += 1
                    if None in parts:
                        missing += 1
                        continue
                    try:
                        b"".join(parts).decode()
                    except UnicodeDecodeError:
                        raise Unreadable(f"not UTF-8 in row {number:,}") from None
                    yield _document(f"{unit}:{number}", parts, unit)
        except pyarrow.ArrowException as error:
            raise Unreadable(f"corrupt: {str(error).splitlines()[0]}") from None
        if missing:
            skipped.append(Skipped(unit, f"{missing} row{'s' * (missing > 1)} without a text"))


def _document(name: str, parts: Sequence[bytes], source: str) -> Document:
    """A document of one text, or of a prompt and a text."""
    return Document(name, b"".join(parts), source, prompt_bytes=sum(map(len, parts[:-1])))


def _check_column(schema: Any, name: str) -> None:
    """Raise `Unreadable` unless a Parquet schema has a column of text by that name."""
    import pyarrow

    if name not in schema.names:
        raise Unreadable(f"without the column {name!r}, with {', '.join(map(repr, schema.names)) or 'none'}")
    kind = schema.field(name).type
    if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
        raise Unreadable(f"whose column {name!r} is not text: {kind}")
