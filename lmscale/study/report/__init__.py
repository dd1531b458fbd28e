"""A study as a folder: `report.html` (one self-contained page), `figures/`, `fits.json`, `table.csv`.

    report.of_sweep("runs/isoflop_cpu")                       # fits, checks the held-out runs, writes .../report
    report.of_table("chinchilla", "reports/chinchilla")       # a published table, without curves or held-out runs
    report.write(table, fits, "reports/mine", title="Mine", held_out=checks)    # fits that are already made

The page opens with the question and its answer; it names every run, also those that never finished, and says what was
left out and why. Its figures answer the pointer, its tables sort, its sliders move budget and parameters; without
scripts and on paper it says the same. The same inputs give the same bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core import files
from lmscale.core.run_folder import REPORT_FILE, REPORT_FOLDER
from lmscale.study.report.naming import named

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut
    from lmscale.study.laws import Law
    from lmscale.study.report.kinds import Kind
    from lmscale.study.report.stages import Stages


def of_sweep(
    folder: str | Path,
    output: str | Path | None = None,
    *,
    resamples: int | None = None,
    stage: str | None = None,
    mixed_corpora: bool = False,
    seed: int = 0,
    title: str = "",
    question: str = "",
    commands: Sequence[str] = (),
    baselines: Mapping[str, float] | None = None,
    law: "str | type[Law] | None" = None,
    given: Mapping[str, float] | None = None,
) -> Path:
    """Fit a sweep's finished runs, check the held-out ones and write the report; the page's path.

    Of several stages of training the page is about `stage`, pretraining unless another is given. Runs on several
    corpora are fitted together only where `mixed_corpora`; the page says that they are there.
    `output` None is `<folder>/report`; `law` None is that of the sweep; `given` as `of_table`, `baselines` as `write`
    takes them. Raises `UserError` where the folder holds no plan or a corrupt file.
    """
    from lmscale.core.plans import read_plan, read_purpose

    folder = Path(folder)
    name, _ = read_plan(folder)
    purpose = read_purpose(folder)
    return of_table(
        folder, output or folder / REPORT_FOLDER, resamples=resamples, stage=stage, mixed_corpora=mixed_corpora,
        seed=seed, title=title, name=name, question=question or purpose.get("question", ""), law=law, given=given,
        planned_law=purpose.get("law"),
        commands=commands, runs_folder=folder, baselines=baselines,
    )  # fmt: skip


def of_table(
    source: str | Path,
    output: str | Path,
    *,
    approaches: Sequence[str] = ("2", "3"),
    resamples: int | None = None,
    stage: str | None = None,
    mixed_corpora: bool = False,
    seed: int = 0,
    at: Sequence[float] | None = None,
    columns: Mapping[str, str] | str | None = None,
    where: str | None = None,
    title: str = "",
    name: str = "",
    question: str = "",
    law: "str | type[Law] | None" = None,
    given: Mapping[str, float] | None = None,
    planned_law: str | None = None,
    commands: Sequence[str] = (),
    runs_folder: Path | None = None,
    baselines: Mapping[str, float] | None = None,
) -> Path:
    """Read a table (see `lmscale.study.tables.read_table`), fit it, check its held-out rows and write the report.

    Rows of other stages than `stage`, pretraining unless another is given, are named as left out. `law` is the form of
    Approach 3, also a class or an import path; None is the `planned_law`, where the runs are for a law. One of other
    inputs than N and D alone gets a page of its own kind, with its allocation where the further inputs are `given`.
    `name` stands in the title, by default that of the file; `commands` made the page, by default `lmscale report` with
    these options. A table that cannot be fitted gets a page that says so.
    Raises `UserError` as `read_table` does, and for a law that there is not.
    """
    from functools import partial

    from lmscale.core.config import PRETRAIN
    from lmscale.study.report import account, stages
    from lmscale.study.report.command import report_command
    from lmscale.study.report.source import fit_and_check, kind_of_runs, read_source

    fitted: dict[str, Any] = {"resamples": resamples, "seed": seed, "mixed_corpora": mixed_corpora}
    asked: dict[str, Any] = {"law": law, "given": given, "columns": columns, "where": where, "stage": stage, **fitted}
    one = read_source(source, planned_law=planned_law, runs_folder=runs_folder, approaches=approaches, **asked)
    commands = commands or (report_command([source], **asked),)

    def fit_stage(rows: "pd.DataFrame", of: "Kind") -> "tuple[list[Any], list[HeldOut], list[str]]":
        if not of.fits_law or one.has_further_inputs:
            return [], [], []
        return fit_and_check(rows, law=one.law, **fitted)

    counts = stages.runs_by_stage(one.rows)
    this = stage or (PRETRAIN if len(counts) != 1 else next(iter(counts)))
    return write(
        one.table, one.fits, output, title=title or f"{one.kind.title} {name or Path(source).name.split('.')[0]}",
        question=question, held_out=one.held_out, runs_folder=runs_folder, at=at, notes=one.notes, commands=commands,
        baselines=baselines, kind=one.kind,
        stages=stages.Stages(
            this, account.printable(str(source)), counts,
            stages.others(one.rows, this, partial(kind_of_runs, runs_folder=None), fit_stage),
        ),
    )  # fmt: skip


def write(
    table: "pd.DataFrame",
    fits: Sequence[Any],
    folder: str | Path,
    *,
    title: str,
    question: str = "",
    held_out: "Sequence[HeldOut]" = (),
    runs_folder: str | Path | None = None,
    at: Sequence[float] | None = None,
    notes: Sequence[str] = (),
    commands: Sequence[str] = (),
    baselines: Mapping[str, float] | None = None,
    kind: "Kind | None" = None,
    stages: "Stages | None" = None,
) -> Path:
    """Write the report of a table and its fits; the path of the page.

    Args:
        table: canonical columns (`lmscale.study.tables`), one row per run; `attrs` name what was left out on reading.
        fits: objects of `lmscale.study.fits`, none where nothing could be fitted.
        folder: is made; an earlier report in it is overwritten, and those of its files that this one lacks are deleted.
        title: of the page.
        question: the sentence that the page answers; empty is that of the kind of sweep (`kinds`).
        held_out: verdicts of `fits.held_out_check`.
        runs_folder: a sweep's folder, for training curves and versions; None leaves both out.
        at: the C of the allocation table; None takes the planned budgets and the decades above.
        notes: sentences for the reader, shown under the answer.
        commands: how the numbers were made, one shell line each.
        baselines: name -> bits per byte of a simple model on the runs' validation text, lines in the plot of losses.
        kind: what the page is about; None says the table.
        stages: the other stages of the sweep.

    Raises `UserError` where a file cannot be written or the metrics are not the table's.
    """
    from lmscale.study import plots
    from lmscale.study.report import (
        abilities,
        account,
        brief,
        explore,
        figures,
        forecasts,
        manifest,
        page,
        run_time,
        under_way,
    )  # fmt: skip
    from lmscale.study.report.answer import usable
    from lmscale.study.report.charts.contexts import read_positions
    from lmscale.study.report.folder import script_data, write_fits, write_tables
    from lmscale.study.report.records import records
    from lmscale.study.report.sections import sections
    from lmscale.study.report.source import kind_of_runs

    folder = Path(folder)
    table = named(table)
    curves, corrupt = plots.read_curves(runs_folder, table) if runs_folder is not None else ({}, [])
    kind = kind or kind_of_runs(table, runs_folder)
    runs = records(table, fits, runs_folder)
    positions = read_positions(runs_folder, plots.measured_runs(table) if len(table) else table)
    stage = stages.this if stages is not None and len(stages.counts) > 1 else None
    scores = abilities.abilities_of(runs_folder, stage)
    drawn = figures.draw(table, fits, held_out, curves, folder / "figures", baselines, kind, runs, positions, scores)
    further = {} if stages is None else {one: one.draw(folder / "figures", runs_folder) for one in stages.others}
    states = under_way.states_of(runs_folder)
    explored = None if kind.inputs else explore.over_compute(table, fits)
    moved = explore.sensitivity(next((fit for fit in usable(fits) if fit.approach == "3"), None))
    fits_file = write_fits(
        folder, title, [] if kind.inputs else brief.brief(fits, table, held_out), fits, held_out, scores, further
    )
    table_files = write_tables(folder, table, further)
    for one in further:
        runs |= one.records(runs_folder)
    parts = sections(
        table,
        fits,
        held_out,
        drawn,
        kind=kind,
        question=question or kind.question,
        notes=[*filter(None, [under_way.note(states)]), *notes, *map(_as_sentence, corrupt)],
        at=at,
        provenance=account.provenance(table, fits, runs_folder),
        commands=commands,
        explored=explored,
        moved=moved,
        stages=[] if stages is None else stages.section(further),
        forecasts=forecasts.section(curves, {run: record["name"] for run, record in runs.items()}),
        abilities=abilities.section(scores),
        waiting=run_time.waiting_of(runs_folder, table["run"].astype(str)),
    )
    every_figure = [*drawn, *(figure for figures_of in further.values() for figure in figures_of)]
    html = page.document(
        title,
        [page.heading(title, 1), *parts],
        data=script_data(runs, every_figure, explored, moved),
        refresh_seconds=under_way.refresh_seconds(states),
    )
    files.write_text(folder / REPORT_FILE, html)
    figure_files = manifest.figure_files(figure.name for figure in every_figure)
    manifest.update(folder, [fits_file, *table_files, *figure_files])
    return folder / REPORT_FILE


def _as_sentence(reason: str) -> str:
    return f"{reason[0].upper()}{reason[1:]}."
