"""A damaged file gives the same numbers or one sentence, whichever reader meets it.

By default a few examples of each reader, the same every time; with `-m slow` some hundreds. More, and others each time:
LMSCALE_FUZZ=5000 make test ARGS="-m slow -k fuzz". hypothesis prints the smallest damage that shows a fault.
"""

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from helpers import damage
from helpers.readers import READERS
from helpers.readers.reader import Reader, all_finite, plain
from hypothesis import HealthCheck, Phase, given, settings

from lmscale.core.errors import LONGEST_SENTENCE, UserError

EXAMPLES = int(os.environ.get("LMSCALE_FUZZ", "0"))
"""Per reader, drawn anew each time; 0 for the number and the examples that CI has."""
SECONDS = 10
BYTES = 3 << 30
"""Most time and address space that one damaged file may take."""
CLOCK = count(10**9)


class TooLong(BaseException):
    """A reader waits, or works without end; no reader catches this."""


def _overdue(*_: object) -> None:
    raise TooLong(f"more than {SECONDS} seconds")


@contextmanager
def bounded() -> Iterator[None]:
    """End a block that takes too long or too much memory."""
    before = signal.signal(signal.SIGALRM, _overdue)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


class Subject:
    """A reader with its valid file, which can be damaged over and over."""

    def __init__(self, reader: Reader, root: Path) -> None:
        self.reader, self._whole, self.folder = reader, root / "whole", root / "folder"
        self._whole.mkdir()
        path = reader.write(self._whole)
        self.content = path.read_bytes()
        self.place = path.relative_to(self._whole)
        self._renew()
        self.value = plain(reader.read(self.folder / self.place))

    def _renew(self) -> None:
        if self.reader.changes or not self.folder.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.copytree(self._whole, self.folder, symlinks=True)

    def check(self, put: Callable[[Path], object]) -> str:
        """Read what `put` puts in the place of the file; the sentence, if there is one."""
        self._renew()
        path = self.folder / self.place
        remove(path)
        put(path)
        if path.is_file() and not path.is_symlink():
            os.utime(path, (next(CLOCK),) * 2)  # readers that remember a file know it by its time
        try:
            with bounded():
                value = self.reader.read(path)
        except TooLong as error:
            raise AssertionError(f"the reader takes {error}") from None
        except UserError as error:
            sentence = str(error)
            assert 0 < len(sentence) <= LONGEST_SENTENCE, f"{len(sentence)} characters: {sentence}"
            assert "\n" not in sentence, sentence
            return sentence
        if self.reader.exact:
            assert plain(value) == self.value, "other numbers than were written"
        assert self.reader.may_hold(value), value
        assert not self.reader.finite or all_finite(value), value
        return ""


def remove(path: Path) -> None:
    """Remove whatever lies at `path`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def subject(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Reader], Subject]]:
    """A reader with its file, made once."""
    subjects: dict[str, Subject] = {}

    def of(reader: Reader) -> Subject:
        if reader.name not in subjects:
            subjects[reader.name] = Subject(reader, tmp_path_factory.mktemp(str(reader)))
        return subjects[reader.name]

    yield of


def fuzz(subject: Subject, examples: int) -> None:
    """Damage the file of a reader `examples` times."""

    @settings(
        max_examples=EXAMPLES or examples, derandomize=not EXAMPLES, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink], print_blob=True,
    )  # fmt: skip
    @given(damage.damaged(subject.content, subject.reader.form))
    def one(content: bytes) -> None:
        subject.check(lambda path: path.write_bytes(content))

    one()


@pytest.mark.parametrize("reader", [one for one in READERS if not one.slow], ids=str)
def test_damage(reader: Reader, subject: Callable[[Reader], Subject]) -> None:
    fuzz(subject(reader), 8)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=str)
def test_much_damage(reader: Reader, subject: Callable[[Reader], Subject]) -> None:
    fuzz(subject(reader), 30 if reader.slow else 300)


@pytest.mark.parametrize("place", damage.PLACES)
@pytest.mark.parametrize("reader", [one for one in READERS if not (one.text or one.slow)], ids=str)
def test_what_is_no_file(reader: Reader, place: str, subject: Callable[[Reader], Subject]) -> None:
    subject(reader).check(damage.PLACES[place])
