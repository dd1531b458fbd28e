"""Do all rows count N, D, C and the loss in one way? Judged by the names of columns and by arithmetic."""

import functools
from typing import TYPE_CHECKING

import numpy as np

from lmscale.study.fits.results.common import Status
from lmscale.study.laws import SIX_ND

if TYPE_CHECKING:
    import pandas as pd

# Columns whose values name a convention of counting or measuring.
NAMED = (
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
LEAST = 0.02  # counts that differ by less are rounding
APART = 3.0  # two groups are two when the gap between them is this many times the wider one
JUMP = 0.05  # relative: a ratio that leaves its neighbours' by more is not smooth in N
JUMPING = (5, 0.4)  # rows, and share of rows, that must jump
ENOUGH = 2  # rows of the smaller group: one alone is a typing error, and still named by the compute model's misfit
SIZES = 3  # model sizes of a group that shares none with the other: fewer may lie off a line by their shapes
MOST_ROWS = 1000  # beyond, every k-th row is looked at


def mixed(table: "pd.DataFrame") -> list[Status]:
    """A warning for every sign that the rows of a table follow more than one convention."""
    return [*_by_name(table), *_by_arithmetic(table)]


def _by_name(table: "pd.DataFrame") -> list[Status]:
    statuses = []
    for name in NAMED:
        if name in table and table[name].nunique(dropna=True) > 1:
            values = ", ".join(sorted(map(str, table[name].unique()))[:6])
            sentence = (
                f"the column {name!r} takes several values ({values}): one law is fitted "
                f"through runs that are not comparable; choose with `where=\"{name} == '...'\"`"
            )
            statuses.append(Status("mixed conventions", sentence, "warning"))
    return statuses


def _by_arithmetic(table: "pd.DataFrame") -> list[Status]:
    """Ratios that one convention makes constant, or smooth in N: two groups of them are two conventions."""
    has = set(map(str, table.columns))
    statuses = []
    if {"params", "tokens"} <= has:
        cost = SIX_ND.flops(_numbers(table, "params"), _numbers(table, "tokens"))
        for name, label in (("flops", "C"), ("flops_budget", "the budget")):
            if name in has:
                statuses += _two_groups(table, _numbers(table, name) / cost, f"{label}/(6 N D)")
    width = next((name for name in ("width", "d_model", "hidden_size") if name in has), None)
    layers = next((name for name in ("layers", "n_layers", "num_layers") if name in has), None)
    if "params" in has and width and layers:
        statuses += _against_shape(table, width, layers)
    statuses += _another_count(table, has)
    return statuses[:1]


def _against_shape(table: "pd.DataFrame", width: str, layers: str) -> list[Status]:
    """N against 12 layers width^2, the matrices of the layers; not where one token table explains the rest."""
    params, width_ = _numbers(table, "params"), _numbers(table, width)
    body = 12 * _numbers(table, layers) * width_**2
    body[~(body > 0)] = np.nan
    vocab = (params - body) / width_
    if np.isfinite(vocab).any() and (typical := float(np.nanmedian(vocab))) > 0:
        whole = np.log(params / (body + typical * width_))
        if np.nanmax(whole) - np.nanmin(whole) < JUMP:
            return []
    return _two_groups(table, params / body, f"N/(12 {layers} {width}^2)")


def _numbers(table: "pd.DataFrame", name: str) -> np.ndarray:
    import pandas as pd

    return np.asarray(pd.to_numeric(table[name], errors="coerce"), dtype=float)


def _two_groups(table: "pd.DataFrame", ratio: np.ndarray, label: str) -> list[Status]:
    """Does ln `ratio`, less a straight line in ln N, fall into two groups with a wide gap, or jump from size to size?

    The line is Theil's (1950; medians of pairwise slopes), which a minority of rows does not bend.
    """
    good = np.flatnonzero(np.isfinite(ratio) & (ratio > 0))
    good = good[:: max(1, len(good) // MOST_ROWS)]
    if len(good) < 2 * ENOUGH + 1:
        return []
    x, y = np.log(_numbers(table, "params")[good]), np.log(ratio[good])
    slope = _theil_slope(x.tobytes(), y.tobytes())
    for tilt in (slope, 0.0):  # two equal groups may tilt the line itself
        rest = y - tilt * x
        order = np.argsort(rest, kind="stable")
        steps = np.diff(rest[order])
        cut = int(steps.argmax())
        low, high = order[: cut + 1], order[cut + 1 :]
        widest = max(float(np.ptp(rest[low])), float(np.ptp(rest[high])))
        apart_enough = steps[cut] > max(LEAST, APART * widest)
        if min(len(low), len(high)) >= ENOUGH and apart_enough and not _few_sizes(x[low], x[high]):
            few = low if len(low) < len(high) else high
            names = ", ".join(map(str, table["run"].iloc[good[np.sort(few)[:3]]]))
            sentence = (
                f"{label} falls into two groups, near {np.exp(np.median(y[low])):.3g} ({len(low)} runs) and near "
                f"{np.exp(np.median(y[high])):.3g} ({len(high)} runs; the smaller group begins with {names}): "
                f"rows seem to count N, D or C in two ways; fit each group alone"
            )
            return [Status("mixed conventions", sentence, "warning")]
    # A budget is a plan's round number, which whole models and batches meet to some per cent: it may jump.
    return [] if "budget" in label else _jumps(table["run"].iloc[good], x, y, label)


@functools.lru_cache(maxsize=8)
def _theil_slope(x: bytes, y: bytes) -> float:
    """The slope of y over x; every approach asks for that of the same half a million pairs."""
    x_n, y_n = np.frombuffer(x), np.frombuffer(y)
    first, second = np.triu_indices(len(x_n), 1)
    run = x_n[second] - x_n[first]
    apart = np.abs(run) > 1e-6
    return float(np.median((y_n[second] - y_n[first])[apart] / run[apart])) if apart.any() else 0.0


def _few_sizes(low: np.ndarray, high: np.ndarray) -> bool:
    """Whether no size is in both groups, and one group has too few sizes to show that its ratio is smooth in N."""
    sizes = [set(np.round(group, 3)) for group in (low, high)]
    return sizes[0].isdisjoint(sizes[1]) and min(map(len, sizes)) < SIZES


def _jumps(names: "pd.Series[str]", x: np.ndarray, y: np.ndarray, label: str) -> list[Status]:
    """Counts that differ by a share that itself depends on N (an embedding) give no constant gap, but a zigzag."""
    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    width = x[2:] - x[:-2]
    share = np.where(width > 0, (x[1:-1] - x[:-2]) / np.where(width > 0, width, 1), 0.5)
    off = np.abs(y[1:-1] - (1 - share) * y[:-2] - share * y[2:])
    count = int((off > JUMP).sum())
    if count < JUMPING[0] or count < JUMPING[1] * len(x):
        return []
    worst = int(off.argmax())
    most = f"most in {names.iloc[order[worst + 1]]}, {np.expm1(off[worst]):.0%}"
    sentence = (
        f"{label} jumps from size to size, in {count} of {len(x)} runs by more than {JUMP:.0%} ({most}): "
        f"rows seem to count N, D or C in two ways"
    )
    return [Status("mixed conventions", sentence, "warning")]


def _another_count(table: "pd.DataFrame", has: set[str]) -> list[Status]:
    """N that equals another count of the table in some rows and not in others."""
    for name in sorted(has):
        if "params" in has and name != "params" and name.removeprefix("n_").startswith("params_"):
            same = np.isclose(_numbers(table, "params"), _numbers(table, name), rtol=1e-6)
            known = np.isfinite(_numbers(table, name))
            if ENOUGH <= same.sum() < known.sum():
                sentence = f"N equals {name} in {int(same.sum())} of {int(known.sum())} rows and differs in the others"
                return [Status("mixed conventions", f"{sentence}: rows count N in two ways", "warning")]
    return []
