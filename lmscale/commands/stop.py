"""`lmscale stop`: stop a sweep, or some of its runs, wherever they are trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from lmscale.commands.next_step import print_next, run_again
from lmscale.core.exit_status import EXIT_CTRL_C

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


def main(args: StopArgs, console: "Console") -> int:
    """Stop the runs and wait for them; the exit status, that of Ctrl-C where some are still at work."""
    from lmscale.study.launch import control

    asked, at_work = control.stop(args.folder, args.run, args.wait_seconds)
    if at_work:
        print(
            f"still at work after {args.wait_seconds:.0f} s: {', '.join(at_work)}; they have been asked and will stop"
        )
        print_next("status", args.folder)
        return EXIT_CTRL_C
    print(f"stopped {asked} {'run' if asked == 1 else 'runs'} of {args.folder}; their checkpoints are kept")
    print_next(*run_again(args.folder))
    return 0
