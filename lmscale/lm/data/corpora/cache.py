"""Folders written whole or not at all, locks between processes, and a cheap check of whether files have changed."""

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
"""Called with a description of the work and the fraction that is done, 0 to 1."""

Listing = list[tuple[str, int, int, int]]
"""Relative path, bytes, time of the last write and of the last change of the inode in ns; -1 bytes: cannot be read."""

POLL_SECONDS = 0.1
CLOCK_TICK_SECONDS = 0.02


@contextlib.contextmanager
def locked(path: Path, report: Progress) -> Iterator[None]:
    """Hold the lock file `path` during the block; the system frees it when its holder dies in any way.

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

    To be called under a lock of `label`: what a killed process left under that label is removed. A `folder` that a
    process with another label put there meanwhile stays. Raises `UserError` for a full disk or a folder that cannot be
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


def listing(root: Path, keep_folder: Callable[[str], bool], keep_file: Callable[[str], bool]) -> Listing:
    """The files under `root` that pass both filters, or `root` itself, by path; links to folders are not followed."""
    if not root.is_dir():
        return [_stat("", root)]
    files_below: Listing = []
    folders = [("", str(root))]
    while folders:
        prefix, path = folders.pop()
        try:
            entries = os.scandir(path)
        except OSError:
            files_below.append((prefix.rstrip("/"), -1, 0, 0))
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if keep_folder(entry.name):
                        folders.append((f"{prefix}{entry.name}/", entry.path))
                elif keep_file(entry.name) and not entry.is_dir():
                    files_below.append(_stat(prefix + entry.name, entry))
    return sorted(files_below)


def _stat(relative: str, entry: "Path | os.DirEntry[str]") -> tuple[str, int, int, int]:
    try:
        status = entry.stat()
    except OSError:
        return relative, -1, 0, 0
    return relative, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def signature(listing: Listing) -> str:
    """A hash that changes when a file is added, removed or written to."""
    return hashlib.sha256(repr(listing).encode(errors="surrogateescape")).hexdigest()[:16]


def settle(listing: Listing) -> None:
    """Wait until a further write to any file would show in its times, which move by ticks of the system's clock."""
    newest = max((max(written, changed) for _, _, written, changed in listing), default=0) / 1e9
    time.sleep(min(CLOCK_TICK_SECONDS, max(0.0, newest + CLOCK_TICK_SECONDS - time.time())))
