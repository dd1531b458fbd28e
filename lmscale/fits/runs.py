"""From a table to the rows that a fit may use: checked, in an order of their own, every left-out row named."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.errors import UserError, nearest
from lmscale.fits.result import Dropped, Status
from lmscale.laws import SIX_ND, ComputeModel

if TYPE_CHECKING:
    import pandas as pd

# Columns whose values name a way of counting or measuring: rows that differ in one do not belong to one law.
CONVENTIONS = (
    "convention",
    "flop_count",
    "flops_convention",
    "params_convention",
    "loss_split",
    "dataset",
    "train_set",
    "tokenizer",
    "corpus",
    "experiment",
)


@dataclass(frozen=True)
class Runs:
    """The usable rows of a table, sorted so that no fit depends on the order they came in."""

    table: "pd.DataFrame"
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]
    statuses: tuple[Status, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.table)

    def column(self, name: str) -> np.ndarray:
        """A numeric column, float64 of shape (n,). Raises `UserError` naming the nearest column."""
        if name not in self.table:
            raise UserError(f"the table has no column {name!r}{nearest(name, map(str, self.table.columns))}")
        return np.asarray(self.table[name], dtype=float)

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self.table["run"]]

    def digest(self) -> str:
        """SHA-256 of the rows and numbers that were fitted."""
        columns = [c for c in ("run", "params", "tokens", "flops", "loss_nats") if c in self.table]
        text = "\n".join(
            "\t".join(str(v) if isinstance(v, str) else repr(float(v)) for v in row)
            for row in self.table[columns].itertuples(index=False)
        )
        return hashlib.sha256(text.encode()).hexdigest()


def usable(table: "pd.DataFrame", inputs: Sequence[str] = ("params", "tokens"), target: str = "loss_nats") -> Runs:
    """The rows with every input and the target finite and positive, without the held-out ones.

    Raises `UserError` where a column is missing or no row is left.
    """
    for name in (*inputs, target):
        if name not in table.columns:
            raise UserError(
                f"the table has no column {name!r}{nearest(name, map(str, table.columns))}; "
                f"name it with --columns, for example params=n_params"
            )
    table = table.copy()
    if "run" not in table:
        table["run"] = [f"row {index + 1}" for index in range(len(table))]
    dropped = [Dropped(str(item["run"]), str(item["reason"])) for item in table.attrs.get("dropped", [])]
    keep = np.ones(len(table), dtype=bool)

    def leave_out(bad: np.ndarray, reason: str) -> None:
        dropped.extend(Dropped(str(run), f"{reason}{why[run]}") for run in table["run"][keep & bad])
        keep[bad] = False

    # A sweep's table knows what became of a run that has no loss.
    why = dict.fromkeys(table["run"], "")

    if "held_out" in table:
        held = np.asarray(table["held_out"].fillna(False).astype(bool))
        leave_out(held, "held out to check the prediction")
    if "state" in table:
        told = table.reindex(columns=["run", "state", "reason"]).fillna("").astype(str)
        told = told.replace({"state": {"missing": "not run yet"}})
        why = {run: f": {state}{', ' * bool(reason)}{reason}" for run, state, reason in told.itertuples(index=False)}
    for name in (target, *inputs):
        values = np.asarray(table[name], dtype=float)
        leave_out(~np.isfinite(values), f"{name} is missing")
        leave_out(~(values > 0), f"{name} is not positive")
    kept = table[keep]
    if not len(kept):
        reasons = sorted({item.reason for item in dropped}) or ["the table is empty"]
        raise UserError(f"no run is left to fit ({'; '.join(reasons)}): check --where and --columns")
    missing = [item.run for item in dropped if item.reason.startswith(f"{target} is missing")]
    statuses = _table_statuses(kept, inputs, target)
    if missing:
        said = f"{len(missing)} of {len(table)} rows have no {target} (first: {', '.join(missing[:3])})"
        statuses.append(Status("cells missing", f"{said}: the design is not the one that was planned", "warning"))
    order = [name for name in (*inputs, target, "flops") if name in kept] + ["run"]
    kept = kept.sort_values(order, kind="stable").reset_index(drop=True)
    return Runs(kept, tuple(dropped), tuple(table.attrs.get("notes", ())), tuple(statuses))


def _table_statuses(table: "pd.DataFrame", inputs: Sequence[str], target: str) -> list[Status]:
    statuses = []
    mixed = [name for name in CONVENTIONS if name in table and table[name].nunique(dropna=True) > 1]
    for name in mixed:
        values = ", ".join(sorted(map(str, table[name].unique()))[:6])
        statuses.append(
            Status(
                "mixed conventions",
                f"the column {name!r} takes several values ({values}): one law is fitted "
                f"through runs that are not comparable; choose with --where \"{name} == '...'\"",
                "warning",
            )
        )
    repeated = table.duplicated([*inputs, target], keep=False)
    if repeated.any():
        count = int(table.duplicated([*inputs, target]).sum())
        first = ", ".join(map(str, table["run"][repeated][:4]))
        statuses.append(
            Status(
                "duplicate rows",
                f"{count} rows repeat the inputs and the loss of another exactly (first: {first}); "
                f"they are kept, and make intervals too narrow if they are one run",
                "warning",
            )
        )
    return statuses


def compute_model(table: "pd.DataFrame") -> tuple[ComputeModel, Status]:
    """The compute model of a table's own FLOPs.

    6ND where every row agrees within 1 %; else ln(C/D) is regressed on ln N. Without FLOPs: 6ND by convention.
    """
    if not {"flops", "params", "tokens"} <= set(table.columns):
        return SIX_ND, Status("compute model", "the table states no FLOPs; allocations take C = 6 N D", "note")
    flops, params, tokens = (np.asarray(table[name], dtype=float) for name in ("flops", "params", "tokens"))
    good = np.isfinite(flops) & (flops > 0)
    flops, params, tokens = flops[good], params[good], tokens[good]
    if not len(flops):
        return SIX_ND, Status("compute model", "the table states no FLOPs; allocations take C = 6 N D", "note")
    gap = np.abs(flops / (6 * params * tokens) - 1)
    if gap.max() <= 0.01:
        return SIX_ND, Status("compute model", f"C = 6 N D on every row (largest gap {100 * gap.max():.2g} %)")
    log_params, log_cost = np.log(params), np.log(flops / tokens)
    if np.ptp(log_params) < 1e-9:
        k = float(np.exp(log_cost.mean()))
        return (
            ComputeModel(k / float(params[0]) ** 1.0, 1.0, float(np.abs(np.expm1(log_cost - log_cost.mean())).max())),
            Status("compute model", "every run has one model size: FLOPs are taken proportional to N D", "note"),
        )
    slope, intercept = np.polyfit(log_params, log_cost, 1)
    worst = float(np.abs(np.expm1(log_cost - intercept - slope * log_params)).max())
    model = ComputeModel(float(np.exp(intercept)), float(slope), worst)
    mixed = worst > 0.1
    sentence = f"the table's FLOPs are not 6 N D (up to {100 * gap.max():.3g} % apart); allocations take {model}"
    if mixed:
        sentence += "; a misfit this large means that rows count N or C in different ways"
    return model, Status("compute model", sentence, "warning" if mixed else "note")


def resample_counts(
    rng: np.random.Generator, runs: int, resamples: int, strata: Any = None, clusters: Any = None
) -> np.ndarray:
    """How often each run enters each bootstrap resample: whole numbers as float64, (n, R).

    `clusters` (n,) labels runs that share their noise (branches of one trunk, seeds of one cell) and are drawn
    together; `strata` (n,) labels groups whose size every resample keeps (a compute budget).
    """
    cluster = np.arange(runs) if clusters is None else _codes(clusters)
    stratum = np.zeros(runs, dtype=int) if strata is None else _codes(strata)
    counts = np.zeros((runs, resamples))
    for value in np.unique(stratum):
        members = np.unique(cluster[stratum == value])
        drawn = (
            rng.integers(0, len(members), size=(resamples, len(members))) + len(members) * np.arange(resamples)[:, None]
        )
        by_cluster = np.zeros((int(cluster.max()) + 1, resamples))
        by_cluster[members] = (
            np.bincount(drawn.reshape(-1), minlength=resamples * len(members)).reshape(resamples, -1).T
        )
        inside = stratum == value
        counts[inside] = by_cluster[cluster[inside]]
    return counts


def _codes(labels: Any) -> np.ndarray:
    return np.unique(np.asarray(labels).astype(str), return_inverse=True)[1].reshape(-1)
