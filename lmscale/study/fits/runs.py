"""The rows of a table that a fit may use: checked and sorted, every other row named with the reason."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.study.fits import learning_rates, missing_cells, repeats, sizes
from lmscale.study.fits.checks import conventions
from lmscale.study.fits.results.common import Dropped, Status
from lmscale.study.laws import SIX_ND, ComputeModel
from lmscale.study.tables import flags, numbers, units
from lmscale.study.tables.states import unfinished

if TYPE_CHECKING:
    import pandas as pd

STEEPEST = (0.3, 2.0)  # powers of N outside of which FLOPs are not those of training
LARGEST = 1e40
"""Above it, or below its inverse, no number of parameters, tokens, FLOPs or nats lies, and squares overflow."""


@dataclass(frozen=True)
class UsableRuns:
    """The usable rows of a table, sorted, so that no fit depends on the order of the table."""

    table: "pd.DataFrame"
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]
    statuses: tuple[Status, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.table)

    def column(self, name: str) -> np.ndarray:
        """A column as float64 (n,). Raises `UserError` naming the nearest column, or what is no number in it."""
        if name not in self.table:
            raise UserError(f"the table has no column {name!r}{nearest(name, map(str, self.table.columns))}")
        return numbers(self.table, name)

    @property
    def size_column(self) -> str:
        """The count that the column `params` holds, "params" or "active_params", say."""
        return sizes.size_column(self.table)

    @property
    def names(self) -> list[str]:
        return list(map(str, self.table["run"].tolist()))

    def digest(self) -> str:
        """SHA-256 of the rows and numbers that were fitted."""
        columns = [c for c in ("run", "params", "tokens", "flops", "loss_nats") if c in self.table]
        text = "\n".join(
            "\t".join(str(v) if isinstance(v, str) else repr(float(v)) for v in row)
            for row in self.table[columns].itertuples(index=False)
        )
        return hashlib.sha256(text.encode()).hexdigest()


def usable(
    table: "pd.DataFrame",
    inputs: Sequence[str] = ("params", "tokens"),
    target: str = "loss_nats",
    rates: str = "inside",
) -> UsableRuns:
    """The rows with every input and the target finite and positive, without held-out, diverged and failed ones.

    Of a cell (same N and D) run at several learning rates, `rates` "inside" keeps the best rate's rows, none where that
    is the smallest or largest of three or more; "best" keeps the best rate's anyway, "all" every row. Whatever is left
    out is in `dropped`, and the statuses say what is in doubt.
    Raises `UserError` where a column is missing or no row is left.
    """
    _check_columns(table, (*inputs, target))
    units.check(table)
    rows = _Selection.of(table)
    rows.leave_out(rows.held_out, "held out to check the prediction")
    rows.leave_out((rows.states != "") & rows.measured(target), "its loss is not that of a finished run")
    lost = ~rows.held_out & ~(rows.kept & rows.measured(target))
    _leave_out_unusable(rows, (target, *inputs))
    measured = rows.kept.copy()
    repeated = repeats.copies(rows.table[rows.kept], inputs, target)
    rows.leave_out_each(np.flatnonzero(rows.kept), repeated)
    tried = np.flatnonzero(rows.kept | (~rows.held_out & learning_rates.diverged(rows.table, target)))
    doubts = learning_rates.statuses(rows.table.iloc[tried], target, rates)
    rows.leave_out_each(tried, learning_rates.left_out(rows.table.iloc[tried], target, rates))
    usable_rows = rows.usable()
    statuses = [
        *sizes.statuses(usable_rows, inputs),
        *conventions.mixed(usable_rows),
        *repeats.statuses(usable_rows, repeated, inputs, target),
        *doubts,
        *(Status("units", sentence, "warning") for sentence in units.doubts(usable_rows, target)),
        *missing_cells.statuses(rows.table, lost, measured, inputs),
    ]
    order = [name for name in (*inputs, target, "flops") if name in usable_rows] + ["run"]
    usable_rows = usable_rows.sort_values(order, kind="stable").reset_index(drop=True)
    notes = tuple(table.attrs.get("notes", ()))
    return UsableRuns(usable_rows, tuple(rows.dropped), notes, tuple(statuses))


def _check_columns(table: "pd.DataFrame", names: Sequence[str]) -> None:
    for name in names:
        if name not in table.columns:
            raise UserError(
                f"the table has no column {name!r}{nearest(name, map(str, table.columns))}; "
                f"name it with `columns`, for example `columns='params=n_params'`"
            )


@dataclass
class _Selection:
    """A table's rows while they are left out, one reason after the other."""

    table: "pd.DataFrame"
    states: np.ndarray
    """Words for rows whose run has not finished, else empty (n,)."""
    why: np.ndarray
    """What is added to the reason of such a row (n,)."""
    held_out: np.ndarray
    kept: np.ndarray
    dropped: list[Dropped]

    @classmethod
    def of(cls, table: "pd.DataFrame") -> "_Selection":
        """All rows of a table; what was left out when it was read is named already."""
        dropped = [Dropped(str(item["run"]), str(item["reason"])) for item in table.attrs.get("dropped", [])]
        table = table.copy()
        if "run" not in table:
            table["run"] = [f"row {index + 1}" for index in range(len(table))]
        states, kept = unfinished(table), np.ones(len(table), dtype=bool)
        held_out = np.asarray(flags(table, "held_out")) if "held_out" in table else ~kept
        return cls(table, states, _reasons(table, states), held_out, kept, dropped)

    def measured(self, target: str) -> np.ndarray:
        """Which rows state a finite target (n,)."""
        return np.isfinite(numbers(self.table, target))

    def leave_out(self, bad: np.ndarray, reason: str) -> None:
        """Leave out the rows of a mask (n,) that are still kept."""
        out = self.kept & bad
        pairs = zip(self.table["run"][out], self.why[out])
        self.dropped.extend(Dropped(str(run), f"{reason}{more}") for run, more in pairs)
        self.kept[bad] = False

    def leave_out_each(self, rows: np.ndarray, reasons: Mapping[int, str]) -> None:
        """Leave out rows by their positions among `rows`, each for its own reason."""
        out = rows[list(reasons)]
        self.dropped.extend(map(Dropped, map(str, self.table["run"].iloc[out]), reasons.values()))
        self.kept[out] = False

    def usable(self) -> "pd.DataFrame":
        """The rows that are left. Raises `UserError` where there are none."""
        rows = self.table[self.kept]
        if not len(rows):
            reasons = sorted({item.reason for item in self.dropped}) or ["the table is empty"]
            raise UserError(f"no run is left to fit ({'; '.join(reasons)}): check `where` and `columns`")
        return rows


def _reasons(table: "pd.DataFrame", states: np.ndarray) -> np.ndarray:
    """ ": failed, out of memory" for a row whose run has not finished, else "" (n,); a sweep's table states why."""
    reasons = table["reason"].astype(object).fillna("").astype(str) if "reason" in table else [""] * len(table)
    words = np.where(states == "missing", "not run yet", states)
    return np.array([f": {word}{', ' * bool(reason)}{reason}" if word else "" for word, reason in zip(words, reasons)])


def _leave_out_unusable(rows: _Selection, names: Sequence[str]) -> None:
    """Leave out the rows in which a number is missing or none that occurs."""
    for name in names:
        values = numbers(rows.table, name)
        rows.leave_out(np.isnan(values), f"{name} is missing")
        rows.leave_out(np.isinf(values), f"{name} is infinite")
        rows.leave_out(~(values > 0), f"{name} is not positive")
        rows.leave_out((values < 1 / LARGEST) | (values > LARGEST), f"{name} is beyond any size that occurs")


def compute_model(table: "pd.DataFrame") -> tuple[ComputeModel, Status]:
    """The compute model of a table's own FLOPs.

    6ND where every row agrees within 1 %; else ln(C/D) is regressed on ln N. Without FLOPs: 6ND by convention.
    """
    if not {"flops", "params", "tokens"} <= set(table.columns):
        return SIX_ND, Status("compute model", "the table states no positive FLOPs; allocations take C = 6 N D", "note")
    flops, params, tokens = (np.asarray(table[name], dtype=float) for name in ("flops", "params", "tokens"))
    good = np.all([np.isfinite(values) & (values > 0) for values in (flops, params, tokens)], axis=0)
    flops, params, tokens = flops[good], params[good], tokens[good]
    if not len(flops):
        return SIX_ND, Status("compute model", "the table states no positive FLOPs; allocations take C = 6 N D", "note")
    gap = np.abs(flops / SIX_ND.flops(params, tokens) - 1)
    if gap.max() <= 0.01:
        return SIX_ND, Status("compute model", f"C = 6 N D on every row (largest gap {100 * gap.max():.2g} %)")
    log_params, log_cost = np.log(params), np.log(flops / tokens)
    if np.ptp(log_params) < 0.02:
        k = float(np.exp((log_cost - log_params).mean()))
        worst = float(np.abs(np.expm1(log_cost - log_params - math.log(k))).max())
        sentence = "every run has one model size: FLOPs are taken proportional to N D"
        return ComputeModel(k, 1.0, worst), Status("compute model", sentence, "note")
    slope, intercept = np.polyfit(log_params, log_cost, 1)
    if not STEEPEST[0] < slope < STEEPEST[1]:
        sentence = f"the table's FLOPs grow as N^{slope:.3g} D, which no model's do: allocations take C = 6 N D"
        return SIX_ND, Status("compute model", sentence, "warning")
    worst = float(np.abs(np.expm1(log_cost - intercept - slope * log_params)).max())
    model = ComputeModel(float(np.exp(intercept)), float(slope), worst)
    mixed = worst > 0.1
    sentence = f"the table's FLOPs are not 6 N D (up to {100 * gap.max():.3g} % apart); allocations take {model}"
    if mixed:
        sentence += "; a misfit this large means that rows count N or C in different ways"
    return model, Status("compute model", sentence, "warning" if mixed else "note")
