"""The columns of a table of scores, under one name each and checked.

`task, metric, kind` (hard or graded); an axis `params, flops, loss` or plain `x` (positive); `correct` and `n`, or
`score` with `stderr` or `n`; `chance`. Where there: `ceiling` (1), `seed` (rows of one scale are then its seeds),
`higher_is_better` (1; 0 for a graded error), `run_id` (the run of a row), and `family, shots, subtask`, each of whose
values is a curve of its own.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.study.tables import numbers
from lmscale.study.tables.headers import SHORT
from lmscale.study.tables.meanings import check_meaning

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("hard", "graded")
KNOWN = {
    "task": ("task",),
    "metric": ("metric",),
    "kind": ("kind",),
    "params": ("params", "n_params"),
    "flops": ("flops",),
    "loss": ("loss", "loss_nats"),
    "x": ("x", "scale"),
    "correct": ("correct", "n_correct"),
    "n": ("n", "n_examples"),
    "score": ("score",),
    "stderr": ("stderr", "score_stderr"),
    "chance": ("chance",),
    "ceiling": ("ceiling", "high_score"),
    "seed": ("seed",),
    "higher_is_better": ("higher_is_better",),
    "family": ("family", "model_family"),
    "shots": ("shots",),
    "subtask": ("subtask",),
    "run_id": ("run_id", "run"),
}
SMALLEST = {"params": 1e4, "flops": 1e9}
"""Less than the largest model of any table of scores has, counted one by one."""
NUMBERS = ("params", "flops", "loss", "x", "correct", "n", "score", "stderr", "chance", "ceiling", "higher_is_better")


def canonical(table: "pd.DataFrame", columns: Mapping[str, str] | None = None) -> "pd.DataFrame":
    """`table` with the columns named as above and checked. `columns` maps our names to the table's.

    Raises `UserError` for a column or value that is absent, not a number, impossible, or another quantity by its name.
    """
    import pandas as pd

    present = [str(name) for name in table.columns]
    by_name = {}
    for name, source in (columns or {}).items():
        if name not in KNOWN:
            raise UserError(f"`columns` maps to {name!r}, which is no column of scores{nearest(name, KNOWN)}")
        if source not in present:
            raise UserError(f"the table has no column {source!r} (asked for as {name}){nearest(source, present)}")
        check_meaning(SHORT.get(name, name), source, present, f"an axis of any other quantity is x={source}")
        by_name[name] = table[source]
    for name, usual in KNOWN.items():
        known = next((other for other in usual if other in present), None)
        if name not in by_name and known is not None:
            by_name[name] = table[known]
    rows = pd.DataFrame(by_name)
    for name in ("task", "metric"):
        if name not in rows:
            raise UserError(
                f"the table has no column {name!r}: a table of scores names task, metric, kind, an axis, correct and n "
                f"(or score and stderr), and chance"
            )
    for name in NUMBERS:
        if name in rows:
            truths = rows[name].map(lambda cell: float(cell) if isinstance(cell, bool) else cell)
            rows[name] = numbers(rows.assign(**{name: truths}), name)
    rows["kind"] = _kinds(rows)
    return _scores(rows)


def unit_doubts(rows: "pd.DataFrame") -> list[str]:
    """Sentences about scales so small that they may count millions or billions."""
    sentences = []
    for name, least in SMALLEST.items():
        largest = rows[name].max() if name in rows else math.nan
        if largest <= least:
            sentences.append(
                f"the largest {name} is {largest:.4g}: if the column counts millions or billions, so do the thresholds"
            )
    return sentences


def _kinds(rows: "pd.DataFrame") -> Any:
    if "kind" not in rows:
        if "correct" in rows and rows["correct"].notna().all():
            return "hard"
        raise UserError("the table has no column 'kind': write hard for all-or-nothing metrics, graded for the others")
    kinds = rows["kind"].astype(str).str.strip().str.lower()
    if (bad := ~kinds.isin(KINDS)).any():
        value = rows["kind"][bad].iloc[0]
        raise UserError(f"column 'kind' holds {value!r}: write hard for all-or-nothing metrics, graded for the others")
    return kinds


def _scores(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Score and n of every row, from whichever columns it has; what no row can be is refused."""
    for name in ("correct", "n", "score", "stderr", "chance"):
        if name not in rows:
            rows[name] = math.nan
    if "ceiling" not in rows:
        rows["ceiling"] = 1.0
    if "higher_is_better" not in rows:
        rows["higher_is_better"] = 1.0
    counted = rows["correct"].notna() & rows["n"].notna()
    refuse(rows, rows["n"] < 2, "n", "a rate over fewer than two examples cannot be told from chance: give the counts "
            "over all examples of the task")  # fmt: skip
    refuse(rows, counted & ((rows["correct"] < 0) | (rows["correct"] > rows["n"])), "correct",
            "correct answers lie between 0 and n")  # fmt: skip
    rows["score"] = (rows["correct"] / rows["n"]).where(counted, rows["score"])
    refuse(rows, rows["score"].isna(), "score", "give correct and n, or score with stderr or n, in every row")
    for name in (name for name in NUMBERS if name in rows):
        refuse(rows, np.isinf(rows[name]), name, "a score and all about it are finite numbers")
    hard = rows["kind"] == "hard"
    outside = hard & ((rows["score"] < 0) | (rows["score"] > 1))
    refuse(rows, outside, "score", "a hard metric is a share of correct answers and lies in [0, 1]"
            + (": divide percentages by 100" if rows["score"][outside].max() > 1 else ""))  # fmt: skip
    no_chance = hard & ~((rows["chance"] >= 0) & (rows["chance"] < 1))
    refuse(rows, no_chance, "chance", "a hard metric needs the score of guessing: 0 for exact match, 1/choices for "
            "multiple choice")  # fmt: skip
    refuse(rows, rows["stderr"] < 0, "stderr", "a standard error is not negative")
    refuse(rows, hard & rows["n"].isna() & rows["stderr"].isna(), "n",
            "a hard metric needs n, or the standard error of its score, to tell a rise from noise")  # fmt: skip
    return rows


def refuse(rows: "pd.DataFrame", bad: Any, column: str, rule: str) -> None:
    """Raise a `UserError` that names the first of the `bad` rows, its value of `column`, and the rule."""
    if not bad.any():
        return
    row = rows[bad].iloc[0]
    value = row[column]
    stated = f"no {column}" if value is None or math.isnan(value) else f"{column} = {value:g}"
    more = f" and {int(bad.sum()) - 1} more rows" if bad.sum() > 1 else ""
    raise UserError(f"task {row['task']!r}, metric {row['metric']!r} has {stated}{more}: {rule}")
