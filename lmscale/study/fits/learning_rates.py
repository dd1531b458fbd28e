"""Cells of runs with the same N and D at several learning rates: a law describes the best, if the rates bracket it.

A run that diverged has no loss to fit, but it was tried: its rate is worse than the best of its cell, and brackets it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmscale.study.fits.results.common import Status
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.grouping import RATES, group_count, group_values, point_index
from lmscale.study.laws import KNOWN_INPUTS, MEASURED_INPUTS
from lmscale.study.tables import numbers
from lmscale.study.tables.states import unfinished

if TYPE_CHECKING:
    import pandas as pd

BRACKET = 3  # rates from which on a cell can show its best one between two others
LETTERS = {"params": "N", "tokens": "D", "flops": "C"}
LEAST_CELLS = 4
"""Cells whose valley has a minimum, from which on they tell the noise of the search: three degrees of freedom."""
DIVERGED = "diverged"
"""The state of a run whose loss grew without bound."""


@dataclass(frozen=True)
class RateCell:
    """One size and token count at two or more learning rates: positions of its rows (k,), rates (k,), the best rate."""

    rows: np.ndarray
    rates: np.ndarray
    best: float
    """The rate whose mean loss is lowest: equal rates are seeds."""
    name: str
    diverged: np.ndarray
    """The rates of its runs that diverged (d,), which have no row."""

    @property
    def tried(self) -> np.ndarray:
        """Every rate that was tried, with or without a loss (k + d,)."""
        return np.concatenate([self.rates, self.diverged])

    @property
    def bracketed(self) -> bool | None:
        """Whether the best rate lies between two others; None for a cell of fewer than three rates."""
        if group_count(self.tried) < BRACKET:
            return None
        return bool(self.tried.min() < self.best < self.tried.max())


def diverged(table: "pd.DataFrame", target: str) -> np.ndarray:
    """Which rows are runs that diverged (n,): by a column of states, or by an infinite loss."""
    words = unfinished(table).tolist()
    begins = {word: str(word).lower().startswith(DIVERGED) for word in set(words)}
    return np.isinf(numbers(table, target)) | np.array([begins[word] for word in words], dtype=bool)


def cells(table: "pd.DataFrame", target: str, inputs: Sequence[str] = ("params", "tokens")) -> Iterator[RateCell]:
    """The cells of a table with more than one learning rate; none where it states no rate, or the law is of rates.

    A cell is one point of `inputs` and of every other axis that a design sets: experts, streams, a teacher, a
    vocabulary. Rows without a loss take part where they diverged.
    """
    column = next((name for name in RATES if name in table), None)
    if column is None or not {*inputs, target} <= set(table) or set(inputs) & set(RATES):
        return
    losses, rates = numbers(table, target), group_values(numbers(table, column))
    if len(np.unique(rates[np.isfinite(rates)])) < 2:
        return
    failed = diverged(table, target)
    by = [name for name in _axes(inputs, target) if name in table]
    cell_of = point_index({name: table[name] for name in by})
    named = dict.fromkeys(("params", "tokens", *inputs))
    order = np.argsort(cell_of, kind="stable")
    for cell in np.split(order, np.flatnonzero(np.diff(cell_of[order])) + 1):
        members = cell[np.isfinite(rates[cell])]
        rows = members[np.isfinite(losses[members]) & ~failed[members]]
        lost = rates[members[failed[members]]]
        tried = np.unique(rates[rows])
        if not len(rows) or len(np.unique([*tried, *lost])) < 2:
            continue
        means = [losses[rows][rates[rows] == rate].mean() for rate in tried]
        first = table.iloc[rows[0]]
        name = ", ".join(f"{LETTERS.get(one, one)} = {first[one]:.3g}" for one in named if one in table)
        yield RateCell(rows, rates[rows], float(tried[int(np.argmin(means))]), name, lost)


def _axes(inputs: Sequence[str], target: str) -> list[str]:
    """Columns by which runs belong to different cells."""
    designed = [name for name in KNOWN_INPUTS if name not in MEASURED_INPUTS and name != "flops"]
    return [name for name in dict.fromkeys((*inputs, *designed, "flops_budget")) if name != target]


def left_out(
    table: "pd.DataFrame", target: str, rates: str, inputs: Sequence[str] = ("params", "tokens")
) -> dict[int, str]:
    """Position of a row with a loss -> why `rates` leaves it out.

    "all" leaves out none; "best" the rows of a cell that are not at its best rate; "inside" also every cell of three or
    more rates whose best is the smallest or largest tried. Runs that diverged count as tried.
    """
    out: dict[int, str] = {}
    for cell in cells(table, target, inputs) if rates != "all" else ():
        if rates == "inside" and cell.bracketed is False:
            reason = f"the best learning rate of its cell, {cell.best:.3g}, is on the edge of those tried"
            out.update(dict.fromkeys(cell.rows.tolist(), f"{reason}; `rates='best'` keeps it"))
        else:
            others = cell.rows[cell.rates != cell.best].tolist()
            out.update(dict.fromkeys(others, f"not at the best learning rate of its cell, {cell.best:.3g}"))
    return out


def statuses(
    table: "pd.DataFrame", target: str, rates: str, inputs: Sequence[str] = ("params", "tokens")
) -> list[Status]:
    """What the learning rates leave in doubt; the rows are those before `left_out`, and those that diverged."""
    several = list(cells(table, target, inputs))
    if not several:
        return []
    doubts = [_not_the_best(several, rates)]
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


def _not_the_best(several: list[RateCell], rates: str) -> Status:
    """How many runs are not at the best rate of their cell, and how many rates have no loss since they diverged."""
    worse = sum(int((cell.rates != cell.best).sum()) for cell in several)
    runs = sum(len(cell.rows) for cell in several)
    sentence = f"{worse} of {runs} runs are not at the best learning rate of their cell"
    if rates == "all":
        sentence += " and enter; `rates='best'` leaves them out"
    else:
        sentence += ", and are left out; `rates='all'` keeps them"
    if lost := sum(len(cell.diverged) for cell in several):
        sentence += f"; {lost} more diverged, whose rates count as tried and worse"
    return Status("several learning rates", sentence, "warning" if rates == "all" else "note")


def search_noise(table: "pd.DataFrame", target: str, inputs: Sequence[str] = ("params", "tokens")) -> RunNoise | None:
    """How far the best rate of a cell lies above the minimum of the parabola through it and its neighbours.

    The standard deviation over cells, in the unit of the target; None for fewer than `LEAST_CELLS`. The mean, by which
    all losses are too high, moves the law and scatters no run: the source states it.
    """
    losses = numbers(table, target)
    excess = [one for cell in cells(table, target, inputs) if (one := _above_minimum(cell, losses)) is not None]
    if len(excess) < LEAST_CELLS or np.ptp(excess) == 0:
        return None
    source = f"{len(excess)} cells, whose best rate lies {np.mean(excess):.2g} above the valley's minimum on average"
    return RunNoise(float(np.std(excess, ddof=1)), source, len(excess) - 1)


def _above_minimum(cell: RateCell, losses_n: np.ndarray) -> float | None:
    """The loss of the best rate less that of the parabola's vertex, in ln rate; None where no run brackets the best."""
    rates = np.unique(cell.rates)
    best = int(np.searchsorted(rates, cell.best))
    if not 0 < best < len(rates) - 1:
        return None
    three = rates[best - 1 : best + 2]
    means = [losses_n[cell.rows][cell.rates == rate].mean() for rate in three]
    bend, slope, _ = np.polyfit(np.log(three / cell.best), means, 2)
    return float(slope**2 / (4 * bend)) if bend > 0 else None
