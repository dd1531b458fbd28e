"""Loss against training compute: every curve, every final loss, their lower frontier."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.arguments import Number, checked
from lmscale.core.run_folder import METRICS_FILE, read_metrics
from lmscale.study.plots.axes import colour_key, end_labels, log_axis, note, padded, size_name
from lmscale.study.plots.rows import held_out_mask, measured_runs
from lmscale.study.plots.style import APPROACH_NAME, COMPUTE, INK, colour, loss_label
from lmscale.study.tables import size_column

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


CURVE_BINS = 90
MOST_CURVES = 300
"""Training curves that are read and drawn; of more runs so many, evenly along C: more would be one dark surface."""
MOST_VECTORS = 2_000
"""Points above which an SVG holds a picture of them: a browser draws no ten thousand shapes while a reader waits."""
BELOW = 0.7
"""A baseline below this share of the lowest loss would only squeeze the runs, and is left out."""
TEXT_HIGH = 0.045
"""Height of a line's words as a share of the axes."""


def lower_frontier(flops: Any, loss: Any, tolerance: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """The runs that no run of at most 1 + `tolerance` times their compute beats: their C and loss, C ascending.

    The tolerance is there because whole batches make the runs of one budget differ a little in C.
    """
    order = np.argsort(np.asarray(flops, dtype=float), kind="stable")
    x, y = np.asarray(flops, dtype=float)[order], np.asarray(loss, dtype=float)[order]
    reach = np.searchsorted(x, x * (1 + tolerance), side="right")
    on = y <= np.minimum.accumulate(y)[reach - 1]
    return x[on], y[on]


@checked
def curves(
    ax: "Axes",
    table: "pd.DataFrame",
    metrics: Mapping[str, "pd.DataFrame"] | None = None,
    fits: Sequence[Any] = (),
    baselines: Mapping[str, Number] | None = None,
) -> None:
    """Loss against compute: training curves (thin), final losses (points), their lower frontier, the last fit's L*(C).

    `metrics` maps a run to its logged `flops` and `loss_nats` (mean training loss of the interval), averaged here into
    logarithmic bins of C. A point inside a decaying schedule lies above a schedule that ends there, so curves never
    feed the frontier: it joins final losses only. `baselines` are losses of simple models on the same text, in nats per
    token, each a dotted line.
    """
    runs = measured_runs(table)
    sizes, out = runs["params"].to_numpy(dtype=float), held_out_mask(runs)
    _draw_runs(ax, runs, sizes, out, metrics or {})
    x, y = lower_frontier(runs["flops"], runs["loss_nats"])
    ax.plot(x, y, color=INK["text"], lw=1.3, zorder=2.5)
    ax.set_ylim(*loss_limits(runs, baselines or {}, bool(metrics)))
    lowest = float(runs["flops"].min())
    ax.set_xlim(*padded([lowest / 10 if metrics else lowest, float(runs["flops"].max())], 0.03))
    labels = [(float(y[-1]), "frontier of final losses", INK["text"])]
    for fit in sorted(fits, key=lambda fit: fit.approach)[-1:]:
        rows = fit.allocations(list(np.geomspace(lowest, runs["flops"].max(), 24)))
        if rows:
            ax.plot(
                [r["flops"] for r in rows],
                [r["loss_nats"] for r in rows],
                color=INK[fit.approach],
                lw=1.4,
                ls=(0, (4, 2)),
                zorder=4,
            )
            labels.append((rows[-1]["loss_nats"], f"L*(C), {APPROACH_NAME[fit.approach]}", INK[fit.approach]))
    log_axis(ax, "x", "power")
    log_axis(ax, "y", "plain")
    _levels(ax, visible_baselines(runs, baselines or {}, bool(metrics)))
    end_labels(ax, labels)
    if sizes.min() < sizes.max():
        colour_key(ax, float(sizes.min()), float(sizes.max()), f"N, {size_name(size_column(table))}")
    if out.any():
        note(ax, "open: held out")
    ax.set_xlabel(COMPUTE)
    ax.set_ylabel(
        f"training (curves), validation (points)\n{loss_label(runs)}" if metrics else f"final {loss_label(runs)}"
    )


def _draw_runs(
    ax: "Axes", runs: "pd.DataFrame", sizes: np.ndarray, out: np.ndarray, metrics: Mapping[str, "pd.DataFrame"]
) -> None:
    """Training curves, and final losses on top; those that are held `out` are open."""
    size_of = dict(zip(reversed(runs["run"].tolist()), reversed(sizes)))
    for run, rows in metrics.items():
        if run in size_of and len(rows):
            x, y = binned(rows)
            ax.plot(x, y, color=colour(sizes, float(size_of[run])), lw=0.7, alpha=0.55, zorder=1)
    shade = {value: colour(sizes, value) for value in np.unique(sizes)}
    shades = np.array([shade[value] for value in sizes])
    ax.scatter(
        runs["flops"], runs["loss_nats"], s=25, zorder=3, linewidths=1.1, edgecolors=list(shades),
        facecolors=list(np.where(out, INK["paper"], shades)), rasterized=len(runs) > MOST_VECTORS,
    )  # fmt: skip


def loss_limits(runs: "pd.DataFrame", baselines: Mapping[str, float], with_curves: bool) -> tuple[float, float]:
    """Ends of the axis of losses: every final loss, the baselines that do not squeeze them, and some of the curves."""
    lowest, top = float(runs["loss_nats"].min()), float(runs["loss_nats"].max())
    near = [nats for nats in baselines.values() if nats > BELOW * lowest]
    return padded([min([0.99 * lowest, *near]), 1.25 * top if with_curves else top])


@checked
def visible_baselines(runs: "pd.DataFrame", baselines: Mapping[str, Number], with_curves: bool) -> dict[str, float]:
    """The baselines that `curves` draws: those that lie inside its axis of losses."""
    low, high = loss_limits(runs, baselines, with_curves)
    return {name: nats for name, nats in baselines.items() if low < nats < high}


def _levels(ax: "Axes", baselines: Mapping[str, float]) -> None:
    """A dotted line for every baseline; those that would lie on each other share their words."""
    low, high = ax.get_ylim()
    words: list[tuple[float, str]] = []
    for name, nats in sorted(baselines.items(), key=lambda item: item[1]):
        ax.axhline(nats, color=INK["muted"], lw=0.8, ls=(0, (1, 2)), zorder=0.5)
        if words and math.log(nats / words[-1][0]) < TEXT_HIGH * math.log(high / low):
            words[-1] = (nats, f"{words[-1][1]}, {name}")
        else:
            words.append((nats, name))
    for nats, text in words:
        ax.annotate(
            text, (0, nats), (3, 1.5), xycoords=("axes fraction", "data"), textcoords="offset points",
            fontsize=7.5, color=INK["muted"], va="bottom", zorder=5,
            bbox={"facecolor": INK["paper"], "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
        )  # fmt: skip


def binned(rows: "pd.DataFrame") -> tuple[np.ndarray, np.ndarray]:
    """Means over `CURVE_BINS` equal steps of ln C."""
    x, y = np.asarray(rows["flops"], dtype=float), np.asarray(rows["loss_nats"], dtype=float)
    good = np.isfinite(x) & np.isfinite(y) & (x > 0)
    x, y = x[good], y[good]
    if not len(x):
        return x, y
    bins = np.round(np.log(x / x.min()) / max(math.log(x.max() / x.min()), 1e-9) * CURVE_BINS).astype(int)
    count = np.bincount(bins)
    keep = count > 0
    return np.bincount(bins, x)[keep] / count[keep], np.bincount(bins, y)[keep] / count[keep]


@checked
def read_curves(folder: str | Path, table: "pd.DataFrame") -> tuple[dict[str, "pd.DataFrame"], list[str]]:
    """The logged metrics of runs of `table` under a sweep's folder, and a sentence for each file that is corrupt.

    Every run is read, of more than `MOST_CURVES` so many, evenly along C. A last line that was cut off by an
    interruption is passed over.
    """
    import pandas as pd

    curves: dict[str, pd.DataFrame] = {}
    notes: list[str] = []
    for run in drawn_runs(table):
        path = Path(folder) / run / METRICS_FILE
        if not path.is_file():
            continue
        lines, corrupt = read_metrics(path.parent)
        rows = []
        for number, row in enumerate(lines, 1):
            try:
                rows.append((float(row["flops"]), float(row["loss_nats"])))
            except (ValueError, KeyError, TypeError):
                corrupt = number
                break
        if corrupt is not None:
            notes.append(f"the metrics of run {run} are corrupt from line {corrupt}: its curve ends there")
        if rows:
            curves[run] = pd.DataFrame(rows, columns=["flops", "loss_nats"])
    return curves, notes


def drawn_runs(table: "pd.DataFrame") -> list[str]:
    """The runs whose curves are read: all, or `MOST_CURVES` evenly along C; in the order of the table."""
    names = list(map(str, table.get("run", ())))
    if len(names) <= MOST_CURVES:
        return names
    order = table["flops"].argsort(kind="stable") if "flops" in table else np.arange(len(names))
    chosen = np.asarray(order)[np.linspace(0, len(names) - 1, MOST_CURVES).round().astype(int)]
    return [names[place] for place in sorted(chosen)]
