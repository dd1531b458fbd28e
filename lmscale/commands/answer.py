"""What a verb answers as JSON: one object, in the file of `--json`, or alone on standard output for `--json -`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from lmscale.core.files import write_json
from lmscale.core.streams import ERRORS, Output


class Aside(Output):
    """Standard output while an answer stands there alone: everything else goes to standard error."""

    def __init__(self, answers: TextIO) -> None:
        super().__init__(sys.stderr, ERRORS, escape=True)
        self.answers = answers


def is_standard_output(path: Path | None) -> bool:
    """Whether `--json` names standard output."""
    return path == Path("-")


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
