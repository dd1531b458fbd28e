"""The content of plain and compressed files, piece by piece, in bounded memory."""

import gzip
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

READ_BYTES = 1 << 20
ZSTD_READ_BYTES = 8 << 10
"""Bytes that are unpacked at once: zstd packs at most 128 KiB into 4 bytes, so these give at most 256 MiB."""
COMPRESSED = (".gz", ".zst")
MOST_RATIO = 250
"""Text is seldom packed to less than a twentieth of its size; gzip reaches a thousandth with zeros alone."""
TRUSTED_BYTES = 64 << 20
"""Bytes that may be unpacked of any file, however small it is."""


class Unreadable(Exception):
    """A unit of a source that cannot be used; the message is the reason."""


class Foreign(Unreadable):
    """A unit that is not meant as text."""


def read_chunks(path: Path) -> Iterator[bytes]:
    """The content of a file, unpacked if its name ends in .gz or .zst.

    Raises `Unreadable` where that cannot be done, and for a file that unpacks to far more than text does.
    """
    try:
        if path.is_dir():
            next(path.iterdir(), None)  # says why it could not be read
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a terminal would wait for ever
            raise Unreadable("no regular file")
        if path.suffix.lower() not in COMPRESSED:
            yield from _plain_chunks(path)
            return
        most = max(TRUSTED_BYTES, MOST_RATIO * path.stat().st_size)
        for chunk in _gzip_chunks(path) if path.suffix.lower() == ".gz" else _zstd_chunks(path):
            most -= len(chunk)
            if most < 0:
                raise Unreadable(f"unpacks to more than {MOST_RATIO} times its size, which no text does")
            if chunk:
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Unreadable(f"corrupt: {error}") from None
    except OSError as error:
        raise Unreadable(str(error.strerror or error)) from None


def _plain_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            yield chunk


def _gzip_chunks(path: Path) -> Iterator[bytes]:
    with gzip.open(path) as file:
        while chunk := file.read(READ_BYTES):
            yield chunk


def _zstd_chunks(path: Path) -> Iterator[bytes]:
    """Frame after frame; unlike zstandard's own stream reader, this detects a truncated file."""
    import zstandard

    frame = None
    try:
        with path.open("rb") as file:
            while data := file.read(ZSTD_READ_BYTES):
                while data:
                    frame = frame or zstandard.ZstdDecompressor().decompressobj()
                    yield frame.decompress(data)
                    data = frame.unused_data
                    frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise Unreadable(f"corrupt: {error}") from None
    if frame is not None:
        raise Unreadable("corrupt: its end is missing")
