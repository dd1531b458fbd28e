"""Curves from checked rows of scores: one per task, metric and setting, over one axis, with its noise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.emergence.likelihood import NoiseKind
from lmscale.study.emergence.scores import refuse
from lmscale.study.grouping import group_values

if TYPE_CHECKING:
    import pandas as pd

Axis = Literal["params", "flops", "loss", "x"]
AXES: tuple[Axis, ...] = ("params", "flops", "loss", "x")
RHO = 0.003
"""Intra-class correlation of a scale's answers, assumed where no seeds show it: models of one size differ by this."""
FEWEST = 5
"""Scales below which no shape can be told from another."""
SEED_FREEDOM = 10
"""Seeds beyond the first, over all scales, from which rho is estimated rather than assumed."""

SETTINGS = ("family", "shots", "subtask")


@dataclass(frozen=True)
class Curve:
    """One score against one axis; arrays (S,) from the weakest to the strongest model."""

    task: str
    metric: str
    kind: str
    axis: Axis
    x_S: np.ndarray
    score_S: np.ndarray
    n_S: np.ndarray
    """Examples, seeds together; NaN for graded metrics without n."""
    weight_S: np.ndarray
    """n_eff for hard metrics; 1/variance for graded ones, all 1 where no standard error is known."""
    noise: NoiseKind
    noise_known: bool
    chance: float
    """NaN where a graded metric has none."""
    ceiling: float
    better: int
    """1 where a higher score is better, -1 where a lower one is."""
    setting: Mapping[str, str] = field(default_factory=dict)
    runs_S: tuple[tuple[str, ...], ...] = ()
    """The runs of every scale, seeds together; empty where the rows name none."""

    @property
    def name(self) -> str:
        """Task and setting in words."""
        return ", ".join([self.task, *(f"{key} {value}" for key, value in self.setting.items())])

    @property
    def u_S(self) -> np.ndarray:
        """Position on the measured range, 0 to 1: by logarithm, or by minus the loss."""
        position_S = axis_position(self.x_S, self.axis)
        return (position_S - position_S[0]) / (position_S[-1] - position_S[0])

    def at(self, u: float) -> float:
        """The value of the axis at position `u`."""
        first, last = axis_position(self.x_S[[0, -1]], self.axis)
        value = first + u * (last - first)
        return float(-value if self.axis == "loss" else 10.0**value)


def axis_position(x: np.ndarray, axis: str) -> np.ndarray:
    """What grows evenly along the axis: log10 of sizes and FLOPs, minus a loss."""
    return -np.asarray(x, float) if axis == "loss" else np.log10(x)


def axes_of(rows: "pd.DataFrame") -> list[Axis]:
    """The axes along which the table has values."""
    return [axis for axis in AXES if axis in rows and rows[axis].notna().any()]


def curves_along(rows: "pd.DataFrame", axis: Axis, rho: float | None = None) -> tuple[list[Curve], float, list[str]]:
    """The curves of canonical `rows` along `axis`, the over-dispersion assumed, and what a reader should know.

    Sizes and FLOPs within about a per cent are one scale (`grouping.py`).
    `rho` unset is estimated from seeds, where there are enough of them, else `RHO`. Curves of fewer than `FEWEST`
    scales are left out, and a note names them. Raises `UserError` for an axis that is absent or not positive, for two
    rows of one scale that are no seeds, and where no curve is left.
    """
    if axis not in rows or not rows[axis].notna().any():
        others = ", ".join(axes_of(rows)) or "no axis at all"
        raise UserError(f"the table has no values of {axis!r}: it has {others}")
    notes = []
    if (absent := int(rows[axis].isna().sum())) > 0:
        notes.append(f"{absent} of {len(rows)} rows state no {axis} and are left out")
        rows = rows[rows[axis].notna()]
    refuse(rows, ~(rows[axis] > 0) | ~np.isfinite(rows[axis]), axis, "an axis of scales is positive and finite")
    settings = [name for name in SETTINGS if name in rows and rows[name].nunique(dropna=False) > 1]
    keys = ["task", "metric", "kind", *settings]
    # as text, so that a setting that some rows lack is one more value of it
    rows = rows.assign(**{name: rows[name].map(_text) for name in (*settings, "task", "metric")})
    if axis != "loss":  # a loss is measured, and another one at any difference
        rows = rows.assign(**{axis: group_values(rows[axis])})
    most = rows.groupby(keys)[axis].nunique().max()
    if most < FEWEST:
        raise UserError(
            f"no task is measured at {FEWEST} or more different values of {axis} (the most is {most}; values within "
            f"about 1 % are one): with fewer no rise can be told from a line; score more models"
        )
    _check_repeats(rows, [*keys, axis], axis)
    rho_assumed, note = _dispersion(rows, [*keys, axis]) if rho is None else (rho, None)
    notes += [note] if note else []
    curves: list[Curve] = []
    short: list[str] = []
    for values, group in rows.groupby(keys, sort=False):
        if group[axis].nunique() < FEWEST:
            short.append(f"{values[0]} ({values[1]})")
        else:
            setting = {name: str(value) for name, value in zip(settings, values[3:]) if value}
            curves.append(_curve(group, axis, rho_assumed, setting))
    if short:
        more = f" and {len(short) - 5} more" if len(short) > 5 else ""
        notes.append(f"left out, fewer than {FEWEST} scales: {', '.join(short[:5])}{more}")
    return curves, rho_assumed, notes


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_repeats(rows: "pd.DataFrame", keys: list[str], axis: str) -> None:
    seeds = [*keys, "seed"] if "seed" in rows else keys
    twice = rows.duplicated(seeds, keep=False)
    if twice.any():
        row = rows[twice].iloc[0]
        same = int((rows[seeds] == row[seeds]).all(axis=1).sum())
        raise UserError(
            f"task {row['task']!r}, metric {row['metric']!r} has {same} rows at {axis} = {row[axis]:.6g}: a scale has "
            f"one row, or one row per seed in a column 'seed'; keep one with `where`, or choose another axis"
        )


def _dispersion(rows: "pd.DataFrame", keys: list[str]) -> tuple[float, str | None]:
    """Rho by the method of moments from seeds of one scale, pooled over the table; `RHO` where they are too few."""
    counted = rows[(rows["kind"] == "hard") & rows["n"].notna()]
    grouped = counted.groupby(keys)
    mean = counted["score"] * counted["n"]
    pooled = mean.groupby([counted[key] for key in keys]).transform("sum") / grouped["n"].transform("sum")
    spread = pooled * (1 - pooled)
    use = (grouped["score"].transform("size") > 1) & (spread > 0)
    if not use.any():
        return RHO, None
    freedom = int(use.sum()) - counted[use].groupby(keys).ngroups
    if freedom < SEED_FREEDOM:
        return RHO, f"{freedom} seeds beyond the first are too few to estimate rho: {RHO} is assumed"
    chi2 = float((counted["n"] * (counted["score"] - pooled) ** 2 / spread)[use].sum())
    n = float(counted["n"][use].mean())
    rho = max(0.0, (chi2 / freedom - 1) / (n - 1))
    return rho, f"rho = {rho:.4f} is estimated from {freedom} seeds beyond the first, pooled over the table"


def _curve(group: "pd.DataFrame", axis: Axis, rho: float, setting: Mapping[str, str]) -> Curve:
    """One curve: seeds of a scale pooled, scales sorted from the weakest to the strongest model."""
    first = group.iloc[0]
    hard = first["kind"] == "hard"
    if group["chance"].nunique() > 1 or group["higher_is_better"].nunique() > 1:
        raise UserError(
            f"task {first['task']!r}, metric {first['metric']!r} has several values of chance or of higher_is_better: "
            f"a metric of a task has one; name what differs in family, shots or subtask"
        )
    x = group[axis].to_numpy(float)
    score, n, stderr = (group[name].to_numpy(float) for name in ("score", "n", "stderr"))
    known = True
    if hard:
        if np.isnan(n).any():  # what the standard errors imply, one n for the task: they say nothing at 0 and at 1
            stated = (stderr > 0) & (score > 0) & (score < 1)
            if not stated.any():
                raise UserError(
                    f"task {first['task']!r}, metric {first['metric']!r} has no n, and none of its standard errors is "
                    f"positive: give n"
                )
            n = np.where(np.isnan(n), max(2.0, np.median((score * (1 - score))[stated] / stderr[stated] ** 2)), n)
        weight = n / (1 + (n - 1) * rho)
    else:
        known = bool((stderr > 0).all())
        weight = stderr**-2.0 if known else np.ones(len(x))
    x_S, scale_of = np.unique(x, return_inverse=True)
    weight_S = np.bincount(scale_of, weight)
    score_S = np.bincount(scale_of, (n if hard else weight) * score) / np.bincount(scale_of, n if hard else weight)
    order = np.argsort(axis_position(x_S, axis))
    return Curve(
        task=str(first["task"]), metric=str(first["metric"]), kind=str(first["kind"]), axis=axis,
        x_S=x_S[order], score_S=score_S[order], n_S=np.bincount(scale_of, n)[order], weight_S=weight_S[order],
        noise="binomial" if hard else "gaussian", noise_known=known, chance=float(first["chance"]),
        ceiling=float(first["ceiling"]), better=-1 if first["higher_is_better"] == 0 else 1, setting=setting,
        runs_S=_runs(group, scale_of, order),
    )  # fmt: skip


def _runs(group: "pd.DataFrame", scale_of: np.ndarray, order: np.ndarray) -> tuple[tuple[str, ...], ...]:
    """The runs of every scale in the order of the curve; nothing where a row names none."""
    if "run_id" not in group or group["run_id"].isna().any():
        return ()
    runs = group["run_id"].astype(str).to_numpy()
    return tuple(tuple(dict.fromkeys(runs[scale_of == scale].tolist())) for scale in order)
