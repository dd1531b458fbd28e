"""The stages of training that a sweep has beside the one that a page is about: how many runs each has, and its page."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lmscale.core.config import PRETRAIN
from lmscale.study.fits.checks.stages import COLUMN
from lmscale.study.report import page
from lmscale.study.report.page import Number

if TYPE_CHECKING:
    import pandas as pd


def runs_by_stage(table: "pd.DataFrame") -> dict[str, int]:
    """Stage -> its runs, in the order of the table; a run that states none is of pretraining."""
    if COLUMN not in table:
        return {}
    stages = table[COLUMN].astype(object).where(table[COLUMN].notna(), PRETRAIN).astype(str)
    counts = stages.value_counts()
    return {stage: int(counts[stage]) for stage in dict.fromkeys(stages)}


def section(counts: Mapping[str, int], this: str, source: str) -> list[str]:
    """A table of the stages, with the command of each one's page; nothing where there is only one."""
    if len(counts) < 2:
        return []
    rows: list[tuple[str, list[page.Cell]]] = [
        ("", [stage, Number(str(count), count), "this page" if stage == this else command(source, stage)])
        for stage, count in counts.items()
    ]
    return [
        page.heading("Stages of training"),
        page.paragraphs(["Losses of different stages belong to different laws, so each stage has a page of its own."]),
        page.table([("stage", ""), ("runs", ""), ("its page", "")], rows, text_columns=(0, 2)),
    ]


def command(source: str, stage: str) -> str:
    """The line that writes the page of a stage, beside the others."""
    return f"lmscale report {source} --stage {stage} --output {source}/report-{stage}"
