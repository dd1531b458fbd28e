"""The page of a report, section by section, in the order a reader asks: answer first, evidence after."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmscale.study.plots import SHORT, measured
from lmscale.study.report import account, page, rows, words
from lmscale.study.report.pictures import Picture, inline

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut


def sections(
    table: "pd.DataFrame",
    fits: Sequence[Any],
    checked: "Sequence[HeldOut]",
    drawn: Sequence[Picture],
    *,
    question: str,
    notes: Sequence[str],
    at: Sequence[float] | None,
    made: Sequence[tuple[str, str]],
    commands: Sequence[str],
) -> list[str]:
    """HTML of every section; those with nothing to say are left out."""
    parts = [page.paragraphs([question], "question"), *_answer(table, fits, notes)]
    if verdict := words.verdict(fits, checked):
        title = page.heading("Was the prediction right?")
        parts += [title, page.paragraphs(verdict), rows.held_out(checked, table)]
    parts += [page.heading("Figures")] if drawn else []
    parts += [_figure(one) for one in drawn]
    if words.usable(fits):
        said = "N*, D* and D*/N* with their intervals; rows in italics lie beyond the fitted compute: extrapolations."
        title = page.heading("Compute-optimal allocation")
        parts += [title, page.paragraphs([said]), rows.allocation(table, fits, at)]
    parts += [page.heading("Runs"), page.paragraphs([account.counted(table)])]
    parts += [rows.runs(table, fits)] if len(table) else []
    parts += [page.heading("What was left out, and why"), page.bullets(account.left_out_lines(table, fits))]
    for fit in fits:
        parts.append(page.heading(f"Approach {fit.approach}, {SHORT[fit.approach]}: the fit and its checks"))
        parts += [page.paragraphs([account.parameters(fit)]), page.bullets(account.statuses(fit))]
    parts += [page.heading("Conventions"), page.definitions(account.conventions(table, fits))]
    parts += [page.heading("How to reproduce"), page.definitions(made)]
    parts += [page.code(commands)] if commands else []
    beside = "Beside this page: table.csv (every run), fits.json (every fitted number), figures/ (SVG and PNG)."
    return [*parts, page.paragraphs([beside])]


def _answer(table: "pd.DataFrame", fits: Sequence[Any], notes: Sequence[str]) -> list[str]:
    answer = words.answer(fits, table)
    if not answer:
        seen = len(measured(table)) if len(table) else 0
        answer = [
            f"This table cannot answer the question: of its {len(table)} runs {seen} have a measured loss, and no fit "
            f"through them fixes an allocation."
        ]
    parts = [page.paragraphs(answer, "answer")]
    parts += [page.paragraphs(notes, "caution")] if notes else []
    if cautions := words.cautions(fits):
        parts += [page.heading("Before using these numbers"), page.bullets(cautions)]
    return parts


def _figure(one: Picture) -> str:
    caption = f"<figcaption>{page.text(one.caption)}</figcaption>"
    return f"{page.heading(one.heading, 3)}<figure>{inline(one)}{caption}</figure>"
