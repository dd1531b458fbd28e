"""`lmscale finish`: one run of a planned sweep, trained to its end inside a cluster's job."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

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


def main(args: FinishArgs, console: "Console") -> int:
    """Train the run; the exit status. Raises `UserError` as `finish.finish` does."""
    from lmscale.study.launch.finish import finish

    status = finish(args.folder, args.wandb)
    print_next("status", args.folder.parent)
    return status
