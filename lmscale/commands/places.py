"""Where a verb is to write, looked at before anything is computed: no work of hours ends without its answer."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from lmscale.commands.answer import is_standard_output
from lmscale.core.errors import UserError
from lmscale.core.files import is_device, resolved

FILES = ("json", "save", "html", "output")
"""Arguments of verbs that name a file to be written, where the verb's FOLDERS does not name them."""


class Place(NamedTuple):
    """Where something is to be written."""

    flag: str
    """The option that names it, or the name of a positional argument: OUTPUT."""
    path: Path
    is_folder: bool = False


def check_places(arguments: Any) -> None:
    """Raise `UserError` where a verb is to write at a place that cannot be written, twice at one, or over its input."""
    written = list(places(arguments))
    check_each(written)
    files = {resolved(path): (flag, path) for flag, path, is_folder in written if not is_folder and path.is_file()}
    for reads, path in _inputs(arguments) if files else ():
        flag, place = files.get(path, (reads, path))
        if flag != reads:
            raise UserError(f"{reads} and {flag} both name {place}, which would be overwritten: name a new file")


def places(arguments: Any) -> Iterator[Place]:
    """Every place at which the arguments of a verb say to write.

    A class of arguments says by `FOLDERS: ClassVar` which of them name folders.
    """
    folders = getattr(type(arguments), "FOLDERS", ())
    for name, flag in _flags(arguments):
        path = getattr(arguments, name) if name in (*FILES, *folders) else None
        if isinstance(path, Path) and not is_standard_output(path):
            yield Place(flag, path, name in folders)


def _flags(arguments: Any) -> Iterator[tuple[str, str]]:
    """The name of every argument, and how it is called on the command line: OUTPUT or --output."""
    from tyro.conf import Positional

    (positional,), hints = get_args(Positional[int])[1:], get_type_hints(type(arguments), include_extras=True)
    for name in (one.name for one in fields(arguments)):
        yield name, name.upper() if positional in get_args(hints[name]) else f"--{name.replace('_', '-')}"


def _inputs(arguments: Any) -> Iterator[tuple[str, Path]]:
    """What names a file that is there, and that file, which may be an output, too; of mine.py:MyLaw it is mine.py."""
    for name, flag in _flags(arguments):
        value = getattr(arguments, name)
        for one in value if isinstance(value, tuple) else (value,):
            text = str(one) if isinstance(one, (str, Path)) else ""
            yield from ((flag, resolved(path)) for path in (text, text.rpartition(":")[0]) if _is_file(path))


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # it is too long for a path
        return False


def check_each(of: Iterable[Place]) -> None:
    """Raise `UserError` for a place that cannot be written, and for one that two options name."""
    taken: dict[Path, str] = {}
    for flag, path, is_folder in of:
        (check_folder if is_folder else check_file)(flag, path)
        whole = resolved(path)
        if whole in taken and not is_device(path):
            raise UserError(f"{taken[whole]} and {flag} both name {path}: give each a place of its own")
        taken[whole] = flag


def check_file(flag: str, path: Path) -> None:
    """Raise `UserError` where no file can be written at `path`, which `flag` names."""
    if path.is_dir():
        raise UserError(f"{flag} {path}: that is a folder; name a file in it, as {path / 'answer.json'}")
    # A file is written beside its place, and renamed onto it; a device is written into.
    place = path if is_device(path) else _above(flag, path)
    if not os.access(place, os.W_OK):
        raise UserError(f"{flag} {path}: {place} may not be written to; choose another folder")


def check_folder(flag: str, path: Path) -> None:
    """Raise `UserError` where no folder can be made or written into at `path`, which `flag` names."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{flag} {path}: that is a file; name a folder")
    place = path if path.is_dir() else _above(flag, path)
    if not os.access(place, os.W_OK):
        raise UserError(f"{flag} {path}: {place} may not be written to; choose another folder")


def _above(flag: str, path: Path) -> Path:
    """The nearest folder above `path` that is there. Raises `UserError` where that is no folder."""
    above = next((one for one in path.parents if one.exists()), Path())
    if not above.is_dir():
        raise UserError(f"{flag} {path}: {above} is no folder; name another place")
    return above
