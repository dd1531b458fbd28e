"""`lmscale retry`: allow failed runs another attempt."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next, run_again
from lmscale.commands.run_names import listed, named
from lmscale.core.quantities import counted

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class RetryArgs:
    """Allow failed runs another attempt by the next `lmscale run`."""

    folder: Positional[Path]
    """The folder of a sweep, runs/<sweep>."""
    run: Positional[tuple[str, ...]] = ()
    """The runs, by the first letters of their names; by default all that failed."""
    json: Path | None = None
    """Write the runs that may be tried again here (- or no file: to standard output, alone)."""


def main(args: RetryArgs, console: "Console") -> None:
    """Forget the failures. Raises `UserError` for a run that has not failed."""
    from lmscale.study.launch import control

    forgiven = control.retry(args.folder, args.run)
    for run in forgiven:
        print(named(run))
    if forgiven:
        print(f"{counted(len(forgiven), 'run')} of {args.folder} may be tried again")
    else:
        print(f"no run of {args.folder} has failed")
    write_answer(args.json, {"folder": str(args.folder), "runs": listed(forgiven)})
    print_next(*run_again(args.folder))
