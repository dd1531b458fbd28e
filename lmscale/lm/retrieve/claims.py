"""Shards that several processes make together: each takes those that nobody works at, and waits for the others' at the
end.

A claim is a lock of the system on a file, so that it ends with its process, however that dies. Where the file system
has no locks, processes may do the same work twice; a shard is written by renaming, so that this does no harm.
"""

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lmscale.core import files

LOCKS = ".locks"
"""The folder of the locks, a file for each shard."""


@dataclass(frozen=True)
class Claim:
    """A shard that this process alone makes, until the claim is closed."""

    number: int
    _lock: ExitStack

    def close(self) -> None:
        """Let others have the shard. A second time does nothing."""
        self._lock.close()


def claims(folder: Path, numbers: Iterable[int]) -> Iterator[Claim]:
    """A claim of every shard that no other process works at when its turn comes."""
    for number in numbers:
        with ExitStack() as stack:
            lock = stack.enter_context(files.open_append(folder / LOCKS / f"{number:05}"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError:
                pass  # a file system without locks
            yield Claim(number, stack.pop_all())
