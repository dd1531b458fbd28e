"""Files are written whole or not at all; one sentence says why a file cannot be read or written."""

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lmscale.core.errors import StorageError, UserError


def cache_dir() -> Path:
    """Where prepared corpora, tokens and compiled programs live: $LMSCALE_CACHE, else ~/.cache/lmscale."""
    if explicit := os.environ.get("LMSCALE_CACHE"):
        return Path(explicit).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmscale"


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; rename it onto `path` when the block ends well, remove it otherwise.

    Raises `StorageError` where the disk is full, `UserError` where the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
        temporary = None
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def storage_error(path: str | Path, error: OSError) -> UserError:
    """The sentence for a write that the file system refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"the disk that holds {path} is full; nothing was written there: free some space "
            f"or point LMSCALE_CACHE or --runs to another disk"
        )
    if error.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT):  # a disk or a server of files in trouble
        return StorageError(f"cannot write {path}: {error.strerror or error}; see to the disk, then go on")
    return UserError(f"cannot write {path}: {error.strerror or error}; choose a folder that you may write to")


def write_text(path: str | Path, text: str) -> None:
    """Write `text` atomically. Raises `UserError` as `atomic_write` does."""
    with atomic_write(path) as file:
        file.write(text)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused: a missing value is None."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path, what: str = "file") -> Any:
    """The value of a JSON file. Raises `UserError` that names `what` when it is absent or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no {what} at {path}") from None
    except OSError as error:
        raise UserError(f"the {what} {path} cannot be read: {error.strerror or error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"the {what} {path} is corrupt ({error}); delete it, and it will be made again") from None
