"""Benchmark scores of several sweeps: side by side at the sizes that all of them scored, with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmscale.core.quantities import Z_95
from lmscale.core.scores import has_scores
from lmscale.study.emergence.curves import RHO, SETTINGS
from lmscale.study.emergence.folder import of_one_stage, read_scores
from lmscale.study.emergence.scores import canonical
from lmscale.study.fits.checks.stages import one_stage
from lmscale.study.grouping import group_index
from lmscale.study.plots import compact
from lmscale.study.report import page
from lmscale.study.report.comparison.laws import Stated
from lmscale.study.report.comparison.sides import Side
from lmscale.study.report.kinds import APART
from lmscale.study.report.page import Number

if TYPE_CHECKING:
    import pandas as pd

READING = (
    "Scores at the sizes that all scored, seeds of a size together. The intervals of 95 % are those of the items drawn "
    f"and of models of one size (intra-class correlation {RHO:g}), as if the sides had answered items of their own: "
    "where they answered the same, a difference is known better. Of 20 differences one lies outside of its interval by "
    "chance."
)


@dataclass(frozen=True)
class ScoreRow:
    """One task and metric at one size: each side's score and its standard error, NaN where that is not known."""

    task: str
    metric: str
    params: float
    scores: tuple[float, ...]
    errors: tuple[float, ...]
    better: int
    """1 where a higher score is better, -1 where a lower one is."""

    def change(self, other: int) -> Stated:
        """A side's score less the first's, with its interval."""
        value = self.scores[other] - self.scores[0]
        half = Z_95 * math.hypot(self.errors[0], self.errors[other])
        return Stated(value, (value - half, value + half))


def score_rows(sides: Sequence[Side], stage: str | None) -> list[ScoreRow]:
    """The scores of every task, metric and size that all sides have; none where a side has no scores."""
    import pandas as pd

    folders = [side.folder for side in sides]
    if any(folder is None or not has_scores(folder) for folder in folders):
        return []
    tables = []
    for index, folder in enumerate(folders):
        if folder is not None:
            every = read_scores(folder)
            rows = canonical(of_one_stage(every) if stage is None else one_stage(every, stage))
            tables.append(_with_errors(rows).assign(side=index))
    rows = pd.concat(tables, ignore_index=True)
    if "params" not in rows:
        return []
    rows["size"] = group_index(rows["params"], APART)
    by = ["task", "metric", *(name for name in SETTINGS if name in rows), "size"]
    whole = [_row(group, by) for _, group in rows.groupby(by, sort=False, dropna=False)
             if group["side"].nunique() == len(sides)]  # fmt: skip
    return sorted(whole, key=lambda row: (row.task, row.metric, row.params))


def _with_errors(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The rows with the variance of each score: of a share of n items, or as stated."""
    share = rows["score"].astype(float)
    shrunk = (share * rows["n"] + 0.5) / (rows["n"] + 1)  # at 0 and 1 a share still has an error
    counted = shrunk * (1 - shrunk) * (1 + (rows["n"] - 1) * RHO) / rows["n"]
    stated = rows["stderr"].astype(float) ** 2
    return rows.assign(variance=counted.where((rows["kind"] == "hard") & rows["n"].notna(), stated))


def _row(group: "pd.DataFrame", by: Sequence[str]) -> ScoreRow:
    first = group.iloc[0]
    sides = group.groupby("side")
    scores = tuple(float(value) for value in sides["score"].mean())
    counts = sides["score"].count()
    errors = tuple(math.sqrt(value) / count for value, count in zip(sides["variance"].sum(min_count=1), counts))
    settings = [f"{name} {first[name]}" for name in by if name in SETTINGS and group[name].notna().all()]
    task = ", ".join([str(first["task"]), *settings])
    better = -1 if first["higher_is_better"] == 0 else 1
    return ScoreRow(task, str(first["metric"]), float(first["params"]), scores, errors, better)


def answer(sides: Sequence[Side], rows: Sequence[ScoreRow], other: int) -> str:
    """In how many of the scores a side is better or worse than the first, by more than the interval."""
    changes = [(row.better, row.change(other).interval) for row in rows]
    better = sum((low > 0) if sign > 0 else (high < 0) for sign, (low, high) in changes)
    worse = sum((high < 0) if sign > 0 else (low > 0) for sign, (low, high) in changes)
    return (
        f"Benchmark scores, {sides[other].label} against {sides[0].label}: of {len(rows)} at common sizes {better} "
        f"{'is' if better == 1 else 'are'} better and {worse} worse by more than the 95 % interval of the difference."
    )


def section(sides: Sequence[Side], rows: Sequence[ScoreRow]) -> list[str]:
    """The scores side by side in a table; nothing where there are none in common."""
    if not rows:
        return []
    heads = [("task", ""), ("metric", ""), ("N", "parameters")]
    heads += [(side.label, part) for side in sides for part in ("score", "s.e.")]
    heads += [(f"change to {side.label}", part) for side in sides[1:] for part in ("", "95 %")]
    cells = [page.Row(_cells(row)) for row in rows]
    return [
        page.heading("Benchmark scores, side by side"),
        page.paragraphs([READING]),
        page.table(heads, cells, (0, 1)),
    ]


def _cells(row: ScoreRow) -> list[page.Cell]:
    cells: list[page.Cell] = [row.task, row.metric, Number(compact(row.params), row.params)]
    for score, error in zip(row.scores, row.errors):
        cells += [Number(f"{score:.3f}", score), f"{error:.3f}" if math.isfinite(error) else "–"]
    for other in range(1, len(row.scores)):
        change = row.change(other)
        low, high = change.interval
        known = math.isfinite(low) and math.isfinite(high)
        cells += [Number(f"{change.value:+.3f}", change.value), f"{low:+.3f} – {high:+.3f}" if known else "–"]
    return cells
