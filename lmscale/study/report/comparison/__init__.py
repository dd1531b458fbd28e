"""Two or more sweeps or tables on one page: laws side by side, the compute that one saves, what differs between them.

Sweeps that fix no law (of learning rates, seeds, repeats, context lengths, benchmark scores) are compared at the points
that both ran: best rates, losses with the noise of seeds, scores.

    comparison.write(["runs/dense", "runs/experts"], "reports/dense-experts")

The first is what the others are compared with. Losses of different tokens are compared in bits per byte.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core import files
from lmscale.core.errors import UserError
from lmscale.core.run_folder import REPORT_FILE

if TYPE_CHECKING:
    from lmscale.study.laws import Law
    from lmscale.study.report.comparison.points import Point
    from lmscale.study.report.comparison.scores import ScoreRow
    from lmscale.study.report.comparison.sides import Side, Unit
    from lmscale.study.report.marks import Chart
    from lmscale.study.report.sketch import Sketch

QUESTION = "Which of these reaches the same loss with less compute, and do their laws split compute alike?"
COMPARISON_FILE = "comparison.json"
POINTS_QUESTION = "Which of these has the lower loss where both ran the same, and are their best settings the same?"


def write(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    resamples: int | None = None,
    seed: int = 0,
    stage: str | None = None,
    mixed_corpora: bool = False,
    law: "str | type[Law] | None" = None,
    given: Mapping[str, float] | None = None,
) -> Path:
    """Fit every source and write the page that compares them; its path.

    `law` is the form of Approach 3 for all, a name, class or import path; None is for each sweep the one that it was
    planned for, for a table Chinchilla's. `given` are values of a law's inputs besides N and D, at which allocations
    are compared; without them its parameters alone are. Raises `UserError` where a source is absent, corrupt or given
    twice, without a measured run or a column of the `law`, and for a law that there is not.
    """
    from lmscale.study.report import manifest, page
    from lmscale.study.report.command import report_command
    from lmscale.study.report.comparison import laws, sections
    from lmscale.study.report.comparison.scores import score_rows
    from lmscale.study.report.comparison.sides import comparable_unit, labels

    names = labels([str(source) for source in sources])
    how: dict[str, Any] = {"resamples": resamples, "seed": seed, "stage": stage, "mixed_corpora": mixed_corpora,
                           "law": law, "given": given}  # fmt: skip
    command = report_command(sources, **how)
    sides = [read_side(str(source), name, **how) for source, name in zip(sources, names)]
    unit = comparable_unit(sides)
    multipliers = [
        laws.multiplier(sides[0], side, unit, (unit.factors[0], unit.factors[index]))
        for index, side in enumerate(sides[1:], 1)
    ]
    points, scores = _shared_points(sides, unit), score_rows(sides, stage)
    drawn = [figure.save(Path(output) / "figures") for figure in _sketches(sides, unit, points)]
    title = f"Comparison of {sections.title(sides)}"
    parts = _parts(sides, unit, multipliers, drawn, points, scores, command)
    data = {"runs": _records(sides), "charts": {one.name: [chart.to_json() for chart in one.charts] for one in drawn}}
    files.write_json(Path(output) / COMPARISON_FILE, _numbers(sides, unit, multipliers, points, scores))
    files.write_text(Path(output) / REPORT_FILE, page.document(title, [page.heading(title, 1), *parts], data=data))
    manifest.update(Path(output), [COMPARISON_FILE, *manifest.figure_files(one.name for one in drawn)])
    return Path(output) / REPORT_FILE


def read_side(
    source: str,
    label: str,
    *,
    law: "str | type[Law] | None" = None,
    given: Mapping[str, float] | None = None,
    resamples: int | None = None,
    seed: int = 0,
    stage: str | None = None,
    mixed_corpora: bool = False,
) -> "Side":
    """A source with the fits that it supports. Raises `UserError` without a measured run, and as `write` does."""
    from lmscale.core.plans import read_purpose
    from lmscale.study.report.comparison.sides import Side
    from lmscale.study.report.naming import named
    from lmscale.study.report.source import read_source

    folder = Path(source) if Path(source).is_dir() else None
    planned = read_purpose(folder).get("law") if folder is not None else None
    one = read_source(
        source, law=law, planned_law=planned, given=given, runs_folder=folder, stage=stage,
        resamples=resamples, seed=seed, mixed_corpora=mixed_corpora,
    )  # fmt: skip
    table = named(one.table)
    side = Side(label, source, table, tuple(one.fits), folder, one.runs_kind)
    if not len(table) or not len(side.runs):
        raise UserError(f"{source} has no run with a measured loss: run it first, or leave it out of the comparison")
    return side


def _shared_points(sides: "Sequence[Side]", unit: "Unit") -> "list[Point]":
    """The points that sides have in common, where laws say less: where none can be compared, or rates were tuned."""
    from lmscale.study.report.comparison import laws, points

    common = points.common_points(sides)
    tuned = any(one is not None and one.rate is not None for point in common for one in point.sides)
    return common if tuned or not laws.compared(sides, unit) else []


def _sketches(sides: "Sequence[Side]", unit: "Unit", points: "Sequence[Point]") -> "list[Sketch]":
    """The figures, drawn from the same marks that the page shows."""
    from lmscale.study.report.comparison import charts, point_sections
    from lmscale.study.report.sketch import Sketch

    noises = [point_sections.pair_noise(sides, unit, other) for other in range(1, len(sides))]
    fitted = any(side.fit is not None for side in sides)
    bands = " with 95 % intervals" if any(side.fit is not None and side.fit.resamples for side in sides) else ""
    lines = f" Lines: the loss L*(C) of the fits{bands}." * fitted
    rates = charts.best_rates(sides, points)
    best = ", at the best of the rates tried" * (rates is not None)
    noise = "; bars: 95 % of the noise of seeds" * any(one.freedom for one in noises)
    described = [
        ("losses", "Loss against compute", f"Points: final losses.{lines}", charts.losses(sides, unit)),
        ("ratios", "Tokens per parameter against compute", f"D*/N* of the fits{bands}.",
         charts.ratios(sides) if fitted else None),
        ("changes", f"Losses at the same points, less those of {sides[0].label}",
         f"A point for each size and length that both ran{best}{noise}.",
         None if unit.caution else charts.loss_changes(sides, unit, points, noises)),
        ("best_rates", "Best learning rates at the same points",
         "Diamonds: the best rate, open at the edge of those tried; bars: to the rates tried beside it.",
         rates),
    ]  # fmt: skip
    return [
        Sketch(name, title, caption, 4.6, 1, partial(_paint, chart), partial(list, [chart]))
        for name, title, caption, chart in described
        if chart is not None
    ]


def _paint(chart: "Chart", ax: Any) -> None:
    from lmscale.study.report import drawing

    drawing.draw(ax, chart)


def _parts(
    sides: "Sequence[Side]",
    unit: "Unit",
    multipliers: Sequence[Any],
    drawn: Sequence[Any],
    points: "Sequence[Point]",
    scores: "Sequence[ScoreRow]",
    command: str,
) -> list[str]:
    from lmscale.study.report import page
    from lmscale.study.report.comparison import point_sections, sections
    from lmscale.study.report.comparison import scores as score_sections
    from lmscale.study.report.sections import figure

    body = [
        *sections.side_by_side(sides, unit),
        *point_sections.section(sides, unit, points),
        *score_sections.section(sides, scores),
        page.heading("Figures"),
        *map(figure, drawn),
        page.heading("What differs"),
        *sections.differing(sides),
        page.heading("Runs"),
        *sections.counts(sides),
        page.heading("How to reproduce"),
        page.code([command]),
        page.paragraphs(["Beside this page: comparison.json (every number), figures/ (SVG, PNG and CSV)."]),
    ]
    cautions = [f"{unit.caution}."] if unit.caution else []
    return [
        page.paragraphs([QUESTION if all(side.is_ladder for side in sides) else POINTS_QUESTION], "question"),
        page.paragraphs(sections.answer(sides, multipliers, unit, points, scores), "answer"),
        *([page.paragraphs(cautions, "caution")] if cautions else []),
        page.contents(body),
        *body,
    ]


def _records(sides: "Sequence[Side]") -> dict[str, dict[str, Any]]:
    from lmscale.study.report.comparison.charts import run_key
    from lmscale.study.report.records import records

    return {
        run_key(side, run): record
        for side in sides
        for run, record in records(side.table, side.fits, side.folder).items()
    }


def _numbers(
    sides: "Sequence[Side]",
    unit: "Unit",
    multipliers: Sequence[Any],
    points: "Sequence[Point]",
    scores: "Sequence[ScoreRow]",
) -> dict[str, Any]:
    """What the page states, as plain numbers."""
    from dataclasses import asdict

    from lmscale.study.fits.results.common import clean
    from lmscale.study.report.comparison import differences, laws, point_sections

    value: dict[str, Any] = clean(
        {
            "sides": [side.label for side in sides],
            "unit": asdict(unit),
            "extrapolated": laws.extrapolated(sides),
            "quantities": [asdict(row) for row in laws.compared(sides, unit)],
            "multipliers": [one if isinstance(one, str) else one.to_json() for one in multipliers],
            "points": point_sections.to_json(sides, unit, points),
            "scores": [{**asdict(row), "changes": [asdict(row.change(other)) for other in range(1, len(sides))]}
                       for row in scores],
            "differences": [{"field": name, "values": values} for name, values in differences.differences(sides)],
        }
    )  # fmt: skip
    return value
