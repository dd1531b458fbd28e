"""Standard output and standard error: what is written there is printable, and a write that fails is no traceback.

`guarded` stands around every call of the command line. Within it, `print` and the consoles escape what a terminal would
obey, replace what the output's encoding lacks, and raise `StorageError` where the output is closed or its disk is full.
"""

import codecs
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from lmscale.core.errors import StorageError
from lmscale.core.text import printable

SPELLINGS = {
    "±": "+/-", "×": "x", "…": "...", "≈": "~", "≤": "<=", "≥": ">=", "−": "-", "–": "-", "—": "-", "→": "->",
    "█": "#", "─": "-", "━": "-", "│": "|", "·": "-",
}  # fmt: skip
"""Characters of our own sentences -> what stands for them where the output's encoding lacks them."""
OUTPUT, ERRORS = "the standard output", "the standard error"


class Running(threading.local):
    """The user's code that is running in a thread: what is printed meanwhile is theirs."""

    depth = 0
    """Calls of it, one within the other; `core.user_code` counts them."""


RUNNING = Running()


class Output:
    """A text stream whose failed writes are sentences. `escape` makes what is written printable."""

    def __init__(self, stream: TextIO, name: str, *, escape: bool) -> None:
        self.stream, self._name, self._escape = stream, name, escape

    def write(self, text: str) -> int:
        """Write `text`, as `TextIO.write` does. Raises `StorageError` where that fails, `BrokenPipeError` as ever."""
        with self._guarded():
            self.stream.write(printable(text) if self._escape else text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered. Raises as `write` does."""
        with self._guarded():
            self.stream.flush()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _lost(self._name, error.strerror or str(error)) from None

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's: encoding, fileno, isatty, buffer."""
        return getattr(self.stream, name)


class Answers(Output):
    """Standard output, which is what we print: prints of the user's code go to standard error, as its errors do."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream, OUTPUT, escape=True)

    def write(self, text: str) -> int:
        return Output(sys.stderr, ERRORS, escape=True).write(text) if RUNNING.depth else super().write(text)


def _lost(name: str, reason: str) -> StorageError:
    return StorageError(f"{name} cannot be written ({reason}); send it to a file on a disk with room, or to /dev/null")


@contextmanager
def guarded() -> Iterator[None]:
    """Guard standard output and error during the block. Raises `StorageError` in it where the output is closed.

    A closed descriptor is opened on /dev/null first: the next file to be opened would get its number, and what a
    library prints would then stand in the middle of that file.
    """
    closed, before = _open_closed_descriptors(), (sys.stdout, sys.stderr)
    output, errors = (stream or _nowhere() for stream in before)
    for stream in (output, errors):
        if hasattr(stream, "reconfigure"):  # a notebook's stream takes every character
            stream.reconfigure(errors="lmscale")
    sys.stdout, sys.stderr = cast(TextIO, Answers(output)), errors
    try:
        if 1 in closed:
            raise _lost(OUTPUT, "it is closed")
        yield
    finally:
        sys.stdout, sys.stderr = output, errors


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - for the rest of the process


def is_nowhere(stream: TextIO) -> bool:
    """Whether `stream` stands for one that was closed before this process began."""
    return getattr(stream, "name", None) == os.devnull


def unescaped() -> TextIO:
    """Standard output for a console that writes control sequences of its own, and escapes those of others itself."""
    if isinstance(sys.stdout, Output):
        return cast(TextIO, Output(sys.stdout.stream, OUTPUT, escape=False))
    return sys.stdout


def discard(stream: TextIO) -> None:
    """Let `stream` end in /dev/null: nobody reads what it still holds, and the interpreter flushes it at its end."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _open_closed_descriptors() -> set[int]:
    """Open /dev/null under each of the numbers 0, 1 and 2 that is closed; those that were."""
    closed = set()
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            closed.add(number)
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            if null != number:
                os.dup2(null, number)
                os.close(null)
    return closed


def _spell(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding lacks: their spelling, or an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(
        SPELLINGS.get(one) or one.encode("ascii", "backslashreplace").decode() for one in characters
    ), error.end


codecs.register_error("lmscale", _spell)
