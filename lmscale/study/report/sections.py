"""The page of a report, section by section, in the order a reader asks: answer first, evidence after."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmscale.core.quantities import counted
from lmscale.study.plots import APPROACH_NAME, measured_runs
from lmscale.study.report import account, checklist, explore, methods, of_law, page, run_time, studies, summary, tables
from lmscale.study.report.answer import answer, cautions, usable
from lmscale.study.report.conventions import conventions
from lmscale.study.report.kinds import RATES, SCORES, TRANSFER, Kind
from lmscale.study.report.run_time import Waiting
from lmscale.study.report.sketch import DrawnFigure, inline
from lmscale.study.report.verdict import verdict

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut


HELD_OUT = "held_out"
"""The figure of predictions and measurements, which stands with the verdict."""
SLIDER = (
    "Drag the compute: the numbers are those of the fits, their intervals the percentiles of all of their draws, and a "
    "line moves through the figures over compute below (of this stage, where there are several)."
)
PARAMETERS = (
    "Move a parameter of the parametric law by its standard error. Moved alone, the optimum shifts as far as such an "
    "error would carry it; in the draws of the fit the others follow, which takes most of that back where parameters "
    "trade against each other."
)


def sections(
    table: "pd.DataFrame",
    fits: Sequence[Any],
    checked: "Sequence[HeldOut]",
    drawn: Sequence[DrawnFigure],
    *,
    kind: Kind,
    question: str,
    notes: Sequence[str],
    at: Sequence[float] | None,
    provenance: Sequence[tuple[str, str]],
    commands: Sequence[str],
    explored: Mapping[str, Any] | None = None,
    moved: Mapping[str, Any] | None = None,
    stages: Sequence[str] = (),
    forecasts: Sequence[str] = (),
    abilities: Sequence[str] = (),
    waiting: Waiting | None = None,
) -> list[str]:
    """HTML of every section; those with nothing to say are left out.

    `explored` and `moved` are those of `explore`, `waiting` is that of `run_time`; `stages`, `forecasts` and
    `abilities` are the sections of the modules of their names.
    """
    body = [
        *_cautions(fits),
        *_predictions(fits, checked, drawn, table),
        *_sliders(explored, moved),
        *_figures([one for one in drawn if one.name != HELD_OUT]),
        *abilities,
        *_allocations(table, fits, at),
        *_runs(table, fits, kind),
        page.heading("What was left out, and why"),
        page.bullets(account.left_out_lines(table, fits, checked, kind.fits_law)),
        *(part for fit in fits for part in _fit(fit)),
        *stages,
        *forecasts,
        *run_time.section(table, waiting),
        page.heading("Conventions"),
        page.definitions(of_law.conventions(kind, fits) if kind.inputs else conventions(table, fits)),
        *_checklist(table, fits, checked, kind),
        page.heading("How to reproduce"),
        page.definitions(provenance),
        *([page.code(commands)] if commands else []),
        page.paragraphs([_files(drawn)]),
    ]
    return [page.paragraphs([question], "question"), *_answer(table, fits, notes, kind), page.contents(body), *body]


def _predictions(
    fits: Sequence[Any], checked: "Sequence[HeldOut]", drawn: Sequence[DrawnFigure], table: "pd.DataFrame"
) -> list[str]:
    """Prediction against measurement: in a small table, as a picture, in sentences, and run by run."""
    sentences = verdict(fits, checked)
    if not sentences:
        return []
    return [
        page.heading("Was the prediction right?"),
        summary.checks(checked),
        *(figure(one) for one in drawn if one.name == HELD_OUT),
        page.paragraphs(sentences),
        tables.held_out(checked, table),
    ]


def _sliders(explored: Mapping[str, Any] | None, moved: Mapping[str, Any] | None) -> list[str]:
    parts = [page.heading("At any budget"), page.paragraphs([SLIDER]), explore.slider(explored)] if explored else []
    if moved:
        parts += [page.heading("How far an error in the fit carries", 3), page.paragraphs([PARAMETERS])]
        parts.append(explore.parameter_sliders(moved))
    return parts


def _figures(drawn: Sequence[DrawnFigure]) -> list[str]:
    return [page.heading("Figures"), *map(figure, drawn)] if drawn else []


def _allocations(table: "pd.DataFrame", fits: Sequence[Any], at: Sequence[float] | None) -> list[str]:
    if not (allocating := usable(fits)):
        return []
    title = page.heading("Compute-optimal allocation")
    return [title, page.paragraphs([_allocation(allocating)]), tables.allocation(table, fits, at)]


def _runs(table: "pd.DataFrame", fits: Sequence[Any], kind: Kind) -> list[str]:
    parts = [page.heading("Runs"), page.paragraphs([account.run_count(table)])]
    return [*parts, tables.runs(table, fits, kind.inputs)] if len(table) else parts


def _checklist(table: "pd.DataFrame", fits: Sequence[Any], checked: "Sequence[HeldOut]", kind: Kind) -> list[str]:
    """What a reviewer asks of a study of a law, folded."""
    if not kind.fits_law or kind.inputs:
        return []
    questions = page.definitions(checklist.checklist(table, fits, checked))
    source = page.paragraphs(["After the checklist of Li, Kudugunta and Zettlemoyer 2025, arXiv 2502.18969."], "small")
    return [
        page.heading("Checklist"),
        page.folded("What a reviewer asks, from the records", source + questions, open_=False),
    ]


def _fit(fit: Any) -> list[str]:
    """A fit's numbers, how it was made, and what it found about itself."""
    return [
        page.heading(f"Approach {fit.approach}, {APPROACH_NAME[fit.approach]}: the fit and its checks"),
        page.paragraphs([account.parameters(fit)]),
        page.definitions(_method(fit)),
        page.bullets(account.statuses(fit)),
    ]


def _method(fit: Any) -> list[tuple[str, str]]:
    return [("method", methods.method(fit)), ("intervals", methods.intervals(fit))]


def _allocation(fits: Sequence[Any]) -> str:
    intervals = " with their intervals" if any(fit.resamples for fit in fits) else ""
    return f"N*, D* and D*/N*{intervals}; rows in italics lie beyond the fitted compute: extrapolations."


def _files(drawn: Sequence[DrawnFigure]) -> str:
    figures = ", figures/ (each as SVG, PNG, and its data as CSV with the ids of the runs)" if drawn else ""
    return f"Beside this page: table.csv (every run), fits.json (every fitted number){figures}."


def _answer(table: "pd.DataFrame", fits: Sequence[Any], notes: Sequence[str], kind: Kind) -> list[str]:
    """The answer in one line with a small table, its sentences folded below; or in sentences where no line holds it."""
    sentences = answer_in_sentences(table, fits, kind)
    one_line = summary.line(fits, table) if kind.fits_law and not kind.inputs else ""
    if one_line:
        folded = page.folded(
            "The answer in sentences, and what its scale implies", page.paragraphs(sentences), open_=False
        )
        parts = [page.paragraphs([one_line], "answer"), summary.numbers(fits, table), folded]
    else:
        parts = [page.paragraphs(sentences, "answer")]
    return [*parts, *([page.paragraphs(notes, "caution")] if notes else [])]


def _cautions(fits: Sequence[Any]) -> list[str]:
    warnings = cautions(fits)
    return [page.heading("Before using these numbers"), page.bullets(warnings)] if warnings else []


def answer_in_sentences(table: "pd.DataFrame", fits: Sequence[Any], kind: Kind) -> list[str]:
    """What the runs say to the question of their kind, or why they are too few for it."""
    if kind.inputs:
        few = f"{counted(len(table), 'run')} cannot fix a law of {', '.join(kind.inputs[:-1])}."
        return of_law.answer(fits) or [few]
    if kind.fits_law:
        return answer(fits, table) or [_no_answer(table)]
    runs = studies.tried_runs(table) if kind in (RATES, TRANSFER) else measured_runs(table)
    return studies.answer(kind, runs) or [_too_few(table, kind)]


def _too_few(table: "pd.DataFrame", kind: Kind) -> str:
    if kind == SCORES:
        return (
            "The runs have scores on benchmark tasks; the section on abilities below judges each task, "
            "as `lmscale emergence` on their folder does."
        )
    runs, measured = counted(len(table), "run"), len(measured_runs(table))
    return f"Of {runs} {measured} have a measured loss: too few to answer the question."


def _no_answer(table: "pd.DataFrame") -> str:
    complete = len(measured_runs(table)) if len(table) else 0
    return (
        f"This table cannot answer the question: of its {counted(len(table), 'run')} {complete} have a measured loss "
        f"with N, D and C, and no fit through them fixes an allocation."
    )


def figure(drawn: DrawnFigure) -> str:
    """A figure with its heading: the drawing, in whose place the page's script puts the interactive one."""
    caption = f"<figcaption>{page.text(drawn.caption)}</figcaption>"
    named = f' data-chart="{drawn.name}"' if drawn.charts else ""
    return f'{page.heading(drawn.heading, 3)}<figure{named}><div class="drawn">{inline(drawn)}</div>{caption}</figure>'
