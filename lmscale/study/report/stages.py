"""The stages of training that a sweep has beside the one that a page is about: each with its answer, figures and runs.

Losses of different stages belong to different laws, so each stage has fits of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core.config import PRETRAIN
from lmscale.study.fits.checks.stages import COLUMN, one_stage
from lmscale.study.report import account, brief, figures, page, sections, summary, tables
from lmscale.study.report.kinds import Kind
from lmscale.study.report.naming import named
from lmscale.study.report.page import Number
from lmscale.study.report.records import records
from lmscale.study.report.sketch import DrawnFigure
from lmscale.study.report.verdict import verdict

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut

FitStage = Callable[["pd.DataFrame", Kind], "tuple[list[Any], list[HeldOut], list[str]]"]
"""Fits to the rows of a stage, their checks, and a sentence for each that could not be made."""


@dataclass(frozen=True, eq=False)
class Stage:
    """The rows of one stage, what was fitted to them, and what could not be."""

    name: str
    kind: Kind
    table: "pd.DataFrame"
    fits: Sequence[Any]
    checked: "Sequence[HeldOut]"
    notes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """What fits.json has of the stage."""
        return {
            "answer": brief.brief(self.fits, self.table, self.checked),
            "fits": [fit.to_json() for fit in self.fits],
            "held_out": [check.to_json() for check in self.checked],
        }

    def records(self, runs_folder: str | Path | None) -> dict[str, dict[str, Any]]:
        """What the page says of a run of it that a reader points at."""
        return records(self.table, self.fits, runs_folder)

    def draw(self, folder: Path, runs_folder: str | Path | None) -> list[DrawnFigure]:
        """Its figures, in a folder of its own below `folder`, under names that begin with that of the stage.

        The slider over compute is of the page's own stage, and moves no line through them.
        """
        from lmscale.study import plots

        curves = plots.read_curves(runs_folder, self.table)[0] if runs_folder is not None else {}
        drawn = figures.draw(
            self.table, self.fits, self.checked, curves, folder / self.name, kind=self.kind,
            records=self.records(runs_folder),
        )  # fmt: skip
        return [
            replace(
                one, name=f"{self.name}-{one.name}", heading=f"{self.name}: {one.heading}",
                charts=[replace(chart, follows="") for chart in one.charts],
            )
            for one in drawn
        ]  # fmt: skip


@dataclass(frozen=True)
class Stages:
    """The stages of a sweep: the one that the page is about, and the others."""

    this: str
    source: str
    """The sweep's folder or the table, as a command names it."""
    counts: Mapping[str, int]
    """Stage -> its runs."""
    others: Sequence[Stage]

    def section(self, drawn: "Mapping[Stage, Sequence[DrawnFigure]]") -> list[str]:
        """The table of the stages, and what is said of each other one."""
        parts = [text for stage, figures_of in drawn.items() for text in part(stage, figures_of)]
        return section(self.counts, self.this, self.source, parts)


def runs_by_stage(table: "pd.DataFrame") -> dict[str, int]:
    """Stage -> its runs, in the order of the table; a run that states none is of pretraining."""
    if COLUMN not in table:
        return {}
    stages = table[COLUMN].astype(object).where(table[COLUMN].notna(), PRETRAIN).astype(str)
    counts = stages.value_counts()
    return {stage: int(counts[stage]) for stage in dict.fromkeys(stages)}


def others(table: "pd.DataFrame", this: str, kind_of: Callable[["pd.DataFrame"], Kind], fit: FitStage) -> list[Stage]:
    """Every other stage of a table with its fits; its rows are told from those of the others by name."""
    stages = []
    for name in runs_by_stage(table):
        if name != this:
            rows = named(one_stage(table, name))
            rows.attrs["dropped"] = []  # the page's own account names the runs of other stages
            kind = kind_of(rows)
            stages.append(Stage(name, kind, rows, *fit(rows, kind)))
    return stages


def section(counts: Mapping[str, int], this: str, source: str, parts: Sequence[str] = ()) -> list[str]:
    """A table of the stages, with the command of each one's page, and what is said of each; nothing of only one."""
    if len(counts) < 2:
        return []
    rows: list[tuple[str, list[page.Cell]]] = [
        ("", [stage, Number(str(count), count), "this page" if stage == this else command(source, stage)])
        for stage, count in counts.items()
    ]
    return [
        page.heading("Stages of training"),
        page.paragraphs(
            ["Losses of different stages belong to different laws, so each stage is fitted alone. All that is above is "
             f"about {this}; the others follow, and each has a page of its own, too."]
        ),
        page.table([("stage", ""), ("runs", ""), ("its page", "")], rows, text_columns=(0, 2)),
        *parts,
    ]  # fmt: skip


def part(stage: Stage, drawn: Sequence[DrawnFigure]) -> list[str]:
    """One other stage: its answer with a small table, the verdict on its held-out runs, its figures and its runs."""
    law = stage.kind.fits_law
    line = summary.line(stage.fits, stage.table) if law else ""
    answer = [line] if line else sections.answer_in_sentences(stage.table, stage.fits, stage.kind)
    notes = [*stage.notes, *account.left_out_lines(stage.table, stage.fits, stage.checked, law)]
    return [
        page.heading(f"Stage: {stage.name}"),
        page.paragraphs([stage.kind.question]),
        page.paragraphs(answer, "answer"),
        summary.numbers(stage.fits, stage.table) if line else "",
        page.paragraphs(verdict(stage.fits, stage.checked)),
        *(page.paragraphs([account.parameters(fit)]) for fit in stage.fits),
        *map(sections.figure, drawn),
        page.heading(f"{stage.name}: runs", 3),
        page.paragraphs([account.run_count(stage.table)]),
        tables.runs(stage.table, stage.fits, stage.kind.inputs),
        page.folded(f"What was left out of {stage.name}, and why", page.bullets(notes), open_=False),
    ]


def command(source: str, stage: str) -> str:
    """The line that writes the page of a stage, beside the others."""
    return f"lmscale report {source} --stage {stage} --output {source}/report-{stage}"
