"""The figures of a report: which of them a table and its fits support, with a caption each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.study import plots
from lmscale.study.fits.learning_rates import BRACKET
from lmscale.study.report import abilities, captions, drawing, studies
from lmscale.study.report.account import fitted_rows
from lmscale.study.report.answer import usable
from lmscale.study.report.charts import allocations, contexts, isoflop, loss, quality
from lmscale.study.report.charts import studies as study_charts
from lmscale.study.report.kinds import ALLOCATION, RATES, REPEATS, TRANSFER, Kind, repeated
from lmscale.study.report.marks import Chart
from lmscale.study.report.sketch import DrawnFigure, Sketch

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut


STUDY_HEADINGS = {
    "rates": "Loss against learning rate", "transfer": "Loss against learning rate", "seeds": "Loss by seed",
    "data": "Loss against training tokens", "sizes": "Loss against model size", "repeats": "Loss against repeats",
}  # fmt: skip
ALIKE = 1.01
"""Two runs whose tokens have so nearly the same number of bytes were validated on the same ones."""


def draw(
    table: "pd.DataFrame",
    fits: Sequence[Any],
    checked: Sequence["HeldOut"],
    curves: Mapping[str, "pd.DataFrame"],
    folder: Path,
    baselines: Mapping[str, float] | None = None,
    kind: Kind = ALLOCATION,
    records: Mapping[str, Mapping[str, Any]] | None = None,
    positions: Mapping[str, Sequence[float]] | None = None,
    scores: abilities.Abilities | None = None,
) -> list[DrawnFigure]:
    """Draw what can be drawn into `folder` as .svg, .png and .csv, in the order of the page.

    `baselines` are the bits per byte of simple models on the runs' validation text; `records` are those of the runs,
    by whose budgets and sizes a reader chooses (`records`), `positions` the runs' losses by position, `scores` the
    verdicts on their benchmark scores.
    """
    if kind.inputs:
        return [sketch.save(folder) for sketch in _of_law(fits, checked)]
    runs = plots.measured_runs(table) if len(table) else table
    if not len(runs):
        return []
    law = next((fit for fit in fits if fit.approach == "3" and fit.law.INPUTS == ("params", "tokens")), None)
    minima = next((fit for fit in fits if fit.approach == "2"), None)
    checked_budgets = next((check for check in checked if check.budgets), None)
    checked_runs = next((check for check in checked if check.runs), None)
    allocating = sorted(usable(fits), key=lambda fit: fit.approach)
    sketches = _study(kind, studies.tried_runs(table) if kind in (RATES, TRANSFER) else runs)
    if curves or kind.fits_law:
        sketches.append(_loss(runs, curves, allocating, _in_nats(runs, baselines or {}), records or {}))
    if minima is not None:
        sketches.append(_valleys(table, minima, checked_budgets, records or {}))
    if allocating:
        sketches += _allocation(table, allocating, checked)
    if law is not None:
        sketches += _residuals(law, checked_runs)
    if checked_runs is not None and "params" in checked_runs.runs[0].prediction.inputs:
        sketches.append(_held_out(checked_runs))
    if kind.fits_law:
        sketches += [*_rate_valleys(studies.tried_runs(table)), *_repeats(runs)]
    sketches += abilities.sketches(scores)
    if positions:
        sketches.append(_by_position(contexts.by_position(runs, positions, records or {}), len(positions), len(runs)))
    return [sketch.save(folder) for sketch in sketches]


def _rate_valleys(runs: Any) -> list[Sketch]:
    """Loss against learning rate at every budget or length where a size was run at enough rates to bracket the best."""
    if "peak_lr" not in runs or not runs["peak_lr"].notna().all():
        return []
    panels = studies.with_panels(runs)
    rates = panels.groupby(["panel", "params"])["peak_lr"].transform("nunique")
    bracketed = panels[rates >= BRACKET].drop(columns="panel")
    return _study(RATES, bracketed) if len(bracketed) else []


def _repeats(runs: Any) -> list[Sketch]:
    """Loss against passes over the text, beside a law, where a size and length was run on texts of several lengths."""
    chosen = repeated(runs)
    if not len(chosen):
        return []
    (sketch, *_) = _study(REPEATS, chosen)
    answer = " ".join(studies.answer(REPEATS, chosen))
    return [replace(sketch, caption=f"{sketch.caption} {answer}")]


def _by_position(chart: Chart, drawn: int, runs: int) -> Sketch:
    whose = "each run" if drawn == runs else f"{drawn:,} of {runs:,} runs"
    caption = (
        f"Validation loss of the tokens that are predicted from so many tokens of context: what context is worth. A "
        f"line for {whose}, in the colour that its size N has in the figure of loss against compute."
    )
    painted = partial(_paint, chart)
    return Sketch("positions", "Loss by position in the context", caption, 4.4, 1, painted, partial(list, [chart]))


def _paint(chart: Chart, ax: Any) -> None:
    drawing.draw(ax, chart)


def _of_law(fits: Sequence[Any], checked: Sequence["HeldOut"]) -> list[Sketch]:
    """The figures of a law of any inputs: its residuals against each, and its predictions."""
    law = next((fit for fit in fits if fit.approach == "3"), None)
    checked_runs = next((check for check in checked if check.runs), None)
    sketches = [] if law is None else _residuals(law, checked_runs)
    if checked_runs is not None and "params" in checked_runs.runs[0].prediction.inputs:
        sketches.append(_held_out(checked_runs))
    return sketches


def _study(kind: Kind, runs: Any) -> list[Sketch]:
    """The figure that answers the question of a sweep which is for no law, two panels in each."""
    panels, charts, sketches = studies.panels(kind, runs), study_charts.panels(kind, runs), []
    for start in range(0, len(panels), 2):
        pair = panels[start : start + 2]

        def paint(*axes: Any, pair: Any = pair) -> None:
            for ax, (title, _, draw_panel) in zip(axes, pair):
                draw_panel(ax)
                ax.set_title(title)

        number = start // 2 + 1
        name = kind.name if number == 1 else f"{kind.name}-{number}"
        own = charts[start : start + 2]
        sketches.append(Sketch(name, STUDY_HEADINGS[kind.name], pair[0][1], 4.4, len(pair), paint, partial(list, own)))
    return sketches


def _in_nats(runs: Any, baselines: Mapping[str, float]) -> dict[str, float]:
    """Bits per byte as nats per token of the runs; nothing where their tokens differ in length."""
    if not baselines or "bits_per_byte" not in runs:
        return {}
    scale = (runs["loss_nats"] / runs["bits_per_byte"].astype(float)).dropna()
    if not len(scale) or scale.max() > ALIKE * scale.min():
        return {}
    return {name: bits * float(scale.median()) for name, bits in baselines.items()}


def _loss(
    runs: Any,
    curves: Mapping[str, Any],
    fits: Sequence[Any],
    baselines: Mapping[str, float],
    records: Mapping[str, Mapping[str, Any]],
) -> Sketch:
    return Sketch(
        "loss",
        "Loss against compute",
        captions.losses(runs, curves, fits, baselines),
        4.6,
        1,
        lambda ax: plots.curves(ax, runs, curves, fits, baselines),
        lambda: [loss.loss(runs, curves, fits, baselines, records)],
    )


def _valleys(table: "pd.DataFrame", fit: Any, checked: Any, records: Mapping[str, Mapping[str, Any]]) -> Sketch:
    return Sketch(
        "valleys", "IsoFLOP valleys", captions.valleys(table, fit, checked), 4.8, 1,
        lambda ax: plots.valleys(ax, plots.measured_runs(table), fit, checked),
        lambda: [isoflop.valleys(plots.measured_runs(table), fit, checked, records)],
    )  # fmt: skip


def _allocation(table: "pd.DataFrame", fits: Sequence[Any], checked: Sequence[Any]) -> list[Sketch]:
    fitted, runs = fitted_rows(table, fits), plots.measured_runs(table)
    low, high = float(fitted["flops"].min()), float(fitted["flops"].max())
    span = (low / 1.6, max(10 * high, 1.6 * float(runs["flops"].max())))
    how: dict[str, Any] = {"span": span, "data": (low, high), "held_out": checked}
    marks = captions.allocation_marks(fits, checked)

    def both(left: Any, right: Any) -> None:
        plots.allocation(left, fits, "params", labels="corner", **how)
        plots.allocation(right, fits, "tokens", labels="none", **how)

    return [
        Sketch(
            "tokens_per_param",
            "Tokens per parameter against compute",
            f"D*/N* beside the rule of 20 (dotted). {marks}",
            4.4,
            1,
            lambda ax: plots.allocation(ax, fits, "tokens_per_param", **how),
            lambda: [allocations.allocation(fits, "tokens_per_param", **how)],
        ),
        Sketch(
            "allocation",
            "Optimal model size and training length",
            f"N* (left) and D* (right), beside 20 tokens per parameter (dotted). {marks}",
            4.0,
            2,
            both,
            lambda: [allocations.allocation(fits, name, **how) for name in ("params", "tokens")],
        ),
    ]


def _residuals(law: Any, checked: Any) -> list[Sketch]:
    """What the law leaves unexplained against each of its inputs, two panels to a figure."""
    caption = (
        "What the parametric law leaves unexplained, in per cent of the predicted loss. Shaded: twice the root mean "
        "square of the fitted runs."
    )
    if checked is not None:
        caption += " Open: held-out runs."
    inputs, sketches = law.law.INPUTS, []
    for start in range(0, len(inputs), 2):
        pair = inputs[start : start + 2]

        def paint(*axes: Any, pair: Any = pair) -> None:
            for ax, name in zip(axes, pair):
                plots.residuals(ax, law, name, checked)
                ax.set_ylabel("" if ax is not axes[0] else ax.get_ylabel())

        name = "residuals" if start == 0 else f"residuals-{start // 2 + 1}"
        heading = f"Residuals of the parametric law{'' if start == 0 else f' against {pair[0]}'}"
        listed = partial(_residual_charts, law, pair, checked)
        sketches.append(Sketch(name, heading, caption, 3.4, len(pair), paint, listed))
    return sketches


def _residual_charts(law: Any, inputs: Sequence[str], checked: Any) -> list[Chart]:
    return [quality.residuals(law, name, checked) for name in inputs]


def _held_out(checked: Any) -> Sketch:
    def both(left: Any, right: Any) -> None:
        plots.predictions(left, checked)
        plots.prediction_errors(right, checked)

    caption = "Losses (left) and errors (right) of runs that no fit saw."
    if any(run.has_interval for run in checked.runs):
        caption += f" Bars: the {100 * checked.level:g} % interval of one new run at that N and D."
    return Sketch(
        "held_out", "Held-out runs, predicted and measured", caption, 4.0, 2, both,
        lambda: [quality.predictions(checked), quality.prediction_errors(checked)],
    )  # fmt: skip
