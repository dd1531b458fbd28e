"""Loss against compute: every curve, every final loss, their lower frontier."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.study.plots import APPROACH_NAME, compact, held_out_mask, loss_label
from lmscale.study.plots.axes import padded
from lmscale.study.plots.loss_curves import binned, loss_limits, lower_frontier, visible_baselines
from lmscale.study.plots.style import COMPUTE, colour
from lmscale.study.report.charts.choices import names, switches
from lmscale.study.report.marks import Axis, Chart, Mark, ink, open_note, shade

if TYPE_CHECKING:
    import pandas as pd


def loss(
    runs: "pd.DataFrame",
    curves: Mapping[str, "pd.DataFrame"],
    fits: Sequence[Any],
    baselines: Mapping[str, float],
    records: Mapping[str, Mapping[str, Any]],
) -> Chart:
    """Loss against compute: training curves, final losses, their frontier, the last fit's L*(C), simple models."""
    low, high = loss_limits(runs, baselines, bool(curves))
    lowest, most = float(runs["flops"].min()), float(runs["flops"].max())
    x, y = lower_frontier(runs["flops"], runs["loss_nats"])
    marks = [
        *_training_curves(runs, curves),
        *(_level(name, nats) for name, nats in visible_baselines(runs, baselines, bool(curves)).items()),
        Mark("line", "frontier of final losses", x.tolist(), y.tolist(), key="lower frontier of final losses", width=2),
        *_best_losses(fits, lowest, most),
        _final_losses(runs),
    ]
    label = f"training (curves), validation (points) {loss_label(runs)}" if curves else f"final {loss_label(runs)}"
    start, end = padded([lowest / 10 if curves else lowest, most], 0.03)
    return Chart(
        "loss against compute", Axis(COMPUTE, start, end, numerals="power"), Axis(label, low, high), marks,
        switches(records),
    )  # fmt: skip


def _training_curves(runs: "pd.DataFrame", curves: Mapping[str, "pd.DataFrame"]) -> list[Mark]:
    sizes = runs["params"].to_numpy(dtype=float)
    size_of = dict(zip(map(str, runs["run"]), sizes))
    marks = []
    for run, rows in curves.items():
        if run in size_of and len(rows):
            x, y = binned(rows)
            colour_ = shade(colour(sizes, float(size_of[run])))
            marks.append(
                Mark("line", "training loss", x.tolist(), y.tolist(), run=run, colour=colour_, width=0.8, opacity=0.6)
            )
    return marks


def _level(name: str, value: float) -> Mark:
    return Mark("level", name, y=[value], colour=ink("muted"), width=1, dotted=True, key=f"{name} ({value:.3f})")


def _best_losses(fits: Sequence[Any], low: float, high: float) -> list[Mark]:
    """L*(C) of the last fit that states one."""
    for fit in sorted(fits, key=lambda fit: fit.approach)[-1:]:
        if rows := fit.allocations(list(np.geomspace(low, high, 24))):
            x, y = ([row[name] for row in rows] for name in ("flops", "loss_nats"))
            name = f"L*(C), {APPROACH_NAME[fit.approach]}"
            return [Mark("line", name, x, y, colour=ink(fit.approach), dashed=True, key=name)]
    return []


def _final_losses(runs: "pd.DataFrame") -> Mark:
    sizes = runs["params"].to_numpy(dtype=float)
    shades = {value: shade(colour(sizes, float(value))) for value in np.unique(sizes)}
    key = f"final losses, by N ({compact(float(sizes.min()))} to {compact(float(sizes.max()))})"
    filled = list(~held_out_mask(runs))
    return Mark(
        "points", "final loss", runs["flops"].tolist(), runs["loss_nats"].tolist(), runs=names(runs),
        colours=[shades[value] for value in sizes], filled=filled, key=key + open_note(filled),
    )  # fmt: skip
