"""Folders written whole or not at all, one process at a time at a job, and a cheap look at whether files changed."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lmscale.core import files

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done, 0 ... 1."""

Listing = list[tuple[str, int, int, int]]
"""Relative path, bytes, time of the last write and of the last change of the inode in ns; -1 bytes: cannot be read."""

POLL_SECONDS = 0.1
CLOCK_TICK_SECONDS = 0.02


@contextlib.contextmanager
def locked(path: Path, report: Progress) -> Iterator[None]:
    """Hold the lock file `path` during the block; the system frees it when its holder dies, however it dies.

    Where the file system has no locks, processes may do the same work twice; the renaming keeps that harmless.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise files.storage_error(path, error) from error
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                report("waiting for another process that prepares the same data", 0.0)
                time.sleep(POLL_SECONDS)
            except OSError:
                break
        yield


@contextlib.contextmanager
def atomic_folder(folder: Path, label: str) -> Iterator[Path]:
    """A temporary folder beside `folder` to fill; renamed onto it when the block ends well, removed otherwise.

    To be called under a lock of `label`: what a killed process left under that label is removed. If another label's
    process put `folder` there meanwhile, that one stays. Raises `UserError` for a full disk or a folder that cannot be
    written.
    """
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{label}.*.partial"):
            shutil.rmtree(left, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{label}.", suffix=".partial", dir=folder.parent))
        yield partial
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o777 & ~umask)
        partial.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise files.storage_error(folder, error) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def listing(place: Path, keep_folder: Callable[[str], bool], keep_file: Callable[[str], bool]) -> Listing:
    """Every kept file under `place`, or `place` itself, sorted by path; links to folders are not followed."""
    if not place.is_dir():
        return [_stat("", place)]
    found: Listing = []
    folders = [("", str(place))]
    while folders:
        prefix, path = folders.pop()
        try:
            entries = os.scandir(path)
        except OSError:
            found.append((prefix.rstrip("/"), -1, 0, 0))
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if keep_folder(entry.name):
                        folders.append((f"{prefix}{entry.name}/", entry.path))
                elif keep_file(entry.name) and not entry.is_dir():
                    found.append(_stat(prefix + entry.name, entry))
    return sorted(found)


def _stat(relative: str, entry: "Path | os.DirEntry[str]") -> tuple[str, int, int, int]:
    try:
        status = entry.stat()
    except OSError:
        return relative, -1, 0, 0
    return relative, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def signature(found: Listing) -> str:
    """A hash that changes when a file comes, goes or is written to."""
    return hashlib.sha256(repr(found).encode(errors="surrogateescape")).hexdigest()[:16]


def settle(found: Listing) -> None:
    """Wait until a further write to any file would show in its times, which move by ticks of the system's clock."""
    newest = max((max(written, changed) for _, _, written, changed in found), default=0) / 1e9
    time.sleep(min(CLOCK_TICK_SECONDS, max(0.0, newest + CLOCK_TICK_SECONDS - time.time())))
