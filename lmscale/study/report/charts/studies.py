"""The figures of sweeps that are for no law of N and D, as data: rates, seeds, and one quantity that varies."""

import math
from typing import TYPE_CHECKING

import numpy as np

from lmscale.study.plots import compact, loss_label
from lmscale.study.plots.axes import padded
from lmscale.study.plots.style import colour
from lmscale.study.report import studies
from lmscale.study.report.charts.choices import names
from lmscale.study.report.kinds import DATA, RATES, REPEATS, SEEDS, SIZES, TRANSFER, Kind
from lmscale.study.report.marks import Axis, Chart, Mark, ink, shade

if TYPE_CHECKING:
    import pandas as pd


def panels(kind: Kind, runs: "pd.DataFrame") -> list[Chart]:
    """A chart for every panel of `studies.panels`, in its order."""
    if kind in (RATES, TRANSFER):
        by_panel = dict(list(studies.with_panels(runs).groupby("panel")))
        return [_rates(title, curves, by_panel[title]) for title, curves in studies.drawn_panels(runs).items()]
    if kind == SEEDS:
        return [_seeds(runs)]
    column = {DATA: "tokens", SIZES: "params", REPEATS: "epochs"}.get(kind)
    return [] if column is None else [_along(runs, column)]


def _final(runs: "pd.DataFrame") -> Axis:
    """The axis of final losses."""
    losses = runs["loss_nats"].astype(float)
    margin = 0.06 * float(losses.max() - losses.min()) or 0.05
    return Axis(
        f"final validation {loss_label(runs)}", float(losses.min()) - margin, float(losses.max()) + margin, log=False
    )


def _rates(title: str, curves: "dict[int, studies.Curve]", runs: "pd.DataFrame") -> Chart:
    """Loss against peak rate, a line for each N through its best batches, and every run."""
    marks: list[Mark] = []
    runs = runs[np.isfinite(runs["loss_nats"].astype(float))]
    for size, curve in curves.items():
        one = f"N = {compact(size)}"
        rates, losses = zip(*(pair for pair in zip(*curve) if math.isfinite(pair[1])))
        marks.append(Mark("line", one, rates, losses, colour=shade(colour(list(curves), size)), key=one))
    marks.append(_points(runs, "peak_lr"))
    for size, best in studies.optima(curves).items():
        where = "at the edge of the rates" if best.edge else "best rate"
        name = f"{where} at N = {compact(size)}: {best.rate:.3g}"
        marks.append(Mark("points", name, [best.rate], [best.loss_nats], filled=[not best.edge], shape="diamond"))
    along = Axis("peak learning rate", *padded(runs["peak_lr"], 0.06))
    return Chart(title, along, _final(runs), marks, titled=True)


def _points(runs: "pd.DataFrame", column: str) -> Mark:
    """Every run, by the column, in the colour of its size."""
    sizes = runs["params"].astype(float).tolist()
    colours = [shade(colour(sizes, size)) for size in sizes]
    x, y = ([float(value) for value in runs[name]] for name in (column, "loss_nats"))
    return Mark("points", "run", x, y, runs=names(runs), colours=colours, key="runs")


def _seeds(runs: "pd.DataFrame") -> Chart:
    """Final losses of runs that differ in their seed alone, and their mean."""
    seeds = runs["seed"].astype(float)
    mean = float(runs["loss_nats"].mean())
    level = Mark("level", "mean", y=[mean], colour=ink("muted"), dashed=True, key=f"mean, {mean:.4f}")
    ends = (float(seeds.min()) - 0.5, float(seeds.max()) + 0.5)
    return Chart("losses by seed", Axis("seed", *ends, log=False), _final(runs), [level, _points(runs, "seed")])


def _along(runs: "pd.DataFrame", column: str) -> Chart:
    """Final losses against what varies: every run, and a line through the means of each size and length."""
    curves = studies.series(runs, column)
    marks = []
    for index, (name, x, y) in enumerate(curves):
        line = name.removesuffix(": ")
        marks.append(Mark("line", line or "mean", x, y, colour=shade(colour([1, len(curves)], index + 1)), key=line))
    return Chart(
        f"loss against {studies.AXIS[column]}",
        Axis(studies.AXIS[column], *padded(runs[column], 0.05), numerals="plain" if column == "epochs" else "compact"),
        _final(runs),
        [*marks, _points(runs, column)],
    )
