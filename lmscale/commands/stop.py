"""`lmscale stop`: stop a sweep, or some of its runs, wherever they are trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next, run_again
from lmscale.commands.run_names import listed, named
from lmscale.core.exit_status import EXIT_CTRL_C
from lmscale.core.quantities import counted

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class StopArgs:
    """Stop a sweep, or some of its runs, wherever they are trained; every run saves a checkpoint first."""

    folder: Positional[Path]
    """The folder of a sweep, runs/<sweep>."""
    run: Positional[tuple[str, ...]] = ()
    """The runs, by the first letters of their names; by default all, and their launchers too."""
    wait_seconds: float = 120.0
    """How long to wait for them."""
    json: Path | None = None
    """Write the runs that stopped, and those still at work here (- or no file: to standard output, alone)."""


def main(args: StopArgs, console: "Console") -> int:
    """Stop the runs and wait for them; the exit status, that of Ctrl-C where some are still at work."""
    from lmscale.study.launch import control

    asked, at_work = control.stop(args.folder, args.run, args.wait_seconds)
    stopped = [run for run in asked if run not in at_work]
    write_answer(args.json, {"folder": str(args.folder), "stopped": listed(stopped), "at_work": listed(at_work)})
    for run in stopped:
        print(f"stopped {named(run)}")
    if at_work:
        for run in at_work:
            print(f"still at work after {args.wait_seconds:.0f} s: {named(run)}")
        print("asked to stop, they will: each after the step that it is at")
        print_next("status", args.folder)
        return EXIT_CTRL_C
    if asked:
        print(f"stopped {counted(len(asked), 'run')} of {args.folder}; their checkpoints are kept")
    else:
        print(f"no run of {args.folder} was at work")
    print_next(*run_again(args.folder))
    return 0
