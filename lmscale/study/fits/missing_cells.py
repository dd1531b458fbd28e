"""Points of a design that no run with a loss stands for: a fit of the others is not a fit of the design."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.quantities import counted
from lmscale.study.fits.results.common import Status
from lmscale.study.grouping import point_index

if TYPE_CHECKING:
    import pandas as pd

NAME = "cells missing"
"""The status of a fit whose design has points without a loss."""
SHOWN = 6
"""Cells that are named; of others only the number is stated."""


def statuses(table: "pd.DataFrame", lost: np.ndarray, measured: np.ndarray, inputs: Sequence[str]) -> list[Status]:
    """A warning that names the points at which runs were `lost` (n,) and none is `measured` (n,); else a note.

    A point is one value of all `inputs` and of the budget, up to rounding (`grouping.py`).
    """
    if not lost.any():
        return []
    by = [name for name in dict.fromkeys((*inputs, "params", "tokens", "flops_budget")) if name in table]
    point = point_index({name: table[name] for name in by})
    empty = lost & ~np.isin(point, point[measured])
    first = ", ".join(map(str, table["run"][empty if empty.any() else lost][:3]))
    if not empty.any():
        sentence = f"{counted(int(lost.sum()), 'run')} of {len(table)} have no loss of a finished run (first: {first})"
        return [Status("runs missing", f"{sentence}; other runs of the same points have one", "note")]
    cells, at = np.unique(point[empty], return_index=True)
    names = [_name(table[empty].iloc[index], by) for index in sorted(at)[:SHOWN]]
    more = f" and {len(cells) - SHOWN} more" if len(cells) > SHOWN else ""
    sentence = (
        f"{len(cells)} of {len(np.unique(point[measured | lost]))} points of the design have no loss of a finished "
        f"run: {'; '.join(names)}{more} (first runs: {first}); the fit is of the rest, and not of the design"
    )
    return [Status(NAME, sentence, "warning")]


def _name(row: "pd.Series[float]", by: Sequence[str]) -> str:
    letters = {"params": "N", "tokens": "D", "flops_budget": "C"}
    names = [name for name in by if np.isfinite(row[name])]
    return ", ".join(f"{letters.get(name, name)} = {row[name]:.3g}" for name in names) or str(row["run"])
