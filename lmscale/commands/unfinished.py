"""What `fit` and `report` say of a sweep that is not finished, and the command that goes on with it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from lmscale.commands.console import fitted
from lmscale.commands.next_step import run_again
from lmscale.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


def cannot_fit_yet(folder: Path, error: UserError) -> UserError | None:
    """The error of a fit to a sweep that is not finished, with what is missing first; None for anything else."""
    from lmscale.study.report.under_way import states_of, unfinished

    if not folder.is_dir() or not (missing := unfinished(states_of(folder))):
        return None
    train = shlex.join(["lmscale", *map(str, run_again(folder))])
    status = shlex.join(["lmscale", "status", str(folder)])
    return UserError(
        f"{missing}; `{train}` trains them and `{status}` says how far they are. The others cannot be fitted: {error}"
    )


def print_unfinished(folder: Path, console: "Console") -> tuple[object, ...]:
    """Say what a sweep's folder lacks; the words of the command that goes on with it, none where nothing is missing.

    That is `lmscale status` while a run is at work, else `lmscale run`.
    """
    from lmscale.study.launch.states import ENDED
    from lmscale.study.report.under_way import AT_WORK, states_of, unfinished

    states = states_of(folder) if folder.is_dir() else []
    if not (missing := unfinished(states)):
        return ()
    some_finished = any(run.state in ENDED and run.state != "failed" for run in states)
    print(
        fitted(f"note: {missing}{'; these numbers are of the others and may change' if some_finished else ''}", console)
    )
    return ("status", folder) if any(run.state in AT_WORK for run in states) else run_again(folder)
