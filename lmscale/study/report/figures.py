"""The figures of a report: which of them a table and its fits support, with a caption each."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core import files
from lmscale.study import plots
from lmscale.study.fits.learning_rates import BRACKET
from lmscale.study.report import drawing, methods, studies
from lmscale.study.report.account import fitted_rows, is_budget
from lmscale.study.report.answer import usable
from lmscale.study.report.charts import allocations, contexts, isoflop, loss, quality
from lmscale.study.report.charts import studies as study_charts
from lmscale.study.report.kinds import ALLOCATION, RATES, Kind
from lmscale.study.report.marks import Chart, data_table
from lmscale.study.tables.writing import csv_text

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut


STUDY_HEADINGS = {
    "rates": "Loss against learning rate", "transfer": "Loss against learning rate", "seeds": "Loss by seed",
    "data": "Loss against training tokens", "sizes": "Loss against model size", "repeats": "Loss against repeats",
}  # fmt: skip
MOST_POINTS = 5_000
"""Runs of a figure that answer the pointer: with more, the page would pass 5 MB."""
ALIKE = 1.01
"""Two runs whose tokens have so nearly the same number of bytes were validated on the same ones."""


@dataclass(frozen=True)
class DrawnFigure:
    """One figure: its file name without suffix, heading, caption, its SVG, and its panels as data."""

    name: str
    heading: str
    caption: str
    svg: str
    charts: Sequence[Chart] = ()


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
) -> list[DrawnFigure]:
    """Draw what can be drawn into `folder` as .svg, .png and .csv, in the order of the page.

    `baselines` are the bits per byte of simple models on the runs' validation text; `records` are those of the runs,
    by whose budgets and sizes a reader chooses (`records`), `positions` the runs' losses by position.
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
    sketches = _study(kind, runs)
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
        sketches += _rate_valleys(runs)
    if positions:
        sketches.append(_by_position(contexts.by_position(runs, positions, records or {})))
    return [sketch.save(folder) for sketch in sketches]


def _rate_valleys(runs: Any) -> "list[Sketch]":
    """Loss against learning rate at every budget or length where a size was run at enough rates to bracket the best."""
    if "peak_lr" not in runs or not runs["peak_lr"].notna().all():
        return []
    panels = studies.with_panels(runs)
    rates = panels.groupby(["panel", "params"])["peak_lr"].transform("nunique")
    bracketed = panels[rates >= BRACKET].drop(columns="panel")
    return _study(RATES, bracketed) if len(bracketed) else []


def _by_position(chart: Chart) -> "Sketch":
    caption = (
        "Validation loss of the tokens that are predicted from so many tokens of context, a line for each run by model "
        "size N: what context is worth."
    )
    painted = partial(_paint, chart)
    return Sketch("positions", "Loss by position in the context", caption, 4.4, 1, painted, partial(list, [chart]))


def _paint(chart: Chart, ax: Any) -> None:
    drawing.draw(ax, chart)


def _of_law(fits: Sequence[Any], checked: Sequence["HeldOut"]) -> "list[Sketch]":
    """The figures of a law of any inputs: its residuals against each, and its predictions."""
    law = next((fit for fit in fits if fit.approach == "3"), None)
    checked_runs = next((check for check in checked if check.runs), None)
    sketches = [] if law is None else _residuals(law, checked_runs)
    if checked_runs is not None and "params" in checked_runs.runs[0].prediction.inputs:
        sketches.append(_held_out(checked_runs))
    return sketches


def _study(kind: Kind, runs: Any) -> "list[Sketch]":
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


@dataclass(frozen=True)
class Sketch:
    """A figure before it is drawn: its size in inches and panels, what paints the Axes, and what lists its data."""

    name: str
    heading: str
    caption: str
    height: float
    panels: int
    paint: Callable[..., None]
    charts: Callable[[], Sequence[Chart]]

    def save(self, folder: Path) -> DrawnFigure:
        """Draw it once, write it as SVG and PNG, and write its data as CSV.

        A figure of more than `MOST_POINTS` runs stays a picture on the page.
        """
        charts = self.charts()
        files.write_text(folder / f"{self.name}.csv", csv_text(data_table(charts)))
        many = any(len(mark.runs) > MOST_POINTS for chart in charts for mark in chart.marks)
        caption = self.caption + f" A picture, since it has many runs; figures/{self.name}.csv names them." * many
        with plots.style():
            figure, axes = plots.canvas(9.0, self.height, self.panels)
            self.paint(*axes)
            svg = plots.render(figure, "svg").decode()
            files.write_text(folder / f"{self.name}.svg", svg)
            figure.set_layout_engine("none")  # it was laid out for the SVG
            plots.save(figure, folder / f"{self.name}.png")
        return DrawnFigure(self.name, self.heading, caption, svg, () if many else charts)


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
    caption = (
        f"Points: final losses of the {len(runs)} runs that have one, by model size N. Thick line: their lower frontier"
    )
    drawn = sum(str(run) in curves for run in runs["run"])
    if drawn:
        whose = "each of them" if drawn == len(runs) else f"{drawn} of them"
        whose += " (evenly along C; `metrics.jsonl` has every curve)" * (len(runs) > plots.MOST_CURVES)
        caption += (
            f"; thin curves: training loss along {whose}, averaged in steps of ln C. A point inside a decaying "
            "schedule lies above a schedule that ends there, so the curves never feed the frontier"
        )
    if fits:
        caption += (
            f". Dashed: the loss L*(C) that the {plots.APPROACH_NAME[fits[-1].approach]} gives the best allocation"
        )
    if visible := plots.visible_baselines(runs, baselines, bool(curves)):
        caption += f". Dotted: simple models on the same validation text ({', '.join(visible)})"
    return Sketch(
        "loss",
        "Loss against compute",
        caption + ".",
        4.6,
        1,
        lambda ax: plots.curves(ax, runs, curves, fits, baselines),
        lambda: [loss.loss(runs, curves, fits, baselines, records)],
    )


def _valleys(table: "pd.DataFrame", fit: Any, checked: Any, records: Mapping[str, Mapping[str, Any]]) -> Sketch:
    caption = f"Each valley is one compute budget C; the curve is {_valley_curve(fit)}; diamonds are the minima"
    if fit.resamples:
        caption += " with 80 (thick) and 95 % (thin) intervals of N*, often narrower than the diamond"
    caption += "."
    if checked is not None:
        caption += f" Dashed and open: {_held_out_budgets(checked, fit)}."
    if rejected := sum(is_budget(item.run, table) for item in fit.dropped):
        caption += f" Points without a curve: a budget whose minimum was rejected ({rejected})."
    return Sketch(
        "valleys", "IsoFLOP valleys", caption, 4.8, 1,
        lambda ax: plots.valleys(ax, plots.measured_runs(table), fit, checked),
        lambda: [isoflop.valleys(plots.measured_runs(table), fit, checked, records)],
    )  # fmt: skip


def _valley_curve(fit: Any) -> str:
    """The curve that is drawn through a valley."""
    if fit.method == "akima":
        return "Akima interpolation of ln L on ln N"
    if fit.window is None:
        return "a parabola in ln N"
    return f"a parabola in ln N with the minimum found in the sizes within a factor {fit.window:g} of the lowest run"


def _held_out_budgets(checked: Any, fit: Any) -> str:
    """The held-out budgets, whose only interval is that of the check."""
    many = len(checked.budgets) > 1
    text = f"the held-out budget{'s' * many}, which no fit saw"
    if fit.resamples and any(budget.measured_params is not None for budget in checked.budgets):
        text += f", with the {100 * checked.level:g} % interval alone"
    return text


def _allocation(table: "pd.DataFrame", fits: Sequence[Any], checked: Sequence[Any]) -> list[Sketch]:
    fitted, runs = fitted_rows(table, fits), plots.measured_runs(table)
    low, high = float(fitted["flops"].min()), float(fitted["flops"].max())
    span = (low / 1.6, max(10 * high, 1.6 * float(runs["flops"].max())))
    how: dict[str, Any] = {"span": span, "data": (low, high), "checked": checked}
    marks = _allocation_marks(fits, checked)

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


def _allocation_marks(fits: Sequence[Any], checked: Sequence[Any]) -> str:
    """What bands, dashes and points of an allocation mean."""
    bands = any(fit.resamples for fit in fits)
    text = f"Bands: {methods.levels()} intervals of the fits; dashed" if bands else "Dashed:"
    text += " beyond the compute that was fitted."
    valleys = next((fit for fit in fits if fit.approach == "2"), None)
    if valleys is not None:
        text += " Points: minima of the budgets" + " with their 95 % intervals" * bool(valleys.resamples)
        levels = {check.level for check in checked for budget in check.budgets if budget.measured_params is not None}
        odd = {level for level in levels if level != 0.95 and valleys.resamples}
        text += f"; open: held out{''.join(f', with {100 * level:g} %' for level in odd)}." if levels else "."
    return text


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


def inline(figure: DrawnFigure) -> str:
    """The SVG for a page: as wide as its column, names of its own, colours and font from the page's style sheet."""
    svg = figure.svg[figure.svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)  # the page's own style sheet has the style
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{figure.heading}"', svg, count=1)
    svg = re.sub(r'\bid="', f'id="{figure.name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{figure.name}-", svg)
    svg = re.sub(r'href="#', f'href="#{figure.name}-', svg)
    svg = re.sub(r"'DejaVu Sans'(, sans-serif)?", "var(--sans)", svg)
    for colour, variable in variables().items():
        svg = re.sub(rf"{colour}\b", f"var({variable})", svg, flags=re.IGNORECASE)
    return svg


def variables() -> dict[str, str]:
    """Colour of a figure -> the CSS variable that stands for it on the page."""
    return {colour: f"--ink-{name}" for name, colour in plots.INK.items()} | {
        colour: f"--s{index}" for index, colour in enumerate(plots.SEQUENCE)
    }
