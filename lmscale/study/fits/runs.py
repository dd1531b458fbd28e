"""The rows of a table that a fit may use: checked and sorted, every other row named with the reason."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.study.fits import learning_rates, missing_cells, repeats, sizes
from lmscale.study.fits.checks import conventions
from lmscale.study.fits.results.common import Dropped, Status
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.laws import LARGEST, SHARES_SUM, SIX_ND, ComputeModel, Input, Law, input_named
from lmscale.study.tables import flags, numbers, units
from lmscale.study.tables.headers import LOGARITHM, find, plain
from lmscale.study.tables.states import unfinished

if TYPE_CHECKING:
    import pandas as pd

STEMS = {"loss_nats": "loss", "params": "param", "tokens": "token", "flops": "flop"}
"""What a column of another name has in it."""
PLAIN_NAME = re.compile(r"[\w./-]+")
"""A name that `columns` takes as it is."""
HELD_OUT = re.compile(r"val|test|eval|held")
"""Names of losses on text that was not trained on."""
PLACE = "Unnamed: place"
"""A column of the rows' numbers while they are sorted; like an index that was written out, it tells no runs apart."""
STEEPEST = (0.3, 2.0)  # powers of N outside of which FLOPs are not those of training


@dataclass(frozen=True)
class UsableRuns:
    """The usable rows of a table, sorted, so that no fit depends on the order of the table."""

    table: "pd.DataFrame"
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]
    statuses: tuple[Status, ...] = field(default=())
    fitted: tuple[str, ...] = ("params", "tokens", "loss_nats")
    """The inputs and the target that a fit reads."""
    search_noise: RunNoise | None = None
    """What the search for a learning rate adds to the scatter of a loss, where cells at several rates tell it."""

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
        usual = ("run", "params", "tokens", "flops", "loss_nats")
        columns = [c for c in dict.fromkeys((*usual, *self.fitted)) if c in self.table]
        cells = (
            [str(v) if isinstance(v, str) else repr(float(v)) for v in self.table["run"]]
            if column == "run"
            else map(repr, self.column(column).tolist())
            for column in columns
        )
        text = "\n".join(map("\t".join, zip(*cells)))
        return hashlib.sha256(text.encode()).hexdigest()


def usable(
    table: "pd.DataFrame",
    inputs: Sequence[str] = ("params", "tokens"),
    target: str = "loss_nats",
    rates: str = "inside",
    law: type[Law] | Sequence[type[Law]] = (),
    positive_target: bool = True,
) -> UsableRuns:
    """The rows in which every input and the target is a value that a run can have, without held-out and failed ones.

    The roles of the inputs say which values those are (`laws.inputs`), as the law or laws declare them; the target is
    positive too where its logarithm is fitted.
    Of a cell (same N and D) run at several learning rates, `rates` "inside" keeps the best rate's rows, none where that
    is the smallest or largest of three or more; "best" keeps the best rate's anyway, "all" every row. Whatever is left
    out is in `dropped`, and the statuses say what is in doubt.
    Raises `UserError` where a column is missing or no row is left.
    """
    check_columns(table, (*inputs, target))
    units.check(table)
    rows = _Selection.of(table.assign(**{name: numbers(table, name) for name in (*inputs, target)}))
    rows.leave_out(rows.held_out, "held out to check the prediction")
    rows.leave_out((rows.states != "") & rows.measured(target), "its loss is not that of a finished run")
    lost = ~rows.held_out & ~(rows.remaining & rows.measured(target))
    forms = (law,) if isinstance(law, type) else tuple(law)
    own = {name: one for form in reversed(forms) for name, one in form.OWN_INPUTS.items()}
    declared = [input_named(name, own) for name in (target, *inputs)]
    _leave_out_unusable(rows, declared, positive=(target,) if positive_target else ())
    for form in forms:
        _check_shares(rows, form)
    measured = rows.remaining.copy()
    repeated = repeats.copies(rows.table[rows.remaining], inputs, target)
    rows.leave_out_each(np.flatnonzero(rows.remaining), repeated)
    tried = np.flatnonzero(rows.remaining | (~rows.held_out & learning_rates.diverged(rows.table, target)))
    rows_tried = rows.table.iloc[tried]
    doubts = learning_rates.statuses(rows_tried, target, rates, inputs)
    rows.leave_out_each(tried, learning_rates.left_out(rows_tried, target, rates, inputs))
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
    searched = learning_rates.search_noise(rows_tried, target, inputs)
    return UsableRuns(usable_rows, tuple(rows.dropped), notes, tuple(statuses), (*inputs, target), searched)


def results_of(
    table: "pd.DataFrame",
    inputs: Sequence[str],
    target: str,
    rates: str = "inside",
    law: type[Law] | Sequence[type[Law]] = (),
    positive_target: bool = False,
) -> UsableRuns:
    """The rows that `usable` takes, held out or not, in their order: the results a prediction is held against.

    Raises `UserError` as `usable` does.
    """
    every = table.drop(columns="held_out", errors="ignore").assign(**{PLACE: range(len(table))})
    every.attrs = {name: value for name, value in table.attrs.items() if name != "dropped"}  # the fit has said those
    results = usable(every, inputs, target, rates, law, positive_target)
    return replace(results, table=results.table.sort_values(PLACE).drop(columns=PLACE).reset_index(drop=True))


def check_columns(table: "pd.DataFrame", names: Sequence[str]) -> None:
    """Raises `UserError`, naming the nearest, where the table lacks a column."""
    present = [str(column) for column in table.columns]
    for name in names:
        if name not in present:
            source = _likely(name, present)
            known = f", but {source!r}" if source else nearest(name, present)
            named = f"`columns='{name}={source}'`" if source else "`columns`, for example `columns='params=n_params'`"
            raise UserError(f"the table has no column {name!r}{known}; name it with {named}")


def _likely(name: str, present: Sequence[str]) -> str:
    """A column that may be the one asked for, losses on held-out text first; "" where none speaks of it."""
    word = STEMS.get(name, name)
    several = [
        column
        for column in present
        if word in column.lower()
        and PLAIN_NAME.fullmatch(column)
        and (name == "loss_nats" or not LOGARITHM.fullmatch(plain(column)))
    ]
    return min(several, key=lambda column: not HELD_OUT.search(column.lower()), default="")


@dataclass
class _Selection:
    """A table's rows while they are left out, one reason after the other."""

    table: "pd.DataFrame"
    states: np.ndarray
    """Words for rows whose run has not finished, else empty (n,)."""
    why: np.ndarray
    """What is added to the reason of such a row (n,)."""
    held_out: np.ndarray
    remaining: np.ndarray
    dropped: list[Dropped]

    @classmethod
    def of(cls, table: "pd.DataFrame") -> "_Selection":
        """All rows of a table; what was left out when it was read is named already."""
        dropped = [Dropped(str(item["run"]), str(item["reason"])) for item in table.attrs.get("dropped", [])]
        table = table.copy()
        if "run" not in table:  # of a DataFrame that was not read by `read_table`
            named = find("run", [str(name) for name in table.columns])
            rows = [f"row {index + 1}" for index in range(len(table))]
            table["run"] = rows if named is None else table[named.name].astype(str)
        states, remaining = unfinished(table), np.ones(len(table), dtype=bool)
        held_out = np.asarray(flags(table, "held_out")) if "held_out" in table else ~remaining
        return cls(table, states, _reasons(table, states), held_out, remaining, dropped)

    def measured(self, target: str) -> np.ndarray:
        """Which rows state a finite target (n,)."""
        return np.isfinite(numbers(self.table, target))

    def leave_out(self, bad: np.ndarray, reason: str) -> None:
        """Leave out the rows of a mask (n,) that are still kept."""
        out = self.remaining & bad
        pairs = zip(self.table["run"][out], self.why[out])
        self.dropped.extend(Dropped(str(run), f"{reason}{more}") for run, more in pairs)
        self.remaining[bad] = False

    def leave_out_each(self, rows: np.ndarray, reasons: Mapping[int, str]) -> None:
        """Leave out rows by their positions among `rows`, each for its own reason."""
        out = rows[list(reasons)]
        self.dropped.extend(map(Dropped, map(str, self.table["run"].iloc[out]), reasons.values()))
        self.remaining[out] = False

    def usable(self) -> "pd.DataFrame":
        """The rows that are left. Raises `UserError` where there are none."""
        rows = self.table[self.remaining]
        if not len(rows):
            reasons = sorted({item.reason for item in self.dropped}) or ["the table is empty"]
            raise UserError(f"no run is left to fit ({'; '.join(reasons)}): check `where` and `columns`")
        return rows


def _reasons(table: "pd.DataFrame", states: np.ndarray) -> np.ndarray:
    """ ": failed, out of memory" for a row whose run has not finished, else "" (n,); a sweep's table states why."""
    reasons = table["reason"].astype(object).fillna("").astype(str) if "reason" in table else [""] * len(table)
    words = np.where(states == "missing", "not run yet", states)
    return np.array([f": {word}{', ' * bool(reason)}{reason}" if word else "" for word, reason in zip(words, reasons)])


def _leave_out_unusable(rows: _Selection, declared: Sequence[Input], positive: Sequence[str]) -> None:
    """Leave out the rows in which a number is missing, or none that a run can have."""
    for one in declared:
        values = numbers(rows.table, one.name)
        rows.leave_out(np.isnan(values), f"{one.name} is missing")
        rows.leave_out(np.isinf(values), f"{one.name} is infinite")
        if one.name in positive:
            rows.leave_out(~(values > 0), f"{one.name} is not positive")
        impossible, reason = one.impossible(np.nan_to_num(values))
        rows.leave_out(impossible, reason)
        size = np.abs(values)
        beyond = (size > 0) & ((size < 1 / LARGEST) | (size > LARGEST))
        rows.leave_out(beyond, f"{one.name} is beyond any size that occurs")


def _check_shares(rows: _Selection, law: type[Law]) -> None:
    """Raises `UserError` where shares that the law takes as a whole do not sum to one."""
    if not law.SHARES or not rows.remaining.any():
        return
    total = np.sum([numbers(rows.table, name) for name in law.SHARES], axis=0)
    bad = rows.remaining & (np.abs(total - 1) > SHARES_SUM)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise UserError(
            f"the shares {', '.join(law.SHARES)} of run {rows.table['run'].iloc[first]} sum to {total[first]:.4g} and "
            f"must sum to 1 ({int(bad.sum())} of {int(rows.remaining.sum())} rows): give all shares, as parts of one"
        )


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
