"""`lmscale retry`: allow failed runs another attempt."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from lmscale.commands.next_step import print_next, run_again

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class RetryArgs:
    """Allow failed runs another attempt by the next `lmscale run`."""

    folder: Positional[Path]
    """The folder of a sweep, runs/<sweep>."""
    run: Positional[tuple[str, ...]] = ()
    """The runs, by the first letters of their names; by default all that failed."""


def main(args: RetryArgs, console: "Console") -> None:
    """Forget the failures. Raises `UserError` for a run that has not failed."""
    from lmscale.study.launch import control

    forgiven = control.retry(args.folder, args.run)
    print(f"{len(forgiven)} {'run' if len(forgiven) == 1 else 'runs'} of {args.folder} may be tried again")
    print_next(*run_again(args.folder))
