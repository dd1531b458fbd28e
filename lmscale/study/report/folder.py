"""The files of a report beside its page: the fits with their checks, the tables, and what the page's scripts read."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core import files
from lmscale.study.fits.results.common import clean
from lmscale.study.report import sketch
from lmscale.study.report.abilities import Abilities
from lmscale.study.report.sketch import DrawnFigure
from lmscale.study.report.stages import Stage
from lmscale.study.tables.writing import csv_text

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut

FITS_FILE = "fits.json"


def write_fits(
    folder: Path,
    title: str,
    answer: Sequence[str],
    fits: Sequence[Any],
    held_out: "Sequence[HeldOut]",
    scores: Abilities | None,
    stages: Iterable[Stage],
) -> str:
    """Write the answer, the fits, their checks and the verdicts on benchmark scores; the name of the file."""
    by_stage = {stage.name: stage.to_json() for stage in stages}
    value = {
        "title": title,
        "answer": list(answer),
        "fits": [fit.to_json() for fit in fits],
        "held_out": [check.to_json() for check in held_out],
        **({"emergence": scores.to_json()} if scores is not None else {}),
        **({"stages": by_stage} if by_stage else {}),
    }
    files.write_json(folder / FITS_FILE, clean(value))
    return FITS_FILE


def write_tables(folder: Path, table: "pd.DataFrame", stages: Iterable[Stage]) -> list[str]:
    """Write the table of the page's runs, and that of each other stage; the names of the files."""
    tables = {"table.csv": table} | {f"table-{stage.name}.csv": stage.table for stage in stages}
    for name, rows in tables.items():
        files.write_text(folder / name, csv_text(rows))
    return list(tables)


def script_data(
    runs: Mapping[str, Mapping[str, Any]],
    figures: Iterable[DrawnFigure],
    explored: Mapping[str, Any] | None,
    moved: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the page embeds for its scripts; the runs only where they are few enough to be pointed at."""
    return {
        "runs": runs if len(runs) <= sketch.MOST_POINTS else {},
        "charts": {figure.name: [chart.to_json() for chart in figure.charts] for figure in figures},
        "explore": explored,
        "sensitivity": moved,
    }
