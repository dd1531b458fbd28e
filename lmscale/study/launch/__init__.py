"""Finish a sweep: one process per run, as many at once as the machine has slots; failed attempts are repeated.

A run is `python -m lmscale train <folder>/config.json` and nothing more. Its state is in its folder: a run with an
outcome is not started again, an interrupted one continues from its last checkpoint, one that another launcher trains is
waited for (`lease`), one that keeps failing is given up (`failures`).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmscale.core.config import check
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.run_folder import STOP_FILE
from lmscale.study.launch.branches import with_starts
from lmscale.study.launch.changes import changes
from lmscale.study.launch.parents import check_elsewhere
from lmscale.study.launch.pool import Pool, Summary, Watcher
from lmscale.study.launch.slot import Slot, slots

__all__ = ["Slot", "Summary", "Watcher", "changes", "check_elsewhere", "run", "slots"]


def run(
    name: str,
    runs: Sequence[PlannedRun],
    folder: Path,
    watcher: Watcher,
    *,
    workers: int | None = None,
    pack: int = 1,
    wandb: str = "off",
    purpose: Mapping[str, Any] | None = None,
) -> Summary:
    """Write the plan of the sweep `name` into `folder` and train every run of it that has no outcome, longest first.

    The plan holds the `purpose` of the sweep too (`Sweep.purpose`). Up to `pack` runs that are `packable` share a GPU
    and a program. Several launchers may do so at once, on one machine or many; each ends when all runs are at an end. A
    run whose files are corrupt fails alone. A run starts when what it needs has finished, and does not where that has
    failed or diverged. Raises `UserError` for the folder of another sweep (`changes`), a parent elsewhere that is
    missing, diverged or without checkpoint, a disk that is full before the start, a folder that cannot be written and a
    `pack` below 1.
    """
    check(pack > 0, f"--pack {pack}: must be at least 1, which trains every run by itself")
    free = slots(workers)
    changes(name, runs, folder)
    check_elsewhere(runs, folder)
    write_plan(folder, name, list(runs), purpose or {})
    for stopped in (folder, *(folder / planned.config.run_id for planned in runs)):
        with suppress(OSError):  # whose run then stays stopped, and says so
            (stopped / STOP_FILE).unlink()  # runs that `lmscale stop` has stopped continue
    return Pool(with_starts(runs), folder, watcher, free, wandb=wandb, pack=pack).run()
