"""Rows that are one run written twice: seeds of one setting differ in their loss, or at least in a column."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.quantities import counted
from lmscale.study.fits.results.common import Status
from lmscale.study.grouping import signed_group_index
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
CLOCK = re.compile(r"(seconds|minutes|hours|duration|runtime|time|per_s|per_second|mfu|memory|energy|power|price|cost)")
"""The last words of a column that states when a run ran, how fast, or what it took."""
PRINTED = 2e-7
"""Relative difference of one number written with 32 and with 64 bits."""
AGAIN = "the same run again: every number equals that of an earlier row"


def copies(table: "pd.DataFrame", inputs: Sequence[str], target: str) -> dict[int, str]:
    """Position of a row that is an earlier row's run again -> why it is left out.

    Copies differ in names and times alone.
    """
    again = _same_numbers(table, inputs, target)
    if not again.duplicated().any():
        return {}
    sources = table.attrs.get("columns", {})
    numbers = {*_numbers(table, inputs, target), *map(sources.get, _numbers(table, inputs, target))}
    settings = [name for name in table.columns if not _tells_apart(str(name)) and name not in numbers]
    same = table[settings].astype(str).assign(numbers=again).duplicated().to_numpy()
    return dict.fromkeys(np.flatnonzero(same).tolist(), AGAIN)


def _tells_apart(name: str) -> bool:
    """Whether a column names a run, or says when and where it was run."""
    last = plain(name).rpartition(".")[2]
    return last in IDENTITY or last.startswith("unnamed:") or CLOCK.search(last) is not None


def statuses(table: "pd.DataFrame", repeated: dict[int, str], inputs: Sequence[str], target: str) -> list[Status]:
    """What is said of the rows taken once, and of rows of the `table` that agree although their settings differ."""
    doubts = []
    if repeated:
        sentence = (
            f"{counted(len(repeated), 'row')} repeat the inputs and the loss of another exactly: each run is taken once"
        )
        doubts.append(Status("duplicate rows", sentence, "warning"))
    again = _same_numbers(table, inputs, target)
    count = int(again.duplicated().sum())
    if count:
        first = ", ".join(map(str, table["run"][again.duplicated(keep=False).to_numpy()][:4]))
        sentence = (
            f"{counted(count, 'row')} have the inputs and the loss of another to the last digit, and other settings "
            f"(first: {first}); they are kept, and make intervals too narrow if they are one run"
        )
        doubts.append(Status("duplicate rows", sentence, "warning"))
    named = table["run"][_named_again(table, inputs) & ~again.duplicated(keep=False).to_numpy()]
    if len(named):
        sentence = (
            f"{counted(len(named), 'row')} have the name and the inputs of another and another loss (first: "
            f"{', '.join(dict.fromkeys(map(str, named[:4])))}): if they are one "
            f"run at several steps, or rounded, keep one row with `where`"
        )
        doubts.append(Status("one run, several losses", sentence, "warning"))
    return doubts


def _named_again(table: "pd.DataFrame", inputs: Sequence[str]) -> np.ndarray:
    """Which rows have the name and inputs of another row (n,); seeds of one name are runs of their own."""
    return table.duplicated(["run", *inputs, *(["seed"] if "seed" in table else [])], keep=False).to_numpy()


def _same_numbers(table: "pd.DataFrame", inputs: Sequence[str], target: str) -> "pd.Series":
    """The same integer for rows whose inputs and loss agree up to the printing of their digits (n,)."""
    import pandas as pd

    point_n: Any = 0
    for name in _numbers(table, inputs, target):
        index_n = signed_group_index(table[name], PRINTED)
        point_n = np.unique(point_n * (len(table) + 1) + index_n + 1, return_inverse=True)[1]
    return pd.Series(point_n, index=table.index)


def _numbers(table: "pd.DataFrame", inputs: Sequence[str], target: str) -> list[str]:
    """The columns that make a run what it is."""
    return [name for name in dict.fromkeys((*inputs, "params", "tokens", "flops", target)) if name in table]
