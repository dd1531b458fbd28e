"""The runs of several sides at one point: a size, a length, and whatever else one of the sides varies there.

Where a point was run at several learning rates (and batches), it is known by its best, and the rates beside that say
how well the best is known. Runs of one rate are seeds: what they scatter by is the noise of a difference of two sides.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.study.grouping import group_index, point_index
from lmscale.study.plots.transfer import best_rate
from lmscale.study.report.comparison.laws import Stated
from lmscale.study.report.comparison.sides import Side, Unit
from lmscale.study.report.kinds import APART
from lmscale.study.report.studies import tried_runs

if TYPE_CHECKING:
    import pandas as pd

SIZES = ("params", "params_non_embedding")
"""Columns by which sizes of several sides are matched: vocabularies that differ move all parameters, not the others."""
SETTINGS = (
    "passes", "context", "parametrization", "layers", "width", "heads", "experts", "experts_per_token", "granularity",
    "vocab", "source", "lora_rank", "schedule", "batch_tokens",
)  # fmt: skip
"""Columns that tell points of one size and length apart, where a side varies them there."""
FRESH = 1.03
"""Passes over the text up to which a run sees nothing twice."""
LEAST_POINTS = 3
"""Points from which their differences show a scatter, where no seeds do."""


@dataclass(frozen=True)
class Measured:
    """What one side measured at a point."""

    loss_nats: float
    """The mean over the seeds of the best rate and batch."""
    runs: tuple[str, ...]
    """The runs of that rate and batch."""
    rate: float | None = None
    """The best rate, None where one was tried."""
    bracket: tuple[float, float] = (math.nan, math.nan)
    """The rates tried on both sides of the best; 0 or infinity where it is at the edge of them."""


@dataclass(frozen=True)
class Point:
    """A size and length, the settings that tell it from others, and what every side measured; None for one that ran
    nothing there."""

    coordinates: tuple[tuple[str, Any], ...]
    sides: tuple[Measured | None, ...]


@dataclass(frozen=True)
class SeedNoise:
    """The standard deviation of one run about the mean of its seeds, and its degrees of freedom; NaN without seeds."""

    sd: float
    freedom: int


def common_points(sides: Sequence[Side]) -> list[Point]:
    """The points at which the first side and another one have runs, by rising size and length."""
    for size in SIZES:
        if points := _points(sides, size):
            return points
    return []


def _points(sides: Sequence[Side], size: str) -> list[Point]:
    import pandas as pd

    tables = [_tried(side) for side in sides]
    if not all(size in table for table in tables):
        return []
    rows = pd.concat([table.assign(side=index) for index, table in enumerate(tables)], ignore_index=True)
    names = [size, _length(tables)]
    key_n = point_index({name: group_index(rows[name].astype(float), APART) for name in names})
    for name in SETTINGS:
        split_n = _split(rows, key_n, name)
        if split_n is not None:
            names.append(name)
            key_n = split_n
    points = []
    for _, group in rows.groupby(key_n, sort=False):
        measured = [_measured(group[group["side"] == index]) for index in range(len(sides))]
        if measured[0] is not None and any(one is not None for one in measured[1:]):
            known = group[group["loss_nats"].notna()].iloc[0]
            points.append(Point(tuple((name, known[name]) for name in names), tuple(measured)))
    return sorted(points, key=lambda point: tuple(str(value) if isinstance(value, str) else value
                                                  for _, value in point.coordinates[:2]))  # fmt: skip


def _tried(side: Side) -> "pd.DataFrame":
    """The side's measured runs, and those that diverged, whose rates were tried and are worse."""
    rows = tried_runs(side.table.reset_index(drop=True))
    if "loss_nats" in rows:
        rows = rows.assign(loss_nats=rows["loss_nats"].replace(math.inf, math.nan))
    if "unique_tokens" in rows:
        passes = rows["tokens"].astype(float) / rows["unique_tokens"].astype(float)
        rows = rows.assign(passes=passes.where(passes > FRESH, 1.0).round(2))
    return rows


def _length(tables: "Sequence[pd.DataFrame]") -> str:
    """The budget where every run of every side states one, else the training tokens."""
    stated = all("flops_budget" in table and table["flops_budget"].notna().all() for table in tables)
    return "flops_budget" if stated else "tokens"


def _split(rows: "pd.DataFrame", key_n: np.ndarray, name: str) -> np.ndarray | None:
    """The points with a further setting, where it differs between runs of one point and side; None where it does not.

    A batch that is tuned along with the rate tells no points apart.
    """
    if name not in rows or rows[name].isna().any():
        return None
    by = [key_n, rows["side"]]
    if name == "batch_tokens" and "peak_lr" in rows and (rows.groupby(by)["peak_lr"].nunique() > 1).any():
        return None
    if not (rows.groupby(by)[name].nunique() > 1).any():
        return None
    return point_index({"point": key_n, name: rows[name]})


def _measured(rows: "pd.DataFrame") -> Measured | None:
    """The best rate and batch of a side's runs at one point; None without a loss."""
    known = rows[rows["loss_nats"].notna()]
    if not len(known):
        return None
    by = [name for name in ("peak_lr", "batch_tokens") if name in known and known[name].notna().all()]
    group_n = point_index({name: known[name] for name in by}) if by else np.zeros(len(known), dtype=int)
    means = known["loss_nats"].astype(float).groupby(group_n).mean()
    best = known[group_n == means.idxmin()]
    runs = tuple(str(run) for run in best["run"])
    if "peak_lr" not in by:
        return Measured(float(means.min()), runs)
    tried = np.unique(rows["peak_lr"].dropna().astype(float))
    if len(tried) < 2:
        return Measured(float(means.min()), runs)
    lowest = means.groupby(known["peak_lr"].astype(float).groupby(group_n).first()).min()
    return Measured(float(means.min()), runs, *_best(tried, lowest))


def _best(tried: np.ndarray, lowest: "pd.Series") -> tuple[float, tuple[float, float]]:
    """The best rate, and the rates tried below and above it: 0 and infinity where there is none."""
    losses = [float(lowest.get(rate, math.inf)) for rate in tried]
    place = int(np.argmin(losses))
    below = float(tried[place - 1]) if place else 0.0
    above = float(tried[place + 1]) if place + 1 < len(tried) else math.inf
    rate = best_rate(lowest.index.tolist(), lowest.tolist()).rate if len(lowest) > 1 else float(tried[place])
    return rate, (min(below, rate), max(above, rate))


def rate_change(first: Measured, other: Measured) -> Stated | None:
    """The other's best rate over the first's, and between what the rates tried let it lie; None without rates."""
    if first.rate is None or other.rate is None:
        return None
    (low, high), (other_low, other_high) = first.bracket, other.bracket
    return Stated(other.rate / first.rate, (other_low / high, other_high / low if low else math.inf))


def seed_noise(sides: Sequence[Side], unit: Unit) -> SeedNoise:
    """The noise of one run, pooled over every rate of every point of the sides, in the unit of the comparison.

    Runs that have their seed in common differ in something else, and show no noise.
    """
    squares, freedom = 0.0, 0
    for side, factor in zip(sides, unit.factors):
        for losses in _seeds(side):
            squares += float(((factor * losses - factor * losses.mean()) ** 2).sum())
            freedom += len(losses) - 1
    return SeedNoise(math.sqrt(squares / freedom), freedom) if freedom and squares else SeedNoise(math.nan, 0)


def _seeds(side: Side) -> Iterator[np.ndarray]:
    """The losses of every group of runs that differ in their seed alone."""
    runs = _tried(side)
    runs = runs[runs["loss_nats"].notna()]
    if "seed" not in runs or runs["seed"].isna().any():
        return
    by = [name for name in ("params", "tokens", "peak_lr", *SETTINGS) if name in runs]
    for _, group in runs.groupby(point_index({name: runs[name] for name in by})):
        if len(group) > 1 and not group["seed"].duplicated().any():
            yield group["loss_nats"].to_numpy(dtype=float)


def loss_change(
    first: Measured, other: Measured, factors: tuple[float, float], noise: SeedNoise, level: float = 0.95
) -> Stated:
    """The other's loss less the first's, with Student's interval of the noise of seeds."""
    value = factors[1] * other.loss_nats - factors[0] * first.loss_nats
    variance = noise.sd**2 * (1 / len(first.runs) + 1 / len(other.runs))
    return _student(value, math.sqrt(variance), noise.freedom, level)


def mean_change(
    points: Sequence[Point], other: int, factors: tuple[float, float], noise: SeedNoise, level: float = 0.95
) -> tuple[Stated, str]:
    """The mean change of the loss over the points of both, and what its interval is of: "the noise of seeds", where
    seeds show it; "the scatter of the points", where there are `LEAST_POINTS`; "" without an interval."""
    both = [(first, one) for point in points if (first := point.sides[0]) and (one := point.sides[other])]
    changes = np.array([loss_change(first, one, factors, noise).value for first, one in both])
    if noise.freedom:
        variance = noise.sd**2 * sum(1 / len(first.runs) + 1 / len(one.runs) for first, one in both) / len(both) ** 2
        return _student(float(changes.mean()), math.sqrt(variance), noise.freedom, level), "the noise of seeds"
    if len(both) < LEAST_POINTS or not np.ptp(changes):
        return Stated(float(changes.mean())), ""
    error = float(np.std(changes, ddof=1)) / math.sqrt(len(both))
    return _student(float(changes.mean()), error, len(both) - 1, level), "the scatter of the points"


def _student(value: float, error: float, freedom: int, level: float) -> Stated:
    from scipy.special import stdtrit  # `scipy.stats` takes a second to import

    if not freedom or not math.isfinite(error):
        return Stated(value)
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    return Stated(value, (value - half, value + half))


def noise_ratio(first: SeedNoise, other: SeedNoise, level: float = 0.95) -> Stated | None:
    """The other's standard deviation between seeds over the first's, with the interval of Fisher's F; None without
    seeds on both sides."""
    from scipy.special import fdtri

    if not first.freedom or not other.freedom:
        return None
    ratio = other.sd / first.sd
    low, high = (float(fdtri(other.freedom, first.freedom, p)) for p in ((1 + level) / 2, (1 - level) / 2))
    return Stated(ratio, (ratio / math.sqrt(low), ratio / math.sqrt(high)))
