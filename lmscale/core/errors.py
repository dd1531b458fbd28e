"""A problem that the user can solve is a `UserError`: what was given, the rule, the nearest fix, in one sentence.

The command line prints the sentence alone and exits with the status that `exit_status` gives it; any other exception is
a defect of `lmscale` and keeps its traceback.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

LONGEST_SENTENCE = 800
"""Characters of a message. What was given may be longer by far, and then the middle is left out: a sentence begins with
what is wrong and ends with the fix."""
FIX = 300
"""Characters kept at the end of a sentence that is too long."""
LINE_ENDS = re.compile("\\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\\s*")


class UserError(ValueError):
    """The input cannot be used; the message, one line, says what was given, the rule and the nearest fix."""

    def __init__(self, sentence: str) -> None:
        line = LINE_ENDS.sub(" ", sentence).strip()
        if len(line) > LONGEST_SENTENCE:
            line = f"{line[: LONGEST_SENTENCE - FIX - 5]} ... {line[-FIX:]}"
        super().__init__(line)


class Busy(UserError):
    """Another process is working on the same run or data."""


class StorageError(UserError):
    """A disk that is full or does not answer: the same call may succeed later."""


class MemoryShortage(UserError):
    """A run needs more memory than there is: in more micro-batches it may fit."""


class RunsFailed(UserError):
    """Some runs of a sweep have no outcome, although all that could be trained has been."""

    def __init__(self, failed: Mapping[str, str], folder: Path) -> None:
        self.failed = dict(failed)
        """run_id -> why it has none."""
        first = next(iter(self.failed))
        super().__init__(
            f"{len(self.failed)} run{'s' * (len(self.failed) != 1)} in {folder} failed, "
            f"among them {first} ({self.failed[first]}); `lmscale logs "
            f"{first}` shows its log, and `lmscale retry {folder}` allows failed runs another attempt"
        )


def nearest(name: str, choices: Iterable[str]) -> str:
    """A clause that names the closest of `choices` to a mistyped `name`: "; did you mean 'width'?"."""
    choices = sorted(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(choices)}"
