"""The bytes of text and of lines, in linear time and bounded memory; why the rest is no text."""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from lmscale.lm.data.corpora.chunks import Unreadable, read_chunks

PASSAGE_BYTES = 8192
MOST_BYTES = 1 << 30
"""The longest line and the longest document; what stores them takes no record beyond 2 GiB."""


def read_text(path: Path) -> bytes:
    """A whole text file, without a byte order mark. Raises `Unreadable`."""
    pieces, size = [], 0
    for chunk in text_chunks(path):
        pieces.append(chunk)
        size += len(chunk)
        if size > MOST_BYTES:
            raise Unreadable(f"longer than {MOST_BYTES:,} bytes, too much for one document; divide it")
    return b"".join(pieces)


def text_chunks(path: Path) -> Iterator[bytes]:
    """The content of a text file without a byte order mark, in pieces. Raises `Unreadable` for what is not UTF-8."""
    decoder, before = codecs.getincrementaldecoder("utf-8")(), 0
    for number, chunk in enumerate(read_chunks(path)):
        text = chunk.removeprefix(codecs.BOM_UTF8) if number == 0 else chunk
        if b"\0" in text:
            raise Unreadable("holds zero bytes, so it is not text")
        before = _decode(decoder, text, before)
        yield text
    _decode(decoder, b"", before, final=True)


def _decode(decoder: codecs.IncrementalDecoder, text: bytes, before: int, final: bool = False) -> int:
    """Bytes decoded so far, `before` of them before `text`. Raises `Unreadable` naming the first that is not UTF-8."""
    waiting = len(decoder.getstate()[0])  # of a character that the last piece cut
    try:
        decoder.decode(text, final)
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 at byte {before - waiting + error.start:,}") from None
    return before + len(text)


def passages(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut at the first blank line after each `PASSAGE_BYTES`, or at a line's end if there is none in as many more."""
    text, start, sought = bytearray(), 0, 0
    for chunk in chunks:
        del text[:start]
        start, sought = 0, sought - start
        text += chunk
        while len(text) - start >= 2 * PASSAGE_BYTES and (cut := _cut(text, start, sought)):
            yield bytes(memoryview(text)[start:cut])
            start = cut
        sought = len(text)
        if sought - start > MOST_BYTES:
            raise Unreadable(f"a line of more than {MOST_BYTES:,} bytes, too much for one document")
    while start < len(text):
        cut = _cut(text, start, 0) or len(text)
        yield bytes(memoryview(text)[start:cut])
        start = cut


def _cut(text: bytearray, start: int, sought: int) -> int:
    """Where the passage from `start` on ends; 0 where `text` has no end of it. No line ends before `sought`."""
    least = start + PASSAGE_BYTES
    blank = text.find(b"\n\n", least, least + PASSAGE_BYTES)
    return blank + 2 if blank >= 0 else text.find(b"\n", max(least, sought)) + 1


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, which "\\n" alone ends. Raises `Unreadable`."""
    pieces: list[bytes] = []
    size = 0
    for chunk in read_chunks(path):
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            yield b"".join([*pieces, line])
            pieces, size = [], 0
        pieces.append(rest)
        size += len(rest)
        if size > MOST_BYTES:
            raise Unreadable(f"a line of more than {MOST_BYTES:,} bytes, too much for one document")
    yield b"".join(pieces)
