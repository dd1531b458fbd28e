"""The bytes of text, JSONL and compressed files as documents: what is text, and why the rest is not."""

import codecs
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PASSAGE_BYTES = 8192
READ_BYTES = 1 << 20


class Unreadable(Exception):
    """A unit of a source that cannot be used; the message is the reason."""


class Foreign(Unreadable):
    """A unit that is not meant as text."""


def texts_of_line(line: bytes, fields: Sequence[str]) -> tuple[list[bytes], str, str]:
    """The texts of some fields of one line of JSONL as UTF-8; else what is wrong with the line, and a detail."""
    try:
        record = json.loads(line)
    except UnicodeDecodeError:
        return [], "not UTF-8", ""
    except (ValueError, RecursionError):
        return [], "not JSON", ""
    problem, detail = _problem_of(record, fields)
    return [] if problem else [record[name].encode() for name in fields], problem, detail


def _problem_of(record: Any, fields: Sequence[str]) -> tuple[str, str]:
    """What is wrong with a record, and a detail; both empty where every field is a text."""
    if not isinstance(record, dict):
        return "not a JSON object", ""
    for name in fields:
        if name not in record:
            return f"without the field {name!r}", f" with fields {', '.join(map(repr, record)) or 'none'}"
        if not isinstance(record[name], str):
            return f"whose field {name!r} is not text", f": {type(record[name]).__name__}"
        try:
            record[name].encode()
        except UnicodeEncodeError:
            return "with a lone surrogate, which UTF-8 cannot write", ""
    return "", ""


def read_text(path: Path) -> bytes:
    """A whole text file, without a byte order mark."""
    content = b"".join(read_chunks(path)).removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:
        raise Unreadable("holds zero bytes, so it is not text")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 at byte {error.start:,}") from None
    return content


def passages(text: bytes) -> Iterator[bytes]:
    """Cut at the first blank line after each `PASSAGE_BYTES`, or at a line's end if there is none in as many more."""
    start = 0
    while start < len(text):
        least = start + PASSAGE_BYTES
        blank = text.find(b"\n\n", least, least + PASSAGE_BYTES)
        cut = blank + 2 if blank >= 0 else text.find(b"\n", least) + 1
        cut = cut or len(text)
        yield text[start:cut]
        start = cut


def read_lines(path: Path) -> Iterator[bytes]:
    rest = b""
    for chunk in read_chunks(path):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    yield rest


def read_chunks(path: Path) -> Iterator[bytes]:
    """The content of a file, decompressed if its name ends in .gz or .zst. Raises OSError, EOFError or `Unreadable`."""
    suffix = path.suffix.lower()
    if suffix == ".zst":
        yield from _zstd_chunks(path)
    else:
        with gzip.open(path) if suffix == ".gz" else path.open("rb") as file:
            while chunk := file.read(READ_BYTES):
                yield chunk


def _zstd_chunks(path: Path) -> Iterator[bytes]:
    """Frame after frame; unlike zstandard's own stream reader, this detects a truncated file."""
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
