"""`lmscale logs`: the end of a run's log, and how the attempts at it ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from lmscale.commands.next_step import print_next

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class LogsArgs:
    """Print the end of a run's log, and how the attempts at it ended."""

    run: Positional[str]
    """The run's folder, or the first letters of its name."""
    runs: Path = Path("runs")
    """Folder that holds one folder per sweep."""
    lines: int = 40
    """Lines of the log to print."""
    follow: bool = False
    """Keep printing as the log grows, until the run is at an end."""


def main(args: LogsArgs, console: "Console") -> None:
    """Print the attempts, then the log. Raises `UserError` where there is no such run or several."""
    from lmscale.core.run_folder import failure_reason
    from lmscale.study.launch import control, failures, lease

    folder = control.find_run(args.run, args.runs)
    print(_named(folder))
    for attempt in lease.history(folder):
        end = attempt.end or {"status": "", "reason": "killed" if attempt.dead() else "at work"}
        print(f"attempt {attempt.number}, {attempt.value.get('began', '?')} {attempt.where}: {end['reason'] or 'done'}")
    if (reason := failure_reason(folder)) is not None:
        print(f"failed: {reason}")
    for line in failures.last_lines(folder, args.lines):
        print(line)
    for text in control.follow(folder) if args.follow else ():
        print(text, end="", flush=True)
    print_next(*(("status", folder.parent) if reason is None else ("retry", folder.parent, folder.name)))


def _named(folder: Path) -> str:
    """The run's id, and its N, D, rate and seed where its configuration can be read."""
    from lmscale.core.counting import count
    from lmscale.core.errors import UserError
    from lmscale.core.quantities import run_name
    from lmscale.core.run_identity import read_config

    try:
        config = read_config(folder)
    except UserError:
        return f"run {folder.name}"
    counts = count(config)
    name = run_name(counts.params, counts.active_params, counts.tokens, config.optimizer.peak_lr, config.seed)
    return f"run {folder.name}: {name}"
