"""Sources of documents: text, JSONL and Parquet files, and the running standard library."""

import io
import itertools
import os
import platform
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lmscale.core.errors import UserError
from lmscale.core.files import open_regular
from lmscale.lm.data.corpora.cache import Listing, left_out, listing
from lmscale.lm.data.corpora.chunks import COMPRESSED, Foreign, Unreadable, read_chunks
from lmscale.lm.data.corpora.kinds import kind_of, plain_name
from lmscale.lm.data.corpora.records import Fields, Problem, Record, Writer, array, documents_of, lines
from lmscale.lm.data.corpora.text_formats import MOST_BYTES, passages, read_text, text_chunks

READ_ROWS = 256
PYTHON_CACHE = "__pycache__"


class Document(NamedTuple):
    """One text as UTF-8, its id in its source, and the file or split that it came from."""

    id: str
    text: bytes
    source: str
    boundaries: tuple[int, ...] = ()
    """Bytes at which prompts and answers alternate: the text before the first is a prompt, that up to the second an
    answer, and so on. Empty: all is one answer."""

    @property
    def answers(self) -> list[bytes]:
        """What is not a prompt."""
        edges = (*(self.boundaries or (0,)), len(self.text))
        return [self.text[start:stop] for start, stop in list(itertools.pairwise(edges))[::2]]

    @classmethod
    def of_parts(cls, name: str, parts: Sequence[bytes], source: str) -> "Document":
        """The document of one text, or of prompts and answers in turn."""
        boundaries = tuple(itertools.accumulate(map(len, parts[:-1])))
        return cls(name, b"".join(parts), source, () if boundaries == (0,) else boundaries)


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
    """The visible files of a folder, of folders that it links to, or one file, without the caches of Python and ours.

    Raises `UserError` where there is neither.
    """
    if not os.path.lexists(path):
        hint = (
            "did you mean 'stdlib'?" if get_close_matches(path.name, ["stdlib"]) else "give a path, stdlib or tfds:NAME"
        )
        raise UserError(f"there is no file or folder {printable(str(path))} to read text from; {hint}")
    return listing(path, _visible_folder, _visible_file, links=True)


def hidden(path: Path) -> list[str]:
    """What `files_listing` leaves out: files and folders whose names begin with a dot, and Python's caches."""
    return left_out(path, _visible_folder, _visible_file) if path.is_dir() else []


def _visible_folder(name: str) -> bool:
    return not name.startswith((".", PYTHON_CACHE))


def _visible_file(name: str) -> bool:
    return not name.startswith(".")


def printable(name: str) -> str:
    """A file's name as text that may be printed: bytes that are not UTF-8 and control characters are escaped."""
    text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class TextFiles:
    """The files of `listing` below `folder` (or `folder` itself, if it is a file); see `Source`.

    A unit is a file, under its printable name. With `whole_files` each is one document of text, even if it is the only
    file; else a single plain text is cut into passages, and files of records are recognised. Those of `hidden` are
    named, and not read.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        listing: Listing,
        write: Writer,
        prompts: str = "",
        whole_files: bool = False,
        hidden: Sequence[str] = (),
    ) -> None:
        """`write` makes documents of records; `prompts` names, in words, what plain text lacks where there are some."""
        self.name = printable(name)
        self._write, self._prompts = write, prompts
        self._whole_files = whole_files
        self._hidden = {printable(path) for path in hidden}
        self._paths: dict[str, Path] = {}
        self._sizes: list[int] = []
        for relative, size, _, _ in listing:
            unit = printable(relative or folder.name)
            while unit in self._paths:  # another name's escapes spell it
                unit += "'"
            self._paths[unit] = folder / relative if relative else folder
            self._sizes.append(max(0, size))

    def units(self) -> Iterator[tuple[str, float]]:
        total, before = max(1, sum(self._sizes)), 0
        for unit, size in zip(self._paths, self._sizes):
            yield unit, before / total
            before += size
        for unit in sorted(self._hidden - self._paths.keys()):
            yield unit, 1.0

    def documents(self, unit: str, skipped: list[Skipped]) -> Iterator[Document]:
        if unit not in self._paths:
            raise Foreign(f"{'a cache of Python' if PYTHON_CACHE in unit else 'hidden'}, so it is not read")
        path = self._paths[unit]
        kind = "text" if self._whole_files else kind_of(unit, path)
        if kind in ("lines", "array"):
            yield from self._records(unit, lines(path) if kind == "lines" else array(path), kind, skipped)
        elif kind == "columns":
            yield from self._columns(unit, path, skipped)
        elif self._prompts:
            raise Unreadable(f"plain text, which has no {self._prompts}")
        elif len(self._paths) == 1 and not self._whole_files:
            for number, text in enumerate(passages(text_chunks(path))):
                yield Document(f"{unit}:{number + 1}", text, unit)
        else:
            yield Document(unit, read_text(path), unit)

    def _records(self, unit: str, records: Iterator[Record], kind: str, skipped: list[Skipped]) -> Iterator[Document]:
        """The documents of records; what is wrong with others is told once per kind of problem."""
        problems: dict[str, list[Any]] = {}
        read, noun = 0, {"lines": "line", "columns": "row"}.get(kind, "record")
        for record in records:
            read += 1
            try:
                documents = list(documents_of(record, self._write))
            except Problem as error:
                problems.setdefault(error.problem, [0, record.number, error.detail])[0] += 1
                continue
            for index, parts in enumerate(documents):
                name = f"{unit}:{record.number}" + f".{index + 1}" * (len(documents) > 1)
                yield Document.of_parts(name, parts, unit)
        if problems and read == 1 and plain_name(unit).endswith(".json"):  # it describes the files beside it
            raise Foreign(f"one JSON value {next(iter(problems))}")
        for problem, (count, number, detail) in problems.items():
            skipped.append(Skipped(unit, f"{count} {noun}{'s' * (count > 1)} {problem}, first {noun} {number}{detail}"))

    def _columns(self, unit: str, path: Path, skipped: list[Skipped]) -> Iterator[Document]:
        import pyarrow
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.ParquetFile(_whole(path))
            if isinstance(self._write, Fields):
                yield from self._texts(unit, table, self._write.fields, skipped)
            else:
                columns = [name for name in self._write.fields if name in table.schema_arrow.names]
                rows = itertools.chain.from_iterable(
                    batch.to_pylist() for batch in table.iter_batches(READ_ROWS, columns=columns)
                )
                records = (Record(number, row) for number, row in enumerate(rows, start=1))
                yield from self._records(unit, records, "columns", skipped)
        except (pyarrow.ArrowException, OSError) as error:
            raise Unreadable(f"corrupt: {(str(error).splitlines() or ['no Parquet'])[0]}") from None
        except UnicodeDecodeError:
            raise Unreadable("holds text that is not UTF-8") from None

    def _texts(self, unit: str, table: Any, fields: Sequence[str], skipped: list[Skipped]) -> Iterator[Document]:
        """The documents of columns of text, as bytes."""
        import pyarrow

        for name in fields:
            _check_column(table.schema_arrow, name)
        number, missing = 0, 0
        for batch in table.iter_batches(READ_ROWS, columns=list(fields)):
            columns = [batch.column(name).cast(pyarrow.large_binary()).to_pylist() for name in fields]
            for parts in zip(*columns):
                number += 1
                if None in parts:
                    missing += 1
                    continue
                try:
                    b"".join(parts).decode()
                except UnicodeDecodeError:
                    raise Unreadable(f"not UTF-8 in row {number:,}") from None
                yield Document.of_parts(f"{unit}:{number}", parts, unit)
        if missing:
            skipped.append(Skipped(unit, f"{missing} row{'s' * (missing > 1)} without a text"))


def _whole(path: Path) -> Path | io.BytesIO:
    """What a library may read that wants all of a file at once: the file, or what is packed in it."""
    if path.suffix.lower() not in COMPRESSED:
        open_regular(path).close()  # the library would wait for the other end of a pipe, and cannot be interrupted
        return path
    content = io.BytesIO()
    for chunk in read_chunks(path):
        if content.tell() + len(chunk) > MOST_BYTES:
            raise Unreadable(f"unpacks to more than {MOST_BYTES:,} bytes; unpack it to be read piece by piece")
        content.write(chunk)
    content.seek(0)
    return content


def _check_column(schema: Any, name: str) -> None:
    """Raise `Unreadable` unless a Parquet schema has a column of text by that name."""
    import pyarrow

    if name not in schema.names:
        raise Unreadable(f"without the column {name!r}, with {', '.join(map(repr, schema.names)) or 'none'}")
    kind = schema.field(name).type
    if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
        raise Unreadable(f"whose column {name!r} is not text: {kind}")
