"""What a verb answers as JSON: one object, in the file of `--json`, or alone on standard output for `--json -`."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from lmscale.core.errors import UserError
from lmscale.core.files import is_device, write_json
from lmscale.core.streams import Output

ERRORS = "the standard error"


class Aside(Output):
    """Standard output while an answer stands there alone: everything else goes to standard error."""

    def __init__(self, answers: TextIO) -> None:
        super().__init__(sys.stderr, ERRORS, escape=True)
        self.answers = answers


def is_standard_output(path: Path | None) -> bool:
    """Whether `--json` names standard output."""
    return path == Path("-")


def check_places(arguments: Any) -> None:
    """Raise `UserError` where a verb is to write a file (--json, --save) at a place that cannot be one.

    It is looked at before anything is computed, so that no work of hours ends without its answer.
    """
    for name in ("json", "save"):
        path = getattr(arguments, name, None)
        if not isinstance(path, Path) or is_standard_output(path):
            continue
        if path.is_dir():
            raise UserError(f"--{name} {path}: that is a folder; name a file in it, as {path / 'answer.json'}")
        above = next((one for one in path.parents if one.exists()), Path())
        if not above.is_dir():
            raise UserError(f"--{name} {path}: {above} is no folder; name a file in one")
        place = path if is_device(path) else above  # a file is written beside its place, and renamed onto it
        if not os.access(place, os.W_OK):
            raise UserError(f"--{name} {path}: {place} may not be written to; choose another folder")


@contextmanager
def alone(arguments: Any) -> Iterator[None]:
    """Leave standard output to the answer in the block, where the arguments of a verb say `--json -`."""
    if not is_standard_output(getattr(arguments, "json", None)):
        yield
        return
    before = sys.stdout
    sys.stdout = cast(TextIO, Aside(before))
    try:
        yield
    finally:
        sys.stdout = before


def write_answer(path: Path | None, value: Any) -> None:
    """Write what a verb answers to the file of `--json`, whole or not at all, or in a line to standard output.

    Nothing is written where `path` is None. NaN and infinity are refused: a missing value is None.
    """
    if path is None:
        return
    if not is_standard_output(path):
        write_json(path, value)
        return
    stream = sys.stdout.answers if isinstance(sys.stdout, Aside) else sys.stdout
    print(json.dumps(value, allow_nan=False), file=stream, flush=True)
