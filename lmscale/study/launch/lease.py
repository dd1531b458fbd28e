"""Who trains a run, and who tried before: one numbered file per attempt, the newest of which is the lease on the run.

`attempts/0001.json`, `0002.json`, ...: taking a run means creating the next number, which a file system grants to one
process only (a hard link, which is atomic on NFS too; no flock). No number is ever used twice and none is deleted, so a
process with a stale view of the folder can only lose. A file has one writer at a time: its holder, and after the
holder's death the launcher that was its parent.

No clock is compared with another: on the holder's machine the system says whether its process lives; elsewhere a lease
is dead once its heartbeat, the time of the file's last change, has stood still for `STALE_SECONDS` of the observer's
own steady clock.
"""

import errno
import json
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmscale.core.config import from_json
from lmscale.core.errors import Busy
from lmscale.core.exit_status import EXIT_BUSY
from lmscale.core.files import open_regular, own_folder, parse_json, read_bytes, storage_error, write_json
from lmscale.core.run_folder import ATTEMPTS_FOLDER, STOP_FILE
from lmscale.study.launch.process import Process

LAUNCH_VARIABLE = "LMSCALE_LAUNCH"
"""Environment variable: the name of the launch, by which a launcher recognises the attempts at its own runs."""
SEEN_DEAD_VARIABLE = "LMSCALE_SEEN_DEAD"
"""Environment variable: number of the attempt that the launcher has already watched for `STALE_SECONDS`."""

ATTEMPT_NAME = re.compile(r"(?!0000)[0-9]{4}\.json|[1-9][0-9]{4,8}\.json")
"""Names of the files of attempts, 1 to 999999999; any other file in their folder is none."""
BEAT_SECONDS = 10.0
WATCH_SECONDS = 1.0
"""How often a holder checks whether it is asked to stop."""
STALE_SECONDS = 90.0
"""Several heartbeats, and more than the minute for which NFS may show an old state of a file."""


@dataclass(frozen=True)
class Attempt:
    """One file of the folder, as it was read; `holder` is None where its content cannot be read."""

    path: Path
    number: int
    holder: Process | None
    value: dict[str, Any]
    changed_ns: int

    @property
    def end(self) -> dict[str, Any] | None:
        """How it ended: status, reason, time; None while nobody has recorded that."""
        end = self.value.get("end")
        if end is None or (
            isinstance(end, dict) and type(end.get("status")) is int and isinstance(end.get("reason"), str)
        ):
            return end
        return {"status": 1, "reason": "how it ended cannot be read"}

    def count_of(self, note: str) -> int:
        """A note of `hold` that is a count, as `together`; 1 where it is absent or cannot be read."""
        value = self.value.get(note)
        return value if type(value) is int and value > 0 else 1

    @property
    def mark(self) -> tuple[int, int]:
        """Changes with every heartbeat and every new attempt."""
        return self.number, self.changed_ns

    @property
    def where(self) -> str:
        """Process and machine of the holder, for a sentence."""
        return f"by process {self.holder.pid} on {self.holder.host}" if self.holder else "elsewhere"

    def dead(self) -> bool | None:
        """Whether nobody works on it any more; None where only the heartbeat can tell."""
        if self.end is not None:
            return True
        return None if self.holder is None else self.holder.dead()


def newest(folder: Path) -> Attempt | None:
    """The lease on the run in `folder`; None before the first attempt."""
    number = _last_number(folder)
    return _read(folder, number) if number else None


def history(folder: Path) -> list[Attempt]:
    """All attempts at the run, the oldest first."""
    return [_read(folder, number) for number in sorted(_numbers(folder))]


def _last_number(folder: Path) -> int:
    return max(_numbers(folder), default=0)


def _numbers(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder / ATTEMPTS_FOLDER)  # noqa: PTH208 - thousands of folders are read at once
    except OSError:
        return []
    return [int(name[:-5]) for name in names if ATTEMPT_NAME.fullmatch(name)]


def _path(folder: Path, number: int) -> Path:
    return folder / ATTEMPTS_FOLDER / f"{number:04}.json"


def _read(folder: Path, number: int) -> Attempt:
    path, value, changed, holder = _path(folder, number), {}, 0, None
    with suppress(OSError, ValueError):
        with open_regular(path) as file:  # opening makes NFS ask the server
            changed = os.fstat(file.fileno()).st_mtime_ns
            value = parse_json(file.read())
        value = value if isinstance(value, dict) else {}
        holder = from_json(Process, value.get("holder"))
    return Attempt(path, number, holder, value, changed)


class Observer:
    """Watches the lease on one run from outside, and times a silent heartbeat by its own clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: tuple[int, int] = (0, 0)
        self._since = time.monotonic()

    def at_work(self) -> bool:
        """Whether somebody trains the run, as far as is known by now."""
        lease = newest(self.folder)
        if lease is None:
            return False
        dead = lease.dead()
        if dead is not None:
            return not dead
        if lease.mark != self._seen:
            self._seen, self._since = lease.mark, time.monotonic()
        return time.monotonic() - self._since < STALE_SECONDS

    @property
    def number(self) -> int:
        """Number of the attempt that was last looked at."""
        return self._seen[0]


@contextmanager
def hold(folders: Sequence[Path], notes: dict[str, Any]) -> Iterator[list[Path]]:
    """Hold the leases on the runs in `folders` during the block; gives the files of the attempts, with `notes` in them.

    A thread sends their heartbeats, asks this process to stop (SIGTERM) when a stop file says so, and ends it at once
    where its lease was taken over: it was thought dead, and two must not write into one folder.
    Raises `Busy` where a run is being trained, `StorageError` on a full disk.
    """
    paths: list[Path] = []
    over = threading.Event()
    with ExitStack() as stack:
        for folder in folders:
            paths.append(path := _take(folder, notes))
            stack.callback(record_end, path, 1, "ended without a word")  # unless a better reason is recorded by then
        keeper = threading.Thread(target=_keep, args=(paths, over), name="heartbeat", daemon=True)
        keeper.start()
        try:
            yield paths
        finally:
            over.set()
            keeper.join()


def _take(folder: Path, notes: dict[str, Any]) -> Path:
    """Create the next attempt at the run in `folder`. Raises `Busy` where somebody holds its lease."""
    observer, first = Observer(folder), newest(folder)
    seen_dead = os.environ.get(SEEN_DEAD_VARIABLE)
    while True:
        lease = newest(folder)
        if lease is not None and lease.dead() is not True and str(lease.number) != seen_dead and observer.at_work():
            if lease.dead() is False or first is None or lease.mark != first.mark:
                raise Busy(f"{folder} is being trained {lease.where}; `lmscale stop` ends that")
            time.sleep(WATCH_SECONDS)  # on another machine: only its heartbeat can tell
            continue
        path = _path(folder, lease.number + 1 if lease else 1)
        value = {
            "holder": asdict(Process.this()),
            "launch": os.environ.get(LAUNCH_VARIABLE, ""),
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            **notes,
        }
        if _create(path, json.dumps(value, indent=1)):
            return path


def _create(path: Path, text: str) -> bool:
    """Whether this process, and no other, has created `path` with the whole text."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        own_folder(path.parent)
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return temporary.stat().st_nlink == 2  # over NFS the reply to a successful link can get lost
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            return _create_exclusively(path, text)  # a file system without hard links
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return True


def _create_exclusively(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def record_end(path: Path, status: int, reason: str) -> None:
    """Record how an attempt ended, unless that is recorded; a disk in trouble is no reason to fail once more."""
    with suppress(OSError, ValueError):  # a `UserError` is a `ValueError`
        value = parse_json(read_bytes(path))
        if isinstance(value, dict) and "end" not in value:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(path, {**value, "end": {"status": status, "reason": reason, "at": at}})


def _keep(paths: list[Path], over: threading.Event) -> None:
    """Send heartbeats until `over`, and watch for stop files and for a holder that took over."""
    beat, signalled = time.monotonic(), False
    while not over.wait(WATCH_SECONDS):
        for path in paths:
            if _path(path.parent.parent, int(path.stem) + 1).exists():
                os.write(2, f"lmscale: {path.parent.parent} was taken over by another process\n".encode())
                os._exit(EXIT_BUSY)
        if not signalled and any(stop_asked(path.parent.parent) for path in paths):
            signalled = True
            os.kill(os.getpid(), signal.SIGTERM)
        if time.monotonic() - beat >= BEAT_SECONDS:
            beat = time.monotonic()
            for path in paths:
                with suppress(OSError):
                    os.utime(path, follow_symlinks=False)


def stop_asked(folder: Path) -> bool:
    """Whether the run in `folder`, or its whole sweep, is asked to stop."""
    return (folder / STOP_FILE).exists() or (folder.parent / STOP_FILE).exists()
