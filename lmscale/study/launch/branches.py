"""Runs that share a trunk: it keeps a checkpoint where each branch leaves it, and the branch starts from that.

A branch without its trunk's checkpoint, because the trunk failed or was trained before the branch was planned, starts
from its own first step and ends the same: that is what a branch is.
"""

import json
import shutil
import uuid
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmscale.core.errors import StorageError
from lmscale.core.files import storage_error, write_text
from lmscale.core.plans import PlannedRun
from lmscale.core.run_folder import CHECKPOINT_FOLDER, METRICS_FILE, read_metrics

FACTS = Path("facts") / "metadata"


def with_kept_steps(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs, every trunk with the steps whose checkpoints it keeps because branches start there."""
    steps: defaultdict[str, set[int]] = defaultdict(set)
    for run in runs:
        if run.branch_step is not None:
            steps[run.trunk].add(run.branch_step)
    return [
        replace(run, config=replace(run.config, kept_steps=tuple(sorted(steps[run.config.run_id])))) for run in runs
    ]


def source(run: PlannedRun, folder: Path) -> Path:
    """Where the whole checkpoint appears that the branch `run` starts from."""
    return folder / run.trunk / CHECKPOINT_FOLDER / str(run.branch_step)


def begun(run: PlannedRun, folder: Path) -> bool:
    """Whether the branch has a checkpoint of its own."""
    return any((folder / run.config.run_id / CHECKPOINT_FOLDER).glob("[0-9]*"))


def begin(run: PlannedRun, folder: Path) -> None:
    """Give the branch its trunk's checkpoint and metrics up to there, where they are; `train` goes on from them.

    Batches and randomness are functions of the seed and the step, which the two share. A checkpoint whose facts cannot
    be read is as none. Raises `StorageError` on a full disk.
    """
    found, ours = source(run, folder), folder / run.config.run_id
    if not found.is_dir() or begun(run, folder):
        return
    copy = ours / CHECKPOINT_FOLDER / f".{uuid.uuid4().hex}.partial"
    try:
        shutil.copytree(found, copy)
        facts = _facts(copy)
        if facts is None:
            return
        (copy / FACTS).write_text(json.dumps({**facts, "run_id": run.config.run_id}), encoding="utf-8")
        rows = [row for row in read_metrics(folder / run.trunk)[0] if row["step"] <= (run.branch_step or 0)]
        write_text(ours / METRICS_FILE, "".join(json.dumps(row) + "\n" for row in rows))
        with suppress(FileExistsError, NotADirectoryError):  # another launcher was faster
            copy.rename(copy.with_name(found.name))
    except (OSError, shutil.Error) as error:
        refused = storage_error(copy, error if isinstance(error, OSError) else OSError(str(error)))
        raise StorageError(str(refused)) from error
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _facts(checkpoint: Path) -> dict[str, Any] | None:
    """None where they are not JSON, as a full disk can leave them."""
    with suppress(ValueError):
        facts = json.loads((checkpoint / FACTS).read_text(encoding="utf-8"))
        return facts if isinstance(facts, dict) else None
    return None
