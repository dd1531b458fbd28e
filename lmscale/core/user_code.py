"""The user's own code, called: an error in it is one sentence with the file and the line where it was raised.

config = called(f"the recipe of sweep {name!r}", recipe, point)
"""

import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lmscale.core.errors import UserError
from lmscale.core.streams import RUNNING

T = TypeVar("T")
PACKAGE = Path(__file__).resolve().parents[1]
NOT_THE_USERS = (PACKAGE, *{Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")})
"""Folders of this package, of Python and of installed packages."""
LONGEST = 300
"""Characters of an error's text that are shown."""


def called(what: str, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """What a function of the user's gives; an error in it is a `UserError`: "... fails at mine.py, line 3: ValueError".

    `what` is the function in words, "the recipe of sweep 'mine'". A `UserError` passes, and so does an error that was
    raised in this package and never passed the user's code: that is a defect of ours.
    """
    RUNNING.depth += 1
    try:
        return function(*arguments, **named)
    except (UserError, KeyboardInterrupt, MemoryError, FloatingPointError):  # the last where NumPy is asked to raise
        raise
    except BaseException as error:  # whatever it raises, SystemExit too
        place = place_of(error)
        if place is None and _in_ours(error):
            raise
        raise UserError(f"{what} fails{f' at {place}' if place else ''}: {sentence(error)}") from error
    finally:
        RUNNING.depth -= 1


def place_of(error: BaseException) -> str | None:
    """ "mine.py, line 3", the last place in the user's code that an error passed; None where it passed none."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno and is_the_users(error.filename):
        return f"{error.filename}, line {error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_the_users(frame.filename):
            return f"{frame.filename}, line {frame.lineno}"
    return None


def _in_ours(error: BaseException) -> bool:
    """Whether an error was raised in a function of this package that the called code called, or was."""
    _, *frames = traceback.extract_tb(error.__traceback__)  # of a function that takes other arguments there are none
    return any(Path(frame.filename).is_relative_to(PACKAGE) for frame in frames)


def is_the_users(file: str) -> bool:
    """Whether a file of a traceback is the user's: neither ours, nor Python's, nor that of an installed package."""
    if file.startswith("<frozen "):
        return False
    return not any(Path(file).is_relative_to(folder) for folder in NOT_THE_USERS)


def sentence(error: BaseException, text: str | None = None) -> str:
    """What Python says of an error, in one line; `text` stands in for the error's own."""
    if isinstance(error, SystemExit):
        return f"it ends Python ({error.code!r})"
    shown = "".join(letter if letter.isprintable() else " " for letter in (text_of(error) if text is None else text))
    line = " ".join(f"{type(error).__name__}: {shown}".split())
    return (f"{line[:LONGEST]} ..." if len(line) > LONGEST else line).rstrip(": ")


def text_of(error: BaseException) -> str:
    """The text of an error; "" where it cannot be written."""
    try:
        return error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:
        return ""
