"""Which rows are runs that did not finish, as trackers write it: crashed, killed, RUNNING, "Aborted", sys/failed."""

import re
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
"""Words of this package, W&B, MLflow, Comet, Neptune, ClearML, Optuna, Kubernetes and Slurm, in lower case."""
UNFINISHED = frozenset(
    (
        "diverged", "failed", "fail", "failure", "missing", "crashed", "crash", "killed", "running", "active",
        "pending", "queued", "scheduled", "created", "starting", "preempted", "preempting", "aborted", "stopped",
        "stopping", "cancelled", "canceled", "interrupted", "timeout", "timed out", "out of memory", "oom", "node fail",
        "error", "errored", "in progress", "unfinished", "incomplete", "paused", "suspended", "not run yet", "lost",
        "exited", "pruned", "waiting", "evicted", "oomkilled", "boot fail", "deadline", "revoked", "terminating",
    )
)  # fmt: skip
STATES = (*KNOWN["state"], "job_state", "end_state", "final_state", "outcome")
"""Columns of such words; the last ones stay under their own names."""
WORDS = re.compile(r"[a-z]+(?: [a-z]+){0,3}")
"""What a cell may begin with: no state has more than four words."""
LONGEST = 1000
"""Letters of a cell that are looked at."""
ENDED = "terminated"
"""Ray's word for a trial that is over; elsewhere one that was killed, where finished ones have a word of their own."""
FAILED = ("failed", "sys/failed", "crashed", "diverged")
"""Columns of truth values."""
ENDED_WELL = ("finished", "is_finished", "completed", "is_completed", "complete", "is_complete", "info.finished")
"""Columns of truth values that are true of a run that finished."""
EXITS = ("exit_code", "exitcode", "exit_status", "return_code", "returncode")
"""Columns of a process's exit status, 0 or Slurm's 0:0 for one that finished."""
ELAPSED = ("fraction_of_schedule", "portion_steps_elapsed")
"""Columns of the share of a schedule that has passed."""
WHOLE = 0.999
"""Share of a schedule from which it has ended, but for rounding."""
YES, NO = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")


def unfinished(table: "pd.DataFrame") -> np.ndarray:
    """The state of every row that is no finished run, in its own word, and "" for the others (n,)."""
    states = np.full(len(table), "", dtype=object)
    for place, name in enumerate(table.columns):
        words = None
        if plain(str(name)) in STATES:
            words = _unfinished_words(table.iloc[:, place])
        elif plain(str(name)) in FAILED:
            words = _truth_words(table.iloc[:, place], YES, plain(str(name)).rpartition("/")[2])
        elif plain(str(name)) in ENDED_WELL:
            words = _truth_words(table.iloc[:, place], NO, "not finished")
        elif plain(str(name)) in EXITS:
            words = _exit_words(table.iloc[:, place])
        if words is not None:
            states = np.where(states == "", words, states)
    return states


def inside_schedule(table: "pd.DataFrame") -> np.ndarray:
    """Which rows (n,) are points inside a decaying schedule, by the column that says how much of it has passed.

    Their loss is higher than at a schedule that ended there. None of a constant schedule are.
    """
    elapsed = next((name for name in ELAPSED if name in table), None)
    if elapsed is None:
        return np.zeros(len(table), dtype=bool)
    import pandas as pd

    inside = pd.to_numeric(table[elapsed], errors="coerce").to_numpy(dtype=float) < WHOLE
    if "schedule" in table:
        inside &= table["schedule"].astype(str).ne("constant").to_numpy()
    return np.asarray(inside)


def _unfinished_words(cells: "pd.Series") -> np.ndarray | None:
    """None for a column without a word that is a state: it means something else by its name."""
    text = [cell.strip() if isinstance(cell, str) else "" for cell in cells.astype(object).tolist()]
    known = {cell: _state(cell) for cell in set(text)}  # the same few words stand in thousands of rows
    seen = {*known.values()} - {""}
    good = FINISHED if seen & FINISHED else FINISHED | {ENDED}
    if not seen & (good | UNFINISHED):
        return None
    # Beside a word for finished, every other word is a run that did not finish; else only the known ones are.
    bad = seen - good if seen & good else seen & UNFINISHED
    shown = {cell: cell if word in bad else "" for cell, word in known.items()}
    return np.array([shown[cell] for cell in text], dtype=object)


def _state(cell: str) -> str:
    """The state that a cell begins with, in lower case: "CANCELLED by 1000", "failed: no memory", "TrialState.PRUNED".

    A cell that begins with none is its own word.
    """
    word = " ".join(cell[:LONGEST].lower().replace("_", " ").replace("-", " ").split()).removeprefix("trialstate.")
    begins = WORDS.match(word)
    words = begins[0].split() if begins else []
    phrases = (" ".join(words[:count]) for count in range(len(words), 0, -1))
    return next((phrase for phrase in phrases if phrase in FINISHED or phrase in UNFINISHED), word)


def _truth_words(cells: "pd.Series", bad: tuple[str, ...], word: str) -> np.ndarray | None:
    """`word` where a cell is one of `bad`; None for a column that does not hold truth values."""
    text = _lower(cells)
    if not set(text) <= {*YES, *NO, ""}:
        return None
    return np.where(text.isin(bad), word, "")


def _exit_words(cells: "pd.Series") -> np.ndarray | None:
    """The exit status of processes that failed; None for a column that holds anything else than such numbers."""
    text = _lower(cells).str.replace(".0", "", regex=False)
    if not text.str.fullmatch(r"(-?\d+(:\d+)?)?").all():
        return None
    return np.where(text.isin(("", "0", "0:0")), "", "exit status " + text)


def _lower(cells: "pd.Series") -> "pd.Series":
    return cells.astype(object).where(cells.notna(), "").astype(str).str.strip().str.lower()
