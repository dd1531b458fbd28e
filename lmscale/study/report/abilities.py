"""At which scale each ability appears, inside the page: the scores of a sweep's runs, their curves and verdicts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.core.quantities import Z_95, counted
from lmscale.study.plots.axes import padded
from lmscale.study.plots.emergence import AXIS, CLASS_COLOUR, score_stderr, threshold_text
from lmscale.study.plots.style import INK
from lmscale.study.report import drawing, page
from lmscale.study.report.marks import Axis, Chart, Mark, Numerals, ink, joined
from lmscale.study.report.sketch import Sketch

if TYPE_CHECKING:
    from lmscale.study.emergence import Emergence
    from lmscale.study.emergence.curves import Curve
    from lmscale.study.emergence.finding import Finding

MOST = 8
"""Curves that are drawn, emergent ones first; the table has all."""
ORDER = ("emergent", "u-shaped", "inverse", "smooth", "undetermined", "flat")
HEADS = ("task", "metric", "class", "threshold [95 %]", "score, first to last", "chance", "verdict")
SCALES = ("params", "flops", "loss")
"""Axes in the order in which they are tried: a sweep's runs lie over the first that orders them."""
MEANING = (
    "Emergent: a score stays at its floor and then rises. The threshold is the foot of that rise: the last scale with "
    "the floor's score, with its 95 % interval. Where a graded metric of the same answers bends too, the verdict "
    "is corroborated; where it does not, the jump is of the metric."
)


@dataclass(frozen=True)
class Abilities:
    """The verdicts on a sweep's scores; why there are none, where its scores allow none."""

    result: "Emergence | None"
    problem: str = ""

    @property
    def ordered(self) -> "list[Finding]":
        """The findings, emergent ones first."""
        findings = self.result.findings if self.result is not None else ()
        return sorted(findings, key=lambda one: (ORDER.index(one.cls), one.curve.name, one.curve.metric))

    def to_json(self) -> list[dict[str, Any]]:
        """What fits.json has of them."""
        return [] if self.result is None else self.result.to_json()


def abilities_of(runs_folder: str | Path | None, stage: str | None = None) -> Abilities | None:
    """The verdicts on the scores of a sweep's runs of one stage; None where no run has scores."""
    from lmscale.core.scores import has_scores
    from lmscale.study.emergence.detector import detect
    from lmscale.study.emergence.folder import read_scores
    from lmscale.study.fits.checks.stages import one_stage

    if runs_folder is None or not has_scores(Path(runs_folder)):
        return None
    problem = ""
    try:
        scores = one_stage(read_scores(Path(runs_folder)), stage)
    except UserError as error:
        return Abilities(None, str(error))
    for axis in SCALES:
        try:
            return Abilities(detect(scores, axis))  # type: ignore[arg-type] # a name of `Axis`
        except UserError as error:
            problem = problem or str(error)
    return Abilities(None, problem)


def sketches(abilities: Abilities | None) -> list[Sketch]:
    """The figures of the first curves, two panels in each."""
    if abilities is None:
        return []
    charts = [chart(finding) for finding in abilities.ordered[:MOST]]
    count = len(abilities.ordered)
    hint = f" The first {MOST} of {count} curves are drawn; the table below has all." if count > MOST else ""
    return [_sketch(charts[start : start + 2], start, hint) for start in range(0, len(charts), 2)]


def _sketch(charts: Sequence[Chart], start: int, hint: str) -> Sketch:
    places = f", {start + 1} and {start + 2}" if len(charts) == 2 else f", {start + 1}"
    caption = (
        "Score against scale, a point for each scale with 95 % of its noise; dashed: chance; line: the fitted curve; "
        f"diamond: the threshold of an emergent curve, on the bar of its 95 % interval.{hint}"
    )
    name = "scores" if start == 0 else f"scores-{start // 2 + 1}"
    return Sketch(name, f"Benchmark scores{places}", caption, 4.2, len(charts), partial(_paint, charts), lambda: charts)


def _paint(charts: Sequence[Chart], *axes: Any) -> None:
    for ax, one in zip(axes, charts):
        drawing.draw(ax, one)
        ax.set_title(one.title)


def chart(finding: "Finding") -> Chart:
    """One curve as data: points, noise, chance, fitted curve and threshold."""
    curve = finding.curve
    colour = ink({value: name for name, value in INK.items()}[CLASS_COLOUR[finding.cls]])
    x, scores, error = curve.x_S.tolist(), curve.score_S, Z_95 * score_stderr(finding)
    low, high = scores - error, scores + error
    if curve.kind == "hard":
        low, high = np.maximum(low, 0), np.minimum(high, 1)
    known = np.isfinite(error)
    noise = Mark("bars", "95 % of the noise", curve.x_S[known].tolist(), low=low[known].tolist(),
                 high=high[known].tolist(), colour=colour, opacity=0.6)  # fmt: skip
    runs = [joined(of_scale) for of_scale in curve.runs_S]
    marks = [noise, Mark("points", curve.metric, x, scores.tolist(), runs=runs, colour=colour, key=finding.cls)]
    if finding.fitted is not None:
        along_S, fitted_S = finding.fitted
        marks.insert(0, Mark("line", "fitted curve", along_S.tolist(), fitted_S.tolist(), colour=colour))
    if np.isfinite(curve.chance):
        chance = [float(curve.chance)]
        marks.insert(0, Mark("level", f"chance, {chance[0]:.3g}", y=chance, colour=ink("muted"), dashed=True))
    heights = np.concatenate([low[known], high[known], scores, [curve.chance] * bool(np.isfinite(curve.chance))])
    margin = 0.08 * float(np.ptp(heights)) or 0.05
    floor = float(heights.min()) - margin / 2
    up = Axis(f"{curve.name}, {curve.metric}", floor - margin / 2, float(heights.max()) + margin, log=False)
    return Chart(f"{curve.name}, {curve.metric}: {finding.cls}", _scale(curve), up, [*marks, *_foot(finding, floor)])


def _scale(curve: "Curve") -> Axis:
    """The axis of scale, on which a loss rises to the right."""
    label = AXIS[curve.axis].removesuffix(", falling to the right")
    numerals: dict[str, Numerals] = {"flops": "power", "loss": "plain"}
    by_logarithm = curve.axis != "loss"
    return Axis(label, *padded(curve.x_S, 0.05), log=by_logarithm, numerals=numerals.get(curve.axis, "compact"))


def _foot(finding: "Finding", height: float) -> list[Mark]:
    """The threshold and its interval, below the points."""
    if finding.threshold is None or finding.interval is None:
        return []
    low, high = finding.interval
    name = f"threshold {threshold_text(finding)}"
    interval = Mark("bars", name, y=[height], low=[low], high=[high], along="x", colour=ink("text"), width=2.0)
    return [interval, Mark("points", name, [finding.threshold], [height], shape="diamond", colour=ink("text"))]


def section(abilities: Abilities | None) -> list[str]:
    """The verdicts in a sentence and a table; why there are none, where scores allow none."""
    from lmscale.study.emergence.finding import UNIT
    from lmscale.study.emergence.summary import finding_cells

    if abilities is None:
        return []
    title = page.heading("At which scale abilities appear")
    if abilities.result is None:
        return [title, page.paragraphs([f"The runs' scores allow no verdict: {abilities.problem}."])]
    findings = abilities.ordered
    axis, counts = findings[0].curve.axis, Counter(finding.cls for finding in findings)
    summary = ", ".join(f"{counts[cls]} {cls}" for cls in ORDER if counts[cls])
    rows = [("", list(finding_cells(finding))) for finding in findings]
    return [
        title,
        page.paragraphs([f"{counted(len(findings), 'curve')} over {axis} ({UNIT[axis]}): {summary}.", MEANING]),
        page.table([(head, "") for head in HEADS], rows, text_columns=(0, 1, 2, 3, 4, 6)),
        page.bullets(abilities.result.notes) if abilities.result.notes else "",
    ]
