"""A damaged file gives the same numbers or one sentence, whichever reader meets it.

By default a few examples of each reader, the same every time; with `-m slow` some hundreds. More, and others each time:
LMSCALE_FUZZ=5000 make test ARGS="-m slow -k fuzz". hypothesis prints the smallest damage that shows a fault.
"""

import functools
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
from helpers.command_line import call
from helpers.readers import READERS
from helpers.readers.reader import Reader, all_finite, plain
from helpers.readers.tables import text_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.internal.conjecture.providers import HypothesisProvider

from lmscale.core.errors import LONGEST_SENTENCE, UserError

EXAMPLES = int(os.environ.get("LMSCALE_FUZZ", "0"))
"""Per reader, drawn anew each time; 0 for the number and the examples that CI has."""
SECONDS = 10
SECONDS_WAITING = 120
BYTES = 3 << 30
"""Most time of the processors, time on the clock (tests share machines) and address space for one damaged file."""
CLOCK = count(10**9)


class TooLong(BaseException):
    """A reader waits, or works without end; no reader catches this."""


def _overdue(*_: object) -> None:
    raise TooLong(f"more than {SECONDS} seconds of the processors, or {SECONDS_WAITING} on the clock")


@contextmanager
def bounded() -> Iterator[None]:
    """End a block that takes too long or too much memory."""
    signals = signal.SIGALRM, signal.SIGPROF
    before = [signal.signal(number, _overdue) for number in signals]
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS_WAITING)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


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

    def put(self, put: Callable[[Path], object]) -> Path:
        """The path of the file, once `put` has put something else there."""
        self._renew()
        path = self.folder / self.place
        remove(path)
        put(path)
        if path.is_file() and not path.is_symlink():
            os.utime(path, (next(CLOCK),) * 2)  # readers that remember a file know it by its time
        return path

    def check(self, put: Callable[[Path], object]) -> str:
        """Read what `put` puts in the place of the file; the sentence, if there is one."""
        path = self.put(put)
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


@pytest.fixture(autouse=True)
def drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same damage on every machine: hypothesis draws constants of the modules that happen to be imported, too."""
    monkeypatch.setattr(HypothesisProvider, "_maybe_draw_constant", lambda *args, **options: None)


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


@pytest.mark.long
@pytest.mark.parametrize("reader", [one for one in READERS if not one.slow], ids=str)
def test_damage(reader: Reader, subject: Callable[[Reader], Subject]) -> None:
    fuzz(subject(reader), 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the threads of Orbax
@pytest.mark.parametrize("reader", READERS, ids=str)
def test_much_damage(reader: Reader, subject: Callable[[Reader], Subject]) -> None:
    fuzz(subject(reader), (40 if reader.form == "json" else 12) if reader.slow else 150)


@pytest.mark.long
@pytest.mark.parametrize("reader", [one for one in READERS if not (one.text or one.slow)], ids=str)
def test_a_pipe(reader: Reader, subject: Callable[[Reader], Subject]) -> None:
    subject(reader).check(os.mkfifo)


@pytest.mark.slow
@pytest.mark.parametrize("reader", [one for one in READERS if not (one.text or one.slow)], ids=str)
def test_what_is_no_such_file(reader: Reader, subject: Callable[[Reader], Subject]) -> None:
    """Each content of `damage.WHOLE` instead of the file's own, and each of `damage.PLACES` instead of the file."""
    for content in damage.WHOLE:
        subject(reader).check(functools.partial(Path.write_bytes, data=content))
    for put in damage.PLACES.values():
        subject(reader).check(put)


VERBS: dict[str, tuple[str, Callable[[Path], list[object]]]] = {
    "status": ("state of an outcome", lambda path: ["status", path.parents[1]]),
    "status of a plan": ("plan states", lambda path: ["status", path.parent]),
    "table": ("table of an outcome", lambda path: ["table", path.parents[1]]),
    "logs": ("state of metrics", lambda path: ["logs", path.parent]),
    "plan": ("plan of a sweep file", lambda path: ["plan", path]),
    "check": ("prediction", lambda path: ["check", path, "--loss", "2.5"]),
    "emergence": ("table of scores", lambda path: ["emergence", path, "--resamples", "10"]),
    "fit": ("where", lambda path: ["fit", path.with_name("no.csv"), f"--where={text_of(path)[:1000]}"]),
}  # fmt: skip
"""Calls of the command line, each on the damaged file of a reader."""
STATUSES = (0, 2, 74)


def fuzz_verb(
    subject: Subject, words: Callable[[Path], list[object]], examples: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Call the command line on a damaged file `examples` times: a status of ours, and one line where it is refused."""

    @settings(
        max_examples=EXAMPLES or examples, derandomize=not EXAMPLES, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(damage.damaged(subject.content, subject.reader.form))
    def one(content: bytes) -> None:
        path = subject.put(lambda path: path.write_bytes(content))
        with bounded():
            status = call(*words(path))
        output = capsys.readouterr()
        assert status in STATUSES, output.err
        assert "Traceback" not in output.out + output.err
        if status:
            assert output.err.startswith("lmscale: ") and output.err.count("\n") == 1, output.err

    one()


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_verbs(verb: str, subject: Callable[[Reader], Subject], capsys: pytest.CaptureFixture[str]) -> None:
    name, words = VERBS[verb]
    fuzz_verb(subject(next(reader for reader in READERS if reader.name == name)), words, 20, capsys)
