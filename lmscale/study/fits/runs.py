"""The rows of a table that a fit may use: checked and sorted, every other row named with the reason."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.study.fits import learning_rates, missing_cells, repeats
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
    for name in (*inputs, target):
        if name not in table.columns:
            raise UserError(
                f"the table has no column {name!r}{nearest(name, map(str, table.columns))}; "
                f"name it with `columns`, for example `columns='params=n_params'`"
            )
    units.check(table)
    table = table.copy()
    if "run" not in table:
        table["run"] = [f"row {index + 1}" for index in range(len(table))]
    dropped = [Dropped(str(item["run"]), str(item["reason"])) for item in table.attrs.get("dropped", [])]
    keep = np.ones(len(table), dtype=bool)
    planned = ~np.asarray(flags(table, "held_out")) if "held_out" in table else keep.copy()

    states = unfinished(table)
    # A sweep's table states why a run has no loss.
    reasons = table["reason"].astype(object).fillna("").astype(str) if "reason" in table else [""] * len(table)
    words = np.where(states == "missing", "not run yet", states)
    why = np.array([f": {word}{', ' * bool(reason)}{reason}" if word else "" for word, reason in zip(words, reasons)])

    def leave_out(bad: np.ndarray, reason: str) -> None:
        out = keep & bad
        dropped.extend(Dropped(str(run), f"{reason}{more}") for run, more in zip(table["run"][out], why[out]))
        keep[bad] = False

    if "held_out" in table:
        leave_out(np.asarray(flags(table, "held_out")), "held out to check the prediction")
    leave_out((states != "") & np.isfinite(numbers(table, target)), "its loss is not that of a finished run")
    lost = planned & ~(keep & np.isfinite(numbers(table, target)))
    for name in (target, *inputs):
        values = numbers(table, name)
        leave_out(np.isnan(values), f"{name} is missing")
        leave_out(np.isinf(values), f"{name} is infinite")
        leave_out(~(values > 0), f"{name} is not positive")
        leave_out((values < 1 / LARGEST) | (values > LARGEST), f"{name} is beyond any size that occurs")
    measured = keep.copy()
    repeated = repeats.copies(table[keep], inputs, target)
    copied = np.flatnonzero(keep)[list(repeated)]
    dropped.extend(map(Dropped, map(str, table["run"].iloc[copied]), repeated.values()))
    keep[copied] = False
    tried = np.flatnonzero(keep | (planned & learning_rates.diverged(table, target)))
    doubts = learning_rates.statuses(table.iloc[tried], target, rates)
    worse = learning_rates.left_out(table.iloc[tried], target, rates)
    dropped.extend(Dropped(str(table["run"].iloc[tried[position]]), reason) for position, reason in worse.items())
    keep[tried[list(worse)]] = False
    rows = table[keep]
    if not len(rows):
        reasons = sorted({item.reason for item in dropped}) or ["the table is empty"]
        raise UserError(f"no run is left to fit ({'; '.join(reasons)}): check `where` and `columns`")
    statuses = [*conventions.mixed(rows), *repeats.statuses(rows, repeated, inputs, target), *doubts]
    statuses += [Status("units", sentence, "warning") for sentence in units.doubts(rows, target)]
    statuses += missing_cells.statuses(table, lost, measured, inputs)
    order = [name for name in (*inputs, target, "flops") if name in rows] + ["run"]
    rows = rows.sort_values(order, kind="stable").reset_index(drop=True)
    return UsableRuns(rows, tuple(dropped), tuple(table.attrs.get("notes", ())), tuple(statuses))


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
