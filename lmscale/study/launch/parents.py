"""What a run needs of others before it starts: their end, and their checkpoints."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lmscale.core.config import CheckpointName
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun
from lmscale.core.results import outcome_or_problem
from lmscale.core.run_folder import CHECKPOINT_FOLDER, find_run


def needed(run: PlannedRun) -> set[str]:
    """The runs whose checkpoints a run begins with or reads: its parents, and its trunk."""
    return {*(name.run_id for name in run.config.parents.values()), *[run.trunk] * bool(run.trunk)}


def unfinished(run: PlannedRun, planned: Collection[str]) -> list[str]:
    """The parents of a run that a launch is to train: `planned` are its runs without an end."""
    return [name.run_id for name in run.config.parents.values() if name.run_id in planned]


def problem(run: PlannedRun, folder: Path, failed: Mapping[str, str], among: Collection[str] | None = None) -> str:
    """Why a run of the sweep in `folder` cannot start, now that its parents are at their ends; else "".

    `failed` are the runs that this launch has given up, with the reasons; `among` the parents that are looked at, all
    by default.
    """
    from lmscale.study.sweep import PARENT_VERBS  # which brings NumPy, and `lmscale status` needs neither

    for role, name in run.config.parents.items():
        if among is not None and name.run_id not in among:
            continue
        if reason := _problem(name, folder / run.config.run_id, failed):
            return f"not started: it {PARENT_VERBS[role]} run {name.run_id}, {reason}"
    return ""


def _problem(name: CheckpointName, run_folder: Path, failed: Mapping[str, str]) -> str:
    if name.run_id in failed:
        return f"which has failed ({failed[name.run_id]})"
    try:
        parent = find_run(name.run_id, run_folder)
    except UserError as error:
        return f"which cannot be found: {error}"
    outcome, corrupt = outcome_or_problem(parent)
    if outcome is None:
        return corrupt or "which has not finished; train it first"
    if outcome.state == "diverged":
        return f"which has diverged{f' ({outcome.reason})' if outcome.reason else ''}"
    return _without_checkpoint(parent, name.step)


def _without_checkpoint(parent: Path, step: int | None) -> str:
    """Which checkpoint a finished run lacks; "" where it has the one of `step`, or any for its last."""
    steps = {int(path.name) for path in (parent / CHECKPOINT_FOLDER).glob("*") if path.name.isdecimal()}
    if not steps:
        return "which has no checkpoint; train it with keep_checkpoint=True"
    if step is not None and step not in steps:
        return f"which has no checkpoint of step {step}, but of {', '.join(map(str, sorted(steps)))}"
    return ""


def check_elsewhere(runs: Sequence[PlannedRun], folder: Path) -> None:
    """Raise `UserError` for a parent outside of the plan that is missing, diverged or without a checkpoint."""
    planned = {run.config.run_id for run in runs}
    for run in runs:
        others = {name.run_id for name in run.config.parents.values()} - planned
        if not others or outcome_or_problem(folder / run.config.run_id)[0] is not None:
            continue
        if sentence := problem(run, folder, {}, others):
            raise UserError(f"run {run.config.run_id} is {sentence}")


def depths(runs: Sequence[PlannedRun]) -> dict[str, int]:
    """How many runs must end one after the other before each: 0 for one that needs none of them."""
    by_id = {run.config.run_id: run for run in runs}
    depth_by_id: dict[str, int] = {}

    def depth(run_id: str) -> int:
        if run_id not in depth_by_id:
            run = by_id[run_id]
            depth_by_id[run_id] = max((1 + depth(parent) for parent in needed(run) if parent in by_id), default=0)
        return depth_by_id[run_id]

    return {run_id: depth(run_id) for run_id in by_id}
