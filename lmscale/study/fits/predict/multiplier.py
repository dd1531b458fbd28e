"""How much compute does one recipe save over another? Effective compute at equal loss, from two L(C) ladders."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.arguments import Natural, Number, Positive, checked
from lmscale.core.errors import UserError
from lmscale.core.quantities import counted
from lmscale.study.fits.options import read
from lmscale.study.fits.results.common import LEVELS, Status, clean, percentiles, span, status_lines
from lmscale.study.fits.results.notebook import Printed
from lmscale.study.fits.runs import usable
from lmscale.study.grouping import group_count, group_index
from lmscale.study.laws import ComputeLaw
from lmscale.study.tables import TableSource

if TYPE_CHECKING:
    import pandas as pd


ASYMPTOTES = 300  # values of E that are scanned


@dataclass(frozen=True)
class Ratio:
    """At `loss_nats` the recipe needs `multiplier` times less compute than the baseline."""

    loss_nats: float
    multiplier: float
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class ComputeMultiplier(Printed):
    """Baseline and recipe as L(C) laws, and their compute ratio over the losses both reached."""

    baseline: ComputeLaw
    recipe: ComputeLaw
    ratios: tuple[Ratio, ...]
    """From the highest loss both reached to the lowest; the last one is the number to quote."""
    scatter_nats: tuple[float, float]
    """Scatter of the ladders' points about their laws, per degree of freedom: the interval's only source."""
    asymptote: str
    status: tuple[Status, ...]

    @property
    def multiplier(self) -> Ratio:
        """The ratio at the lowest common loss."""
        return self.ratios[-1]

    def to_json(self) -> dict[str, Any]:
        return clean(
            {
                "baseline": self.baseline.values(),
                "recipe": self.recipe.values(),
                "asymptote": self.asymptote,
                "ratios": [r.__dict__ for r in self.ratios],
                "scatter_nats": list(self.scatter_nats),
                "status": [s.to_json() for s in self.status],
            }
        )

    def __str__(self) -> str:
        lines = [
            f"Effective compute multiplier, {self.asymptote}",
            f"  baseline {self.baseline}",
            f"  recipe   {self.recipe}",
        ]
        for r in self.ratios:
            intervals = " ".join(
                f" {100 * float(level):g} % {span(pair, '.3g')}" for level, pair in r.intervals.items()
            )
            lines.append(f"  at {r.loss_nats:.4f} nats: x{r.multiplier:.3f} {intervals}")
        return "\n".join([*lines, *status_lines(self.status)])


@checked
def compute_multiplier(
    baseline: TableSource,
    recipe: TableSource,
    *,
    asymptote: Number | str = "shared",
    resamples: Natural = 2000,
    seed: Natural = 0,
    losses: Sequence[Positive] | None = None,
) -> ComputeMultiplier:
    """Fit L = E + A (C/1e18)^-gamma to each ladder and divide their compute at equal loss.

    Each table holds one ladder: rows with `flops` and `loss_nats`, one recipe, best size per budget (the lowest loss of
    rows that share a `flops_budget` is taken). `asymptote` is "shared" (one E for both), "free" (each its own), or a
    number of nats. Intervals redraw the points from their scatter about the laws: lack of fit widens them.

    Raises `UserError` where a ladder has fewer than three budgets, or the ladders share no loss.
    """
    ladders = [_ladder(read(table), name) for table, name in ((baseline, "baseline"), (recipe, "recipe"))]
    low, high = max(y.min() for _, y in ladders), min(y.max() for _, y in ladders)
    _check_ladders(ladders, asymptote, low, high)
    parameters = [float(value[0]) for value in _fit([(x, y[:, None]) for x, y in ladders], asymptote)]
    laws = [ComputeLaw(*parameters[:3]), ComputeLaw(*parameters[3:])]
    rng = np.random.default_rng(seed)
    unknowns = 2 if isinstance(asymptote, int | float) else 2.5 if asymptote == "shared" else 3
    scatter, drawn = zip(*(_redrawn(*ladder, law, unknowns, resamples, rng) for ladder, law in zip(ladders, laws)))
    positive = np.all([(y > 0).all(axis=0) for _, y in drawn], axis=0)  # as in `seed_noise`
    sampled = _fit([(x, y[:, positive]) for x, y in drawn], asymptote)
    stated = np.linspace(high, low, 5) if losses is None else np.asarray(losses, dtype=float)
    ratios = []
    for loss in stated:
        value = float(laws[0].flops(loss) / laws[1].flops(loss))
        many = ComputeLaw(*sampled[:3]).flops(loss) / ComputeLaw(*sampled[3:]).flops(loss)
        ratios.append(Ratio(float(loss), value, {f"{level:g}": percentiles(many, level) for level in LEVELS}))
    label = f"asymptote {asymptote}" if isinstance(asymptote, str) else f"asymptote pinned at {asymptote:g} nats"
    statuses = [*_statuses(ladders, ratios, low, high), *_lost(positive)]
    return ComputeMultiplier(laws[0], laws[1], tuple(ratios), (scatter[0], scatter[1]), label, tuple(statuses))


def _check_ladders(
    ladders: Sequence[tuple[np.ndarray, np.ndarray]], asymptote: Number | str, low: float, high: float
) -> None:
    """Raise `UserError` where the ladders share no loss between `low` and `high`, or for an asymptote that none has."""
    if isinstance(asymptote, str) and asymptote not in ("shared", "free"):
        raise UserError(f"asymptote = {asymptote!r}: 'shared', 'free' or a number of nats")
    if low >= high:
        raise UserError(
            f"the ladders share no loss (baseline {ladders[0][1].min():.3f}-{ladders[0][1].max():.3f}, recipe "
            f"{ladders[1][1].min():.3f}-{ladders[1][1].max():.3f} nats): extend one until they overlap"
        )
    floor = min(float(y.min()) for _, y in ladders)
    if isinstance(asymptote, int | float) and not 0 <= asymptote < floor:
        raise UserError(f"asymptote = {asymptote}: it must lie between 0 and the lowest loss, {floor:.4f} nats")


def _redrawn(
    x: np.ndarray, y: np.ndarray, law: ComputeLaw, unknowns: float, resamples: int, rng: np.random.Generator
) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """The scatter of a ladder's points about its law in nats; ln C (n,) and losses (n, resamples) drawn with it."""
    fitted = np.asarray(law.loss(np.exp(x)))
    sd = math.sqrt(float(np.sum((y - fitted) ** 2)) / max(0.5, len(y) - unknowns))
    # A scatter from few points is itself uncertain: its chi-square spread widens the draws as Student's t would.
    freedom = max(1.0, len(y) - unknowns)
    spread = sd * np.sqrt(freedom / rng.chisquare(freedom, size=resamples))
    return sd, (x, fitted[:, None] + spread * rng.standard_normal((len(y), resamples)))


def _ladder(table: "pd.DataFrame", name: str) -> tuple[np.ndarray, np.ndarray]:
    for column in ("flops", "loss_nats"):
        if column not in table:
            raise UserError(f"the {name} ladder has no column {column!r}")
    rows = usable(table, ("flops",), rates="all").table
    if "flops_budget" in rows and rows["flops_budget"].notna().all():
        rows = rows.loc[rows.groupby(group_index(rows["flops_budget"]))["loss_nats"].idxmin()]
    rows = rows.sort_values("flops")
    if (budgets := group_count(rows["flops"])) < 3:
        raise UserError(f"the {name} ladder has {counted(budgets, 'budget')}; L(C) needs at least 3")
    return np.log(np.asarray(rows["flops"], dtype=float)), np.asarray(rows["loss_nats"], dtype=float)


def _fit(ladders: Sequence[tuple[np.ndarray, np.ndarray]], asymptote: float | str) -> list[np.ndarray]:
    """[E, A, gamma] of each ladder in a row, each (r,). For a given E, ln(L - E) is a straight line in ln C."""
    lowest = [y.min(axis=0) for _, y in ladders]
    results = []
    if asymptote == "shared":
        grid = _grid(np.minimum(*lowest))
        parts = [_lines(x, y, grid) for x, y in ladders]
        best = [(parts[0][2] + parts[1][2]).argmin(axis=0)] * 2
        results = [(grid, part, chosen) for part, chosen in zip(parts, best)]
    else:
        for (x, y), low in zip(ladders, lowest):
            grid = _grid(low) if asymptote == "free" else np.minimum(float(asymptote), 0.9999 * low)[None]
            part = _lines(x, y, grid)
            results.append((grid, part, part[2].argmin(axis=0)))
    out: list[np.ndarray] = []
    for grid, (slope, level, _), chosen in results:
        columns = np.arange(grid.shape[1])
        gamma, height = -slope[chosen, columns], np.exp(level[chosen, columns])
        out += [grid[chosen, columns], height, gamma]
    return out


def _grid(lowest: np.ndarray) -> np.ndarray:
    """Candidate asymptotes (e, r), denser towards the lowest loss."""
    share = 1 - np.geomspace(1e-3, 1.0, ASYMPTOTES)
    return share[:, None] * lowest[None]


def _lines(x: np.ndarray, y: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, height at 1e18 and sum of squared residuals, each (e, r); weights make the residuals those of L."""
    above = y[None] - grid[:, None]
    log_above, weight = np.log(above), above**2
    z = (x - math.log(1e18))[None, :, None]
    total = weight.sum(axis=1)
    mx, my = (weight * z).sum(axis=1) / total, (weight * log_above).sum(axis=1) / total
    slope = (weight * (z - mx[:, None]) * (log_above - my[:, None])).sum(axis=1) / (
        weight * (z - mx[:, None]) ** 2
    ).sum(axis=1)
    level = my - slope * mx
    fitted = grid[:, None] + np.exp(level[:, None] + slope[:, None] * z)
    return slope, level, ((y[None] - fitted) ** 2).sum(axis=1)


def _lost(positive: np.ndarray) -> list[Status]:
    """How many resamples have a loss that is not positive."""
    if positive.all():
        return []
    sentence = f"{int((~positive).sum())} of {len(positive)} resamples have a loss that is not positive"
    return [Status("thin resamples", f"{sentence} and are left out", "warning")]


def _statuses(
    ladders: Sequence[tuple[np.ndarray, np.ndarray]], ratios: Sequence[Ratio], low: float, high: float
) -> list[Status]:
    statuses = []
    if any(len(y) <= 3 for _, y in ladders):
        statuses.append(
            Status("few points", "a ladder of three budgets leaves no point to judge the law by", "warning")
        )
    values = [r.multiplier for r in ratios]
    change = max(values) / min(values) if min(values) > 0 else math.inf
    statuses.append(
        Status(
            "constant",
            f"the multiplier changes by a factor {change:.2f} over the losses both recipes reached",
            "note" if change > 1.2 else "ok",
        )
    )
    if outside := [r.loss_nats for r in ratios if not low <= r.loss_nats <= high]:
        statuses.append(
            Status(
                "extrapolation",
                f"{len(outside)} of {len(ratios)} losses lie outside {low:.3f}-{high:.3f} nats, which both "
                f"recipes reached",
                "warning",
            )
        )
    return statuses
