"""What a file holds, by its name and by how it begins: text, JSON lines, a JSON array or Parquet."""

import codecs
import itertools
import json
import re
from pathlib import Path
from typing import Literal

from lmscale.lm.data.corpora.chunks import COMPRESSED, Foreign, Unreadable, read_chunks

Kind = Literal["text", "lines", "array", "columns"]

RECORD_SUFFIXES = (".jsonl", ".jsonlines", ".jl", ".ndjson", ".ldjson")
COLUMN_SUFFIXES = (".parquet",)
TABLE_SUFFIXES = (".csv", ".tsv")
"""Data rather than prose."""
HEAD_BYTES = 64 << 10
HEAD_LINES = 8
"""Leading lines that must all be JSON objects for a file under another name to be read as JSON lines."""

FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\x1f\x8b", "gzip", "rename it to end in .gz"),
    (rb"\x28\xb5\x2f\xfd", "zstd", "rename it to end in .zst"),
    (rb"PAR1[^ -~]", "Parquet", "rename it to end in .parquet"),
    (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "bzip2", "unpack it or pack it as .gz or .zst"),
    (rb"\xfd7zXZ\0", "xz", "unpack it or pack it as .gz or .zst"),
    (rb"\x04\x22\x4d\x18", "LZ4", "unpack it or pack it as .gz or .zst"),
    (rb"PK(\x03\x04|\x05\x06)", "a zip archive", "unpack it"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (rb"(?s).{257}ustar", "a tar archive", "unpack it"),
    (rb"ARROW1\0", "Arrow", "write it as Parquet or JSON lines"),
    (rb"Obj\x01", "Avro", "write it as Parquet or JSON lines"),
    (rb"SQLite format 3\0", "an SQLite database", "write it as Parquet or JSON lines"),
    (rb"%PDF-", "a PDF", "write its text as UTF-8"),
    (rb"\xff\xfe|\xfe\xff|\0\0\xfe\xff", "UTF-16 or UTF-32", "write it as UTF-8"),
)
"""How files of other formats begin, what they are, and what makes them readable."""
RECORD_START = re.compile(rb'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:')
ARRAY_START = re.compile(rb'\s*\[\s*\{\s*"(?:[^"\\]|\\.)*"\s*:')


def kind_of(name: str, path: Path) -> Kind:
    """How the file `path`, which is listed as `name`, is read.

    JSON lines and arrays of records are recognised under any name. Raises `Foreign` for tables, `Unreadable` for other
    formats, and as `read_chunks` does.
    """
    plain = plain_name(name)
    if plain.endswith(TABLE_SUFFIXES):
        raise Foreign("neither text nor JSON lines nor Parquet")
    if plain.endswith(COLUMN_SUFFIXES):
        return "columns"
    head = _head(path)
    for start, what, fix in FORMATS:
        if re.match(start, head):
            raise Unreadable(f"holds {what}, not text; {fix}")
    head = head.removeprefix(codecs.BOM_UTF8)
    if plain.endswith(RECORD_SUFFIXES) or _begins_with_records(head):
        return "lines"
    if ARRAY_START.match(head):
        return "array"
    if plain.endswith(".json"):
        raise Foreign("one JSON value, not JSON lines")
    return "text"


def plain_name(name: str) -> str:
    """A file's name in lower case, without what it is packed with."""
    name = name.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return name


def _head(path: Path) -> bytes:
    """The leading `HEAD_BYTES` of a file's content."""
    head = b""
    for chunk in read_chunks(path):
        head += chunk[:HEAD_BYTES]
        if len(head) >= HEAD_BYTES:
            break
    return head[:HEAD_BYTES]


def _begins_with_records(head: bytes) -> bool:
    """Whether the leading lines are JSON objects with fields; of a line that goes on, whether it begins as one."""
    *whole, cut = head.split(b"\n")
    if len(head) < HEAD_BYTES:
        whole.append(cut)
    lines = list(itertools.islice((line for line in whole if line.strip()), HEAD_LINES))
    return all(map(_is_record, lines)) if lines else len(head) == HEAD_BYTES and bool(RECORD_START.match(cut))


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line.removeprefix(codecs.BOM_UTF8).decode())
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and bool(record)
