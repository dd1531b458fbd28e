"""Where the time of the runs went: training, start and compilation, validation and saving, and what attempts lost."""

from typing import TYPE_CHECKING

import numpy as np

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


def shares(table: "pd.DataFrame") -> dict[str, float]:
    """Part -> seconds, summed over the runs that state both training and start; empty where none does."""
    if not {"seconds", "startup_seconds"} <= set(table.columns):
        return {}
    runs = table.dropna(subset=["seconds", "startup_seconds"])
    if not len(runs):
        return {}
    return {name: float(runs[column].astype(float).sum()) for name, column, _ in PARTS if column in runs}


def goodput(table: "pd.DataFrame") -> float:
    """Share of the runs' wall time that was training; NaN where it is not known."""
    parts = shares(table)
    total = sum(parts.values())
    return parts["training"] / total if total > 0 else np.nan


def section(table: "pd.DataFrame") -> list[str]:
    """A sentence and a table of the parts; nothing where the table does not state them."""
    parts = shares(table)
    total = sum(parts.values())
    if not total > 0:
        return []
    meanings = {name: meaning for name, _, meaning in PARTS}
    rows: list[tuple[str, list[page.Cell]]] = [
        ("", [name, _hours(seconds), Number(f"{100 * seconds / total:.1f} %", seconds / total), meanings[name]])
        for name, seconds in parts.items()
    ]
    return [
        page.heading("Where the time went"),
        page.paragraphs([_sentence(table, total)]),
        page.table([("part", ""), ("time", "hours"), ("share", ""), ("what it is", "")], rows, text_columns=(0, 3)),
    ]


def _hours(seconds: float) -> Number:
    return Number(f"{seconds / 3600:.3g}", seconds / 3600)


def _sentence(table: "pd.DataFrame", total: float) -> str:
    """Goodput, the utilization of the hardware, and what these times leave out."""
    timed = int(table[["seconds", "startup_seconds"]].notna().all(axis=1).sum())
    known = table["mfu"].astype(float).dropna().tolist() if "mfu" in table else []
    mfu = (
        f" While training, they used {100 * float(np.median(known)):.3g} % (median) of the matmul peak."
        if len(known)
        else ""
    )
    return (
        f"Of {total / 3600:.3g} hours of {timed} runs, {100 * goodput(table):.1f} % were training (goodput).{mfu} "
        "Times between attempts, and of runs without an outcome, are not in it."
    )
