"""Files are written whole or not at all; one sentence says why a file cannot be read or written."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lmscale.core.errors import StorageError, UserError

TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace"}
"""How text is written: a byte of a file's name that is no UTF-8 stands in it as "\\udcff"."""

READING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file is opened to be read: a pipe without a writer must not stop us."""
SMALL_BYTES = 4096
"""Asked for at least, since a file of the system's own says that it is empty."""
FULL = (errno.ENOSPC, errno.EDQUOT)
TROUBLE = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""A disk or a server of files in trouble."""
FIXES = {
    errno.EACCES: "allow it with chmod or chown, or take another",
    errno.EPERM: "allow it with chmod or chown, or take another",
    errno.ENOENT: "give one that is there",
    errno.EISDIR: "give a file, not a folder",
    errno.ENOTDIR: "give a folder",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENAMETOOLONG: "give it a shorter name",
}


def cache_dir() -> Path:
    """Where prepared corpora, tokens and compiled programs live: $LMSCALE_CACHE, else ~/.cache/lmscale.

    Raises `UserError` for a user without a home who has not set it.
    """
    if explicit := os.environ.get("LMSCALE_CACHE"):
        return expanded(explicit)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lmscale"


def expanded(path: str | Path) -> Path:
    """`path` with a leading ~ as the home folder. Raises `UserError` for a user who has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(
            f"{path} begins with a home folder that is not known: HOME is not set, and the system knows no such user; "
            f"set HOME, or LMSCALE_CACHE=FOLDER, where prepared data and compiled programs then lie"
        ) from None


def resolved(path: str | Path) -> Path:
    """`path` from the root, without links. Raises `UserError` as `expanded` does, and for what can be no path."""
    try:
        return expanded(path).resolve()
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # a zero byte, a name that is too long, a circle of links
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{str(path)[:200]!r} can be no file or folder here: {reason}; give another path") from None


def check_working_folder() -> None:
    """Raise `UserError` where the folder that this process was started in has been removed."""
    try:
        Path.cwd()
    except OSError as error:
        raise UserError(
            f"the folder that this was called in cannot be used ({error.strerror}); cd into another, and call it again"
        ) from None


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; rename it onto `path` when the block ends well, remove it otherwise.

    What stands for a device, such as /dev/stdout, is written into.
    Raises `StorageError` where the disk is full, `UserError` where the folder cannot be written.
    """
    path = Path(path)
    if is_device(path):
        with _device(path, mode) as file:
            yield file
        return
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        with os.fdopen(descriptor, mode, **({} if "b" in mode else TEXT)) as file:
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


def is_device(path: Path) -> bool:
    """Whether `path` names a device or an open file, such as /dev/stdout, which a rename onto it would destroy."""
    try:
        folder = path.parent.resolve()
    except OSError:
        return False
    return folder == Path("/dev") or folder.match("/proc/*/fd")


@contextlib.contextmanager
def _device(path: Path, mode: str) -> Iterator[IO[Any]]:
    """Open a device to write into it. Raises `UserError` for a disk, and as `atomic_write` does."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        if stat.S_ISBLK(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "a disk, not a file")
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, mode, **({} if "b" in mode else TEXT)) as file:
            yield file
    except OSError as error:
        raise storage_error(path, error) from error


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder beside `path`, renamed to `path` when the block ends well and removed otherwise.

    Raises `UserError` where something lies at `path` already, and as `atomic_write` does.
    """
    path = Path(path)
    check_new_folder(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(path: Path) -> None:
    """Raise `UserError` where something lies at `path` already, other than an empty folder."""
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise UserError(f"{path} exists already; name a folder that does not, or remove it")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def open_append(path: Path) -> IO[bytes]:
    """Open a log or a lock to write at its end; a new one is made.

    Raises `UserError` where a link, a pipe or a device lies there, which could lead what is written elsewhere or wait
    for ever for a reader, and as `atomic_write` does.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return _regular(os.open(path, flags, 0o666), "ab")
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EINVAL):
            raise UserError(f"{path} is a link, a pipe or a device where an ordinary file belongs; remove it") from None
        raise storage_error(path, error) from error


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a file of ours to read it. Raises `OSError` as `open` does, and for a pipe or a device, which may never end.

    A folder is one of these too.
    """
    descriptor = os.open(path, READING)
    try:
        return _regular(descriptor, "rb")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def read_bytes(path: str | Path) -> bytes:
    """What a file of ours holds. Raises `OSError` as `open_regular` does.

    A sweep's folder has tens of thousands of small files, and an object for each open file costs more than its reading.
    """
    descriptor = os.open(path, READING)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(*_no_file(facts.st_mode), str(path))
        size = max(facts.st_size + 1, SMALL_BYTES)
        content = os.read(descriptor, size)
        if len(content) == facts.st_size > 0:  # all of it: thousands of files need no call that gives nothing
            return content
        while more := os.read(descriptor, size):  # it has grown, or holds more than one call gives
            content += more
        return content
    finally:
        os.close(descriptor)


def sha256(path: str | Path) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _regular(descriptor: int, mode: str) -> IO[Any]:
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise OSError(*_no_file(kind))
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, mode)


def _no_file(kind: int) -> tuple[int, str]:
    """Number and words of the error for a folder, a pipe or a device where an ordinary file belongs."""
    if stat.S_ISDIR(kind):
        return errno.EISDIR, os.strerror(errno.EISDIR)
    return errno.EINVAL, "a pipe or a device, not a file"


def own_folder(path: Path) -> Path:
    """Make a folder within that of a run. Raises `UserError` where a link lies there, and as `atomic_write` does."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    if path.is_symlink():
        raise UserError(f"{path} is a link where a folder of the run's own belongs; remove it")
    return path


def storage_error(path: str | Path, error: OSError) -> UserError:
    """The sentence for a write that the file system refused."""
    if error.errno in FULL:
        return StorageError(
            f"the disk that holds {path} is full; nothing was written there: free some space "
            f"or point LMSCALE_CACHE or --runs to another disk"
        )
    if error.errno in TROUBLE:
        return StorageError(f"cannot write {path}: {error.strerror or error}; see to the disk, then go on")
    return UserError(
        f"cannot write {path}: {error.strerror or error}; choose a folder that you may write to, with --runs or an "
        f"option for the output, or for prepared data with LMSCALE_CACHE"
    )


def refusal(error: OSError) -> UserError:
    """The sentence for what the system refused, where nobody nearer had one: a folder that may not be listed."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        kind = StorageError if error.errno in FULL + TROUBLE else UserError
        return kind(f"the system refused a file or a connection ({reason}); see to that, then call it again")
    if error.errno in FULL + TROUBLE:
        return storage_error(os.fsdecode(error.filename), error)
    fix = FIXES.get(error.errno or 0, "take another")
    return UserError(f"{os.fsdecode(error.filename)} cannot be used: {reason}; {fix}")


def write_text(path: str | Path, text: str) -> None:
    """Write `text` atomically. Raises `UserError` as `atomic_write` does."""
    with atomic_write(path) as file:
        file.write(text)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused: a missing value is None."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises `ValueError` for what is not JSON: NaN, infinity and nesting without end too."""
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\ud" in text or "\\uD" in text:  # half of a pair of surrogates is no character, and cannot be printed
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is no number in JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)
"""Made once: `json.loads` makes one for every text, and a sweep's folder has tens of thousands."""


MADE_AGAIN = "delete it, and it will be made again"
FETCH_AGAIN, IMPORT_AGAIN = "fetch it again", "import the model again"


def read_json(path: str | Path, what: str = "file", fix: str = MADE_AGAIN) -> Any:
    """The value of a JSON file. Raises `UserError` that names `what` when it is absent or not JSON.

    `fix` says what to do about a file that is not.
    """
    try:
        return parse_json(read_bytes(path))
    except FileNotFoundError:
        raise UserError(f"there is no {what} at {path}") from None
    except OSError as error:
        raise UserError(f"the {what} {path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"the {what} {path} is corrupt ({error}); {fix}") from None
