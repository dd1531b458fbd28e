"""Cells of runs with the same N and D at several learning rates: a law describes the best, if the rates bracket it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmscale.study.fits.results.common import Status
from lmscale.study.tables import numbers

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("learning_rate", "peak_lr", "lr")
BRACKET = 3  # rates from which on a cell can show its best one between two others


@dataclass(frozen=True)
class RateCell:
    """One size and token count at two or more learning rates: positions of its rows (k,), rates (k,), the best rate."""

    rows: np.ndarray
    rates: np.ndarray
    best: float
    """The rate whose mean loss is lowest: equal rates are seeds."""
    name: str

    @property
    def bracketed(self) -> bool | None:
        """Whether the best rate lies between two others; None for a cell of fewer than three rates."""
        if len(np.unique(self.rates)) < BRACKET:
            return None
        return bool(self.rates.min() < self.best < self.rates.max())


def cells(table: "pd.DataFrame", target: str) -> Iterator[RateCell]:
    """The cells of a table with more than one learning rate; none where it states no rate."""
    column = next((name for name in COLUMNS if name in table), None)
    if column is None or not {"params", "tokens", target} <= set(table):
        return
    rates, losses = (numbers(table, name) for name in (column, target))
    by = [name for name in ("params", "tokens", "unique_tokens", "flops_budget") if name in table]
    of = table.groupby(by, sort=True, dropna=False).ngroup().to_numpy()
    for number in range(int(of.max(initial=-1)) + 1):
        rows = np.flatnonzero((of == number) & np.isfinite(rates) & np.isfinite(losses))
        tried = np.unique(rates[rows])
        if len(tried) < 2:
            continue
        means = [losses[rows][rates[rows] == rate].mean() for rate in tried]
        first = table.iloc[rows[0]]
        name = f"N = {first['params']:.3g}, D = {first['tokens']:.3g}"
        yield RateCell(rows, rates[rows], float(tried[int(np.argmin(means))]), name)


def left_out(table: "pd.DataFrame", target: str, rates: str) -> dict[int, str]:
    """Position of a row -> why `rates` leaves it out.

    "all" leaves out none; "best" the rows of a cell that are not at its best rate; "inside" also every cell of three or
    more rates whose best is the smallest or largest tried.
    """
    out: dict[int, str] = {}
    for cell in cells(table, target) if rates != "all" else ():
        if rates == "inside" and cell.bracketed is False:
            reason = f"the best learning rate of its cell, {cell.best:.3g}, is on the edge of those tried"
            out.update(dict.fromkeys(cell.rows.tolist(), f"{reason}; `rates='best'` keeps it"))
        else:
            others = cell.rows[cell.rates != cell.best].tolist()
            out.update(dict.fromkeys(others, f"not at the best learning rate of its cell, {cell.best:.3g}"))
    return out


def statuses(table: "pd.DataFrame", target: str, rates: str) -> list[Status]:
    """What the learning rates leave in doubt; the rows are those before `left_out`."""
    several = list(cells(table, target))
    if not several:
        return []
    worse = sum(int((cell.rates != cell.best).sum()) for cell in several)
    sentence = f"{worse} of {len(table)} runs are not at the best learning rate of their cell"
    if rates == "all":
        sentence += " and enter; `rates='best'` leaves them out"
    else:
        sentence += ", and are left out; `rates='all'` keeps them"
    doubts = [Status("several learning rates", sentence, "warning" if rates == "all" else "note")]
    judged = [cell for cell in several if cell.bracketed is not None]
    if edge := [cell.name for cell in judged if not cell.bracketed]:
        sentence = (
            f"in {len(edge)} of {len(judged)} cells the best learning rate is the smallest or largest tried "
            f"({'; '.join(edge[:3])}): their loss is not the size's best, and bends the exponent; "
        )
        sentence += "they are left out" if rates == "inside" else "`rates='inside'` leaves them out"
        doubts.append(Status("learning rate on the edge", sentence, "warning"))
    if few := len(several) - len(judged):
        sentence = f"{few} of {len(several)} cells were run at two learning rates: neither can be shown to be the best"
        doubts.append(Status("two learning rates", sentence, "note"))
    return doubts
