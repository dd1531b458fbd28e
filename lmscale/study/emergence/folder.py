"""The scores that a sweep's runs keep, as one table: those of `RunConfig.exam`, and what `lmscale eval` wrote."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lmscale.core.config import PRETRAIN
from lmscale.core.errors import UserError
from lmscale.core.quantities import counted
from lmscale.core.results import outcome_or_problem
from lmscale.core.run_identity import check_file_of
from lmscale.core.scores import at_last_step, best_measured, read_rows, scores_files
from lmscale.study.fits.checks.stages import one_stage

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.core.plans import PlannedRun

STEP = re.compile(r"\bstep\b")
"""The column by which `where` chooses a checkpoint."""


def read_scores(path: Path, every_step: bool = False, where: str | None = None) -> "pd.DataFrame":
    """The best-measured scores of every run below `path`, of its last scored step or of all.

    Scores of a planned run that has not come to its end are left out, unless `where` chooses by `step`.
    A sweep's seeds and stages of training are in the columns `seed` and `stage`. `where` is applied before one of
    several rows is chosen. The attribute `notes` of the table says in sentences what was left out. Raises `UserError`
    where no run has scores or a file is damaged, and as `query` does.
    """
    import pandas as pd

    planned = _planned(path)
    rows = [row for file in scores_files(path) for row in _of_run(file, planned)]
    if not rows:
        raise UserError(
            f"no run in {path} has scores; name tasks in its sweep (exam=ExamConfig(tasks=...)) before it is trained, "
            f"or score every run with `lmscale eval {path}/RUN FORMAT:PATH`"
        )
    if where is not None:
        rows = _matching(rows, where)
    notes: list[str] = []
    if not every_step:
        rows, notes = at_last_step(rows)
        if where is None or not STEP.search(where):
            rows = _of_trained(rows, path, planned, notes)
    rows, sentences = best_measured(rows)
    table = pd.DataFrame(rows)
    table.attrs["notes"] = [*notes, *sentences]
    return table


def _of_trained(
    rows: "list[dict[str, object]]", path: Path, planned: "Mapping[str, PlannedRun]", notes: list[str]
) -> "list[dict[str, object]]":
    """The rows of runs that were scored at their last step, or have ended; a note says which runs have not."""
    early: dict[str, str] = {}
    for row in rows:
        name, step = str(row["run_id"]), row.get("step")
        run = planned.get(name)
        if run is None or name in early or not isinstance(step, int) or step >= run.config.steps:
            continue
        outcome, _ = outcome_or_problem(path / name, run.config)
        if outcome is None or outcome.state != "finished":
            early[name] = f"{name} at step {step} of {run.config.steps}"
    if not early:
        return rows
    first = next(iter(early.values()))
    sentence = f"{counted(len(early), 'run')} not trained to the end: their scores are no points (first: {first})"
    if len(early) == len({row["run_id"] for row in rows}):
        raise UserError(f'{sentence}; finish them with `lmscale run`, or choose a step, as in where="step == 100"')
    notes.append(f"{sentence}; `where` may choose a step")
    return [row for row in rows if row["run_id"] not in early]


def of_one_stage(table: "pd.DataFrame") -> "pd.DataFrame":
    """The scores of one stage of training: pretraining where there are several, which a note says."""
    rows = one_stage(table, None)
    notes = list(table.attrs.get("notes", ()))
    if left_out := len(table) - len(rows):
        notes.append(
            f"{left_out} scores of other stages than {PRETRAIN} are left out: `where` chooses one of those, as in "
            f"\"stage == 'fine-tune'\""
        )
    rows.attrs = {**table.attrs, "notes": notes}
    return rows


def _of_run(file: Path, planned: "Mapping[str, PlannedRun]") -> "list[dict[str, object]]":
    """The rows of a run's scores. Raises `UserError` where they are corrupt, or of another run than the folder."""
    run = planned.get(file.parent.name)
    known = {} if run is None else {"seed": run.config.seed, "stage": run.stage}
    rows: list[dict[str, object]] = [{"run_id": file.parent.name, **row, **known} for row in read_rows(file)]
    for run_id in {str(row["run_id"]): None for row in rows}:
        check_file_of(run_id, file)
    return rows


def _matching(rows: "list[dict[str, object]]", where: str) -> "list[dict[str, object]]":
    import pandas as pd

    from lmscale.study.tables import query

    table = pd.DataFrame(rows)
    numbers = query(table.assign(_row=range(len(table))), where)["_row"]
    return [rows[number] for number in numbers]


def _planned(path: Path) -> "dict[str, PlannedRun]":
    """The planned runs of a sweep's folder by their ids; none of another folder."""
    from lmscale.core.plans import read_plan
    from lmscale.core.run_folder import PLAN_FILE

    if not (path / PLAN_FILE).exists():
        return {}
    return {run.config.run_id: run for run in read_plan(path)[1]}
