"""Which rows are runs that did not finish, as trackers write it: crashed, killed, RUNNING, "Aborted", sys/failed."""

from typing import TYPE_CHECKING

import numpy as np

from lmscale.study.tables.headers import KNOWN, plain

if TYPE_CHECKING:
    import pandas as pd

FINISHED = frozenset(
    (
        "finished", "complete", "completed", "done", "success", "successful", "succeeded", "succeed", "ok", "passed",
        "inactive", "closed", "published", "finished successfully", "trained", "imported",
    )
)  # fmt: skip
"""Of this package, W&B, MLflow, Comet, Neptune, ClearML and Slurm, in lower case."""
UNFINISHED = frozenset(
    (
        "diverged", "failed", "fail", "failure", "missing", "crashed", "crash", "killed", "running", "active",
        "pending", "queued", "scheduled", "created", "starting", "preempted", "preempting", "aborted", "stopped",
        "stopping", "cancelled", "canceled", "interrupted", "timeout", "timed out", "out of memory", "oom", "node fail",
        "error", "errored", "in progress", "unfinished", "incomplete", "paused", "suspended", "not run yet", "lost",
        "exited",
    )
)  # fmt: skip
ENDED = "terminated"
"""Of Ray, a trial that is over; elsewhere one that was killed, where finished ones have a word of their own."""
FAILED = ("failed", "sys/failed", "crashed", "diverged")
"""Columns of truth values."""
YES = ("true", "yes", "1", "1.0")


def unfinished(table: "pd.DataFrame") -> np.ndarray:
    """The state of every row that is no finished run, in its own word, and "" for the others (n,)."""
    states = np.full(len(table), "", dtype=object)
    for place, name in enumerate(table.columns):
        words = None
        if plain(str(name)) in KNOWN["state"]:
            words = _unfinished_words(table.iloc[:, place])
        elif plain(str(name)) in FAILED:
            words = _true_words(table.iloc[:, place], plain(str(name)).rpartition("/")[2])
        if words is not None:
            states = np.where(states == "", words, states)
    return states


def _unfinished_words(cells: "pd.Series") -> np.ndarray | None:
    """None for a column without a word that is a state: it means something else by its name."""
    text = np.array([str(cell).strip() if isinstance(cell, str) else "" for cell in cells.astype(object)], dtype=object)
    word = np.array([" ".join(cell.lower().replace("_", " ").replace("-", " ").split()) for cell in text], dtype=object)
    seen = set(word) - {""}
    good = FINISHED if seen & FINISHED else FINISHED | {ENDED}
    if not seen & (good | UNFINISHED):
        return None
    # Beside a word for finished, every other word is a run that did not finish; else only the known ones are.
    bad = seen - good if seen & good else seen & UNFINISHED
    return np.where(np.isin(word, list(bad)), text, "")


def _true_words(cells: "pd.Series", word: str) -> np.ndarray | None:
    text = cells.astype(object).where(cells.notna(), "").astype(str).str.strip().str.lower()
    if not set(text) <= {*YES, "", "false", "no", "0", "0.0"}:
        return None
    return np.where(text.isin(YES), word, "")
