"""The page of a report, section by section, in the order a reader asks: answer first, evidence after."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmscale.study.plots import APPROACH_NAME, measured_runs
from lmscale.study.report import account, methods, of_law, page, studies, tables
from lmscale.study.report.answer import answer, cautions, usable
from lmscale.study.report.conventions import conventions
from lmscale.study.report.figures import DrawnFigure, inline
from lmscale.study.report.kinds import SCORES, Kind
from lmscale.study.report.verdict import verdict

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut


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
) -> list[str]:
    """HTML of every section; those with nothing to say are left out."""
    parts = [page.paragraphs([question], "question"), *_answer(table, fits, notes, kind)]
    if sentences := verdict(fits, checked):
        title = page.heading("Was the prediction right?")
        parts += [title, page.paragraphs(sentences), tables.held_out(checked, table)]
    parts += [page.heading("Figures")] if drawn else []
    parts += [_figure(figure) for figure in drawn]
    if allocating := usable(fits):
        title = page.heading("Compute-optimal allocation")
        parts += [title, page.paragraphs([_allocation(allocating)]), tables.allocation(table, fits, at)]
    parts += [page.heading("Runs"), page.paragraphs([account.run_count(table)])]
    parts += [tables.runs(table, fits, kind.inputs)] if len(table) else []
    parts += [
        page.heading("What was left out, and why"),
        page.bullets(account.left_out_lines(table, fits, checked, kind.fits_law)),
    ]
    for fit in fits:
        parts.append(page.heading(f"Approach {fit.approach}, {APPROACH_NAME[fit.approach]}: the fit and its checks"))
        parts += [page.paragraphs([account.parameters(fit)]), page.definitions(_method(fit))]
        parts.append(page.bullets(account.statuses(fit)))
    meanings = of_law.conventions(kind, fits) if kind.inputs else conventions(table, fits)
    parts += [page.heading("Conventions"), page.definitions(meanings)]
    parts += [page.heading("How to reproduce"), page.definitions(provenance)]
    parts += [page.code(commands)] if commands else []
    return [*parts, page.paragraphs([_files(bool(drawn))])]


def _method(fit: Any) -> list[tuple[str, str]]:
    return [("method", methods.method(fit)), ("intervals", methods.intervals(fit))]


def _allocation(fits: Sequence[Any]) -> str:
    intervals = " with their intervals" if any(fit.resamples for fit in fits) else ""
    return f"N*, D* and D*/N*{intervals}; rows in italics lie beyond the fitted compute: extrapolations."


def _files(any_figure: bool) -> str:
    figures = ", figures/ (SVG and PNG)" if any_figure else ""
    return f"Beside this page: table.csv (every run), fits.json (every fitted number){figures}."


def _answer(table: "pd.DataFrame", fits: Sequence[Any], notes: Sequence[str], kind: Kind) -> list[str]:
    sentences = _sentences(table, fits, kind)
    parts = [page.paragraphs(sentences, "answer")]
    parts += [page.paragraphs(notes, "caution")] if notes else []
    if warnings := cautions(fits):
        parts += [page.heading("Before using these numbers"), page.bullets(warnings)]
    return parts


def _sentences(table: "pd.DataFrame", fits: Sequence[Any], kind: Kind) -> list[str]:
    if kind.inputs:
        few = f"These {len(table)} runs fix no law of {', '.join(kind.inputs[:-1])}."
        return of_law.answer(fits) or [few]
    if kind.fits_law:
        return answer(fits, table) or [_no_answer(table)]
    return studies.answer(kind, measured_runs(table)) or [_too_few(table, kind)]


def _too_few(table: "pd.DataFrame", kind: Kind) -> str:
    if kind == SCORES:
        return "The runs have scores on benchmark tasks; `lmscale emergence` on their folder judges each task."
    return f"Of {len(table)} runs {len(measured_runs(table))} have a measured loss: too few to answer the question."


def _no_answer(table: "pd.DataFrame") -> str:
    complete = len(measured_runs(table)) if len(table) else 0
    return (
        f"This table cannot answer the question: of its {len(table)} runs {complete} have a measured loss with N, D "
        f"and C, and no fit through them fixes an allocation."
    )


def _figure(figure: DrawnFigure) -> str:
    caption = f"<figcaption>{page.text(figure.caption)}</figcaption>"
    return f"{page.heading(figure.heading, 3)}<figure>{inline(figure)}{caption}</figure>"
