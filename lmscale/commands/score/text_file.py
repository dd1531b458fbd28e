"""The text that `lmscale score` reads, as documents: a file or standard input, UTF-8."""

import codecs
import sys
from pathlib import Path
from typing import IO, Literal, NamedTuple

from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.files import open_regular

MOST_BYTES = 2**27
"""The longest text: its tokens and their losses are held in memory, some 20 bytes for each."""
STANDARD_INPUT = "-"


class TextFile(NamedTuple):
    """Documents, and the lines in which they begin."""

    documents: list[bytes]
    lines: list[int]
    empty_lines: int
    """Lines that are no document because nothing stands in them."""


def read_text_file(path: str, documents: Literal["file", "lines"]) -> TextFile:
    """The documents of a file, or of standard input for "-". A byte order mark is left out, as in training.

    Raises `UserError` where it cannot be read, is empty, too long or not UTF-8.
    """
    name = "standard input" if path == STANDARD_INPUT else path
    text = read_standard_input() if path == STANDARD_INPUT else _utf8(_file(Path(path)), name)
    if documents == "file":
        check(bool(text), f"{name} is empty, so there is nothing to score; give a text of at least one character")
        return TextFile([text], [1], 0)
    lines = [line.removesuffix(b"\r") for line in text.removesuffix(b"\n").split(b"\n")]
    numbers = [number for number, line in enumerate(lines, 1) if line]
    check(bool(numbers), f"{name} has no line with anything in it; give a text of at least one character")
    return TextFile([lines[number - 1] for number in numbers], numbers, len(lines) - len(numbers))


def text_or_standard_input(words: str) -> str:
    """`words` themselves, or the text of standard input for "-". Raises `UserError` as `read_standard_input` does."""
    return read_standard_input().decode() if words == STANDARD_INPUT else words


def read_standard_input() -> bytes:
    """UTF-8 text without a byte order mark. Raises `UserError` where it cannot be read, is too long or not UTF-8."""
    return _utf8(_standard_input(), "standard input")


def _utf8(text: bytes, name: str) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 at byte {error.start:,}; convert it, for example with iconv") from None
    return text.removeprefix(codecs.BOM_UTF8)


def _file(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return _read(file, str(path))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; give a text file, or - for standard input") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give one text file of it, or pipe several into -") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read: {reason}; give a text file, or pipe the text into -") from None


def _standard_input() -> bytes:
    stream = getattr(sys.stdin, "buffer", None)
    check(stream is not None and not sys.stdin.closed, "standard input is closed; pipe a text into it, or give a file")
    check(not sys.stdin.isatty(), "standard input is a terminal; pipe a text into it, or give a file instead of -")
    assert stream is not None
    try:
        return _read(stream, "standard input")
    except OSError as error:
        raise UserError(f"standard input cannot be read: {error.strerror or error}; give a file instead of -") from None


def _read(file: IO[bytes], name: str) -> bytes:
    text = file.read(MOST_BYTES + 1)
    check(
        len(text) <= MOST_BYTES,
        f"{name} has more than the {MOST_BYTES:,} bytes that are scored at once; score a part of it (head -c "
        f"{MOST_BYTES} FILE | lmscale score RUN -), or make it the validation text of a run",
    )
    return text
