"""Rows that are one run written twice: seeds of one setting differ in their loss, or at least in a column."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmscale.study.fits.results.common import Status, counted
from lmscale.study.tables.headers import plain

if TYPE_CHECKING:
    import pandas as pd

IDENTITY = frozenset(
    (
        "run", "run_id", "run_name", "name", "id", "index", "group", "created", "created_at", "updated", "updated_at",
        "url", "notes", "user", "tags", "timestamp", "_timestamp", "runtime", "_runtime", "start_time", "end_time",
        "date", "time", "host", "hostname", "seconds", "startup_seconds",
    )
)  # fmt: skip
"""Columns, in lower case, by which copies of one run may differ."""
AGAIN = "the same run again: every number equals that of an earlier row"


def copies(table: "pd.DataFrame", inputs: Sequence[str], target: str) -> dict[int, str]:
    """Position of a row that is an earlier row's run again -> why it is left out.

    Copies differ in names and times alone.
    """
    numbers = _numbers(table, inputs, target)
    if not table.duplicated(numbers).any():
        return {}
    settings = [name for name in table.columns if not _tells_apart(str(name))]
    same = table[settings].astype(str).duplicated().to_numpy()
    again = table.duplicated(numbers).to_numpy()
    return dict.fromkeys(np.flatnonzero(same & again).tolist(), AGAIN)


def _tells_apart(name: str) -> bool:
    """Whether a column names a run, or says when and where it was run."""
    last = plain(name).rpartition(".")[2]
    return last in IDENTITY or last.startswith("unnamed:")


def statuses(table: "pd.DataFrame", repeated: dict[int, str], inputs: Sequence[str], target: str) -> list[Status]:
    """What is said of the rows taken once, and of rows of the `table` that agree although their settings differ."""
    doubts = []
    if repeated:
        sentence = (
            f"{counted(len(repeated), 'row')} repeat the inputs and the loss of another exactly: each run is taken once"
        )
        doubts.append(Status("duplicate rows", sentence, "warning"))
    numbers = _numbers(table, inputs, target)
    count = int(table.duplicated(numbers).sum())
    if count:
        first = ", ".join(map(str, table["run"][table.duplicated(numbers, keep=False)][:4]))
        sentence = (
            f"{counted(count, 'row')} have the inputs and the loss of another to the last digit, and other settings "
            f"(first: {first}); they are kept, and make intervals too narrow if they are one run"
        )
        doubts.append(Status("duplicate rows", sentence, "warning"))
    return doubts


def _numbers(table: "pd.DataFrame", inputs: Sequence[str], target: str) -> list[str]:
    """The columns that make a run what it is."""
    return [name for name in dict.fromkeys((*inputs, "params", "tokens", "flops", target)) if name in table]
