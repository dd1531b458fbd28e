"""Where the time of the runs went: training, start and compilation, pauses, and waiting between attempts."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.quantities import counted, duration
from lmscale.study.report import page
from lmscale.study.report.page import Number

if TYPE_CHECKING:
    import pandas as pd

PARTS = (
    ("training", "seconds", "steps; of a run that was resumed, those of all its attempts"),
    ("start", "startup_seconds", "from the start of a process to its first finished step, compilation included"),
    ("pauses", "paused_seconds", "validation, scoring on tasks and saving"),
)
"""Part, column of the table, what it is."""
IDLE = "between attempts"


@dataclass(frozen=True)
class Waiting:
    """How long runs lay idle between the end of an attempt and the beginning of the next."""

    runs: int
    """Runs of more than one attempt."""
    attempts: int
    """Attempts at those runs."""
    seconds: float
    """Idle time of all of them; of an attempt without a recorded end nothing is known."""
    unknown: int = 0
    """Attempts whose end nobody recorded: what was lost with them is not in `seconds`."""


def waiting_of(runs_folder: str | Path | None, runs: Iterable[str]) -> Waiting | None:
    """The idle time between attempts at the runs of a sweep's folder; None where no run took more than one."""
    from lmscale.study.launch import lease

    if runs_folder is None:
        return None
    resumed = attempts = unknown = 0
    seconds = 0.0
    for run in runs:
        history = lease.history(Path(runs_folder) / run)
        if len(history) < 2:
            continue
        resumed, attempts = resumed + 1, attempts + len(history)
        for earlier, later in pairwise(history):
            ended, began = _time((earlier.end or {}).get("at")), _time(later.value.get("began"))
            if ended is None or began is None:
                unknown += 1
            else:
                seconds += max((began - ended).total_seconds(), 0.0)  # clocks of two machines may differ
    return Waiting(resumed, attempts, seconds, unknown) if resumed else None


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def shares(table: "pd.DataFrame", waiting: Waiting | None = None) -> dict[str, float]:
    """Part -> seconds, summed over the runs that state both training and start; empty where none does."""
    if not {"seconds", "startup_seconds"} <= set(table.columns):
        return {}
    runs = table.dropna(subset=["seconds", "startup_seconds"])
    if not len(runs):
        return {}
    parts = {name: float(runs[column].astype(float).sum()) for name, column, _ in PARTS if column in runs}
    return parts if waiting is None else {**parts, IDLE: waiting.seconds}


def goodput(table: "pd.DataFrame", waiting: Waiting | None = None) -> float:
    """Share of the runs' wall time that was training; NaN where it is not known."""
    parts = shares(table, waiting)
    total = sum(parts.values())
    return parts["training"] / total if total > 0 else np.nan


def section(table: "pd.DataFrame", waiting: Waiting | None = None) -> list[str]:
    """A sentence and a table of the parts; nothing where the table does not state them."""
    parts = shares(table, waiting)
    total = sum(parts.values())
    if not total > 0:
        return []
    meanings = {**{name: meaning for name, _, meaning in PARTS}, IDLE: "no process at work on a run that was begun"}
    rows: list[tuple[str, list[page.Cell]]] = [
        ("", [name, _hours(seconds), Number(f"{100 * seconds / total:.1f} %", seconds / total), meanings[name]])
        for name, seconds in parts.items()
    ]
    return [
        page.heading("Where the time went"),
        page.paragraphs([_sentence(table, total, waiting)]),
        page.table([("part", ""), ("time", "hours"), ("share", ""), ("what it is", "")], rows, text_columns=(0, 3)),
    ]


def _hours(seconds: float) -> Number:
    return Number(f"{seconds / 3600:.3g}", seconds / 3600)


def _sentence(table: "pd.DataFrame", total: float, waiting: Waiting | None) -> str:
    """Goodput, the utilization of the hardware, and what these times leave out."""
    timed = int(table[["seconds", "startup_seconds"]].notna().all(axis=1).sum())
    known = table["mfu"].astype(float).dropna().tolist() if "mfu" in table else []
    mfu = (
        f" While training, they used {100 * float(np.median(known)):.3g} % (median) of the matmul peak."
        if len(known)
        else ""
    )
    return (
        f"Of {total / 3600:.3g} hours of {timed} runs, {100 * goodput(table, waiting):.1f} % were training "
        f"(goodput).{mfu} {_between(waiting)} Runs without an outcome are not in it."
    )


def _between(waiting: Waiting | None) -> str:
    """How often runs were taken up again, how long they lay idle, and what nobody recorded."""
    if waiting is None:
        return "Every run was trained in one attempt, as far as its folder says."
    lost = f" of {counted(waiting.unknown, 'attempt')} nobody recorded the end" if waiting.unknown else ""
    return (
        f"{counted(waiting.runs, 'run')} took {waiting.attempts} attempts and lay idle between them for "
        f"{duration(waiting.seconds)}{';' * bool(lost)}{lost}."
    )
