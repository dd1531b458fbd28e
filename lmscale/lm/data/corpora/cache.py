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
    with files.open_append(path) as file:
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


def listing(
    root: Path, keep_folder: Callable[[str], bool], keep_file: Callable[[str], bool], links: bool = False
) -> Listing:
    """The files under `root` whose names pass both filters, or `root` itself, by path.

    Linked folders are read where `links` is given, every folder once, whatever links form a circle.
    """
    if not root.is_dir():
        return [_stat("", root)]
    return sorted(
        _stat(relative, entry)
        for relative, entry, passes in _walk(root, keep_folder, keep_file, links)
        if passes and not relative.endswith("/")
    )


def left_out(root: Path, keep_folder: Callable[[str], bool], keep_file: Callable[[str], bool]) -> list[str]:
    """The files and, ending in "/", the folders under `root` that a filter drops, with linked folders read."""
    return sorted(relative for relative, _, passes in _walk(root, keep_folder, keep_file, True) if not passes)


def _walk(
    root: Path, keep_folder: Callable[[str], bool], keep_file: Callable[[str], bool], links: bool
) -> Iterator[tuple[str, "Path | os.DirEntry[str]", bool]]:
    """Every file, and every folder with "/" at its end, below the folders of `root` that pass; whether it passes too.

    A folder that cannot be read is given as a file is. Linked folders come last, in the order of their paths.
    """
    folders: list[tuple[str, str]] = [("", str(root))]
    linked: list[tuple[str, str]] = []
    read = {_identity(files.cache_dir())}
    while folders or linked:
        if not folders:
            linked.sort()
        prefix, path = folders.pop() if folders else linked.pop(0)
        if links and (identity := _identity(Path(path))) is not None:
            if identity in read:
                continue
            read.add(identity)
        try:
            entries = list(os.scandir(path))
        except OSError:
            yield prefix.rstrip("/"), Path(path), True
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) or (links and _links_to_folder(entry)):
                passes = keep_folder(entry.name)
                if passes:
                    (linked if entry.is_symlink() else folders).append((f"{prefix}{entry.name}/", entry.path))
                yield f"{prefix}{entry.name}/", entry, passes
            elif not _links_to_folder(entry):
                yield prefix + entry.name, entry, keep_file(entry.name)


def _links_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links, or one to where nobody may look
        return False


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from every other, whatever its path; None where it cannot be read."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


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
