"""Runs that share a trunk: it keeps a checkpoint where each branch leaves it, and the branch continues from that.

A branch without its trunk's checkpoint, because the trunk failed or was trained before the branch was planned, starts
from its own first step and ends the same: that is what a branch is.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lmscale.core.config import CheckpointName, RunConfig
from lmscale.core.plans import PlannedRun
from lmscale.core.run_folder import CHECKPOINT_FOLDER


def with_starts(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs with the steps whose checkpoints they keep for others, every branch with the one it continues from."""
    steps: defaultdict[str, set[int]] = defaultdict(set)
    for run in runs:
        steps[run.config.run_id].update(run.config.kept_steps)
        if run.branch_step is not None:
            steps[run.trunk].add(run.branch_step)
        for name in run.config.parents.values():
            if name.step is not None:
                steps[name.run_id].add(name.step)
    return [replace(run, config=_with_start(run, tuple(sorted(steps[run.config.run_id])))) for run in runs]


def _with_start(run: PlannedRun, kept_steps: tuple[int, ...]) -> RunConfig:
    start = None if run.branch_step is None else str(CheckpointName(run.trunk, run.branch_step))
    return replace(run.config, kept_steps=kept_steps, continue_from=start)


def source(run: PlannedRun, folder: Path) -> Path:
    """Where the whole checkpoint appears that the branch `run` continues from."""
    return folder / run.trunk / CHECKPOINT_FOLDER / str(run.branch_step)


def begun(run: PlannedRun, folder: Path) -> bool:
    """Whether the branch has a checkpoint of its own."""
    return any((folder / run.config.run_id / CHECKPOINT_FOLDER).glob("[0-9]*"))
