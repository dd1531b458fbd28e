"""The figures of a report: which of them a table and its fits support, with a caption each."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core import files
from lmscale.study import plots
from lmscale.study.report.words import usable

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut


ALIKE = 1.01
"""Two runs whose tokens have so nearly the same number of bytes were validated on the same ones."""


@dataclass(frozen=True)
class Picture:
    """One figure: its file name without suffix, heading, caption, and its SVG."""

    name: str
    heading: str
    caption: str
    svg: str


def draw(
    table: "pd.DataFrame",
    fits: Sequence[Any],
    checked: Sequence["HeldOut"],
    curves: Mapping[str, "pd.DataFrame"],
    folder: Path,
    baselines: Mapping[str, float] | None = None,
) -> list[Picture]:
    """Draw what can be drawn into `folder` as .svg and .png, in the order of the page.

    `baselines` are the bits per byte of simple models on the runs' validation text.
    """
    runs = plots.measured(table) if len(table) else table
    if not len(runs):
        return []
    law = next((fit for fit in fits if fit.approach == "3" and fit.law.INPUTS == ("params", "tokens")), None)
    minima = next((fit for fit in fits if fit.approach == "2"), None)
    of_budgets = next((one for one in checked if one.budgets), None)
    of_runs = next((one for one in checked if one.runs), None)
    good = sorted(usable(fits), key=lambda fit: fit.approach)
    drawn = [_loss(runs, curves, good, _in_nats(runs, baselines or {}))]
    if minima is not None:
        drawn.append(_valleys(runs, minima, of_budgets))
    if good:
        drawn += _allocation(runs, good, checked)
    if law is not None:
        drawn.append(_residuals(law, of_runs))
    if of_runs is not None and "params" in of_runs.runs[0].prediction.inputs:
        drawn.append(_held_out(of_runs))
    return [one.save(folder) for one in drawn]


@dataclass(frozen=True)
class Drawing:
    """A figure before it is drawn: its size in inches and panels, and what paints the Axes."""

    name: str
    heading: str
    caption: str
    height: float
    panels: int
    paint: Callable[..., None]

    def save(self, folder: Path) -> Picture:
        """Draw it once, write it twice."""
        with plots.style():
            figure, axes = plots.canvas(9.0, self.height, self.panels)
            self.paint(*axes)
            svg = plots.render(figure, "svg").decode()
            files.write_text(folder / f"{self.name}.svg", svg)
            figure.set_layout_engine("none")  # it was laid out for the SVG
            plots.save(figure, folder / f"{self.name}.png")
        return Picture(self.name, self.heading, self.caption, svg)


def _in_nats(runs: Any, baselines: Mapping[str, float]) -> dict[str, float]:
    """Bits per byte as nats per token of the runs; nothing where their tokens differ in length."""
    if not baselines or "bits_per_byte" not in runs:
        return {}
    scale = (runs["loss_nats"] / runs["bits_per_byte"].astype(float)).dropna()
    if not len(scale) or scale.max() > ALIKE * scale.min():
        return {}
    return {name: bits * float(scale.median()) for name, bits in baselines.items()}


def _loss(runs: Any, curves: Mapping[str, Any], fits: Sequence[Any], baselines: Mapping[str, float]) -> Drawing:
    caption = "Points: final losses of all runs, by model size N. Black: their lower frontier"
    if curves:
        caption += (
            "; thin curves: training loss along each run, averaged in steps of ln C. A point inside a decaying "
            "schedule lies above a schedule that ends there, so the curves never feed the frontier"
        )
    if fits:
        caption += f". Dashed: the loss L*(C) that the {plots.SHORT[fits[-1].approach]} gives the best allocation"
    if baselines:
        caption += ". Dotted: token frequencies, pairs and compression programs on the same validation text"
    return Drawing(
        "loss",
        "Loss against compute",
        caption + ".",
        4.6,
        1,
        lambda ax: plots.curves(ax, runs, curves, fits, baselines),
    )


def _valleys(runs: Any, fit: Any, checked: Any) -> Drawing:
    shape = "a parabola in ln N" if fit.method == "parabola" else "Akima interpolation of ln L on ln N"
    rejected = [item for item in fit.dropped if item.run.startswith("budget")]
    caption = (
        f"Each valley is one compute budget C; the curve is {shape}; diamonds are the minima with 80 (thick) and 95 % "
        f"(thin) intervals of N*, often narrower than the diamond."
    )
    if checked is not None:
        caption += " The held-out budget is dashed and open: no fit saw it."
    if rejected:
        caption += f" Points without a curve: a budget whose minimum was rejected ({len(rejected)})."
    return Drawing("valleys", "IsoFLOP valleys", caption, 4.8, 1, lambda ax: plots.valleys(ax, runs, fit, checked))


def _allocation(runs: Any, fits: Sequence[Any], checked: Sequence[Any]) -> list[Drawing]:
    fitted = runs[~plots.held(runs)]
    low, high = float(fitted["flops"].min()), float(fitted["flops"].max())
    span = (low / 1.6, max(10 * high, 1.6 * float(runs["flops"].max())))
    how: dict[str, Any] = {"span": span, "data": (low, high), "checked": checked}
    bands = "Bands: 80 and 95 % intervals of the fits; dashed beyond the compute that was fitted."
    if any(fit.approach == "2" for fit in fits):
        bands += " Points: minima of the budgets with their 95 % intervals"
        bands += "; the open one was held out." if any(one.budgets for one in checked) else "."

    def both(left: Any, right: Any) -> None:
        plots.allocation(left, fits, "params", labels="corner", **how)
        plots.allocation(right, fits, "tokens", labels="none", **how)

    return [
        Drawing(
            "tokens_per_param",
            "Tokens per parameter against compute",
            f"D*/N* beside the rule of 20 (dotted). {bands}",
            4.4,
            1,
            lambda ax: plots.allocation(ax, fits, "tokens_per_param", **how),
        ),
        Drawing(
            "allocation", "Optimal model size and training length", f"N* (left) and D* (right). {bands}", 4.0, 2, both
        ),
    ]


def _residuals(law: Any, checked: Any) -> Drawing:
    def both(left: Any, right: Any) -> None:
        plots.residuals(left, law, "params", checked)
        plots.residuals(right, law, "tokens", checked)
        right.set_ylabel("")

    caption = "What the parametric law leaves unexplained. Grey: twice the root mean square of the fitted runs."
    if checked is not None:
        caption += " Open: held-out runs."
    return Drawing("residuals", "Residuals of the parametric law", caption, 3.4, 2, both)


def _held_out(checked: Any) -> Drawing:
    def both(left: Any, right: Any) -> None:
        plots.predictions(left, checked)
        plots.prediction_errors(right, checked)

    caption = f"Runs that no fit saw. Bars: the {100 * checked.level:g} % interval of one new run at that N and D."
    return Drawing("held_out", "Held-out runs, predicted and measured", caption, 4.0, 2, both)


def inline(picture: Picture) -> str:
    """The SVG for a page: as wide as its column, names of its own, colours and font from the page's style sheet."""
    svg = picture.svg[picture.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{picture.heading}"', svg, count=1)
    svg = re.sub(r'\bid="', f'id="{picture.name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{picture.name}-", svg)
    svg = re.sub(r'href="#', f'href="#{picture.name}-', svg)
    svg = re.sub(r"'DejaVu Sans'(, sans-serif)?", "var(--sans)", svg)
    for colour, variable in variables().items():
        svg = re.sub(rf"{colour}\b", f"var({variable})", svg, flags=re.IGNORECASE)
    return svg


def variables() -> dict[str, str]:
    """Colour of a figure -> the CSS variable that stands for it on the page."""
    return {colour: f"--ink-{name}" for name, colour in plots.INK.items()} | {
        colour: f"--s{index}" for index, colour in enumerate(plots.SEQUENCE)
    }
