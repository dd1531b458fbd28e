"""`lmscale finish`: one run of a planned sweep, trained to its end inside a cluster's job."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class FinishArgs:
    """Train one run of a planned sweep to its end, with the retries of `lmscale run`: what a cluster's job calls."""

    folder: Positional[Path]
    """The folder of a run, runs/<sweep>/<run>."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Send metrics to Weights & Biases as well."""
    json: Path | None = None
    """Write the state of the run at its end, and the exit status here (- or no file: to standard output, alone)."""


def main(args: FinishArgs, console: "Console") -> int:
    """Train the run; the exit status. Raises `UserError` as `finish.finish` does."""
    from lmscale.study.launch.finish import finish
    from lmscale.study.launch.states import read_states

    status = finish(args.folder, args.wandb)
    if args.json is not None:
        states = {run.run_id: run for run in read_states(args.folder.parent)[1]}
        write_answer(args.json, {"status": status, **asdict(states[args.folder.name])})
    print_next("status", args.folder.parent)
    return status
