"""`lmscale logs`: the end of a run's log, and how the attempts at it ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next
from lmscale.commands.run_names import name_in, named

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.study.launch.lease import Attempt


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
    json: Path | None = None
    """Write the attempts and the lines here (- or no file: to standard output, alone)."""


def main(args: LogsArgs, console: "Console") -> None:
    """Print the attempts, then the log. Raises `UserError` where there is no such run or several."""
    from lmscale.core.config import check
    from lmscale.core.run_folder import failure_reason
    from lmscale.study.launch import control, failures, lease

    check(not args.follow or args.json is None, "--json is written once; leave --follow out")
    folder = control.find_run(args.run, args.runs)
    attempts, reason = lease.history(folder), failure_reason(folder)
    lines = list(failures.last_lines(folder, args.lines))
    print(named(folder))
    for attempt in attempts:
        end = attempt.end or {"status": "", "reason": "killed" if attempt.dead() else "at work"}
        print(f"attempt {attempt.number}, {attempt.value.get('began', '?')} {attempt.where}: {end['reason'] or 'done'}")
    if reason is not None:
        print(f"failed: {reason}")
    for line in lines:
        print(line)
    write_answer(args.json, _value(folder, attempts, reason, lines))
    for text in control.follow(folder) if args.follow else ():
        print(text, end="", flush=True)
    print_next(*(("status", folder.parent) if reason is None else ("retry", folder.parent, folder.name)))


def _value(folder: Path, attempts: "list[Attempt]", reason: str | None, lines: list[str]) -> dict[str, Any]:
    return {
        "run_id": folder.name,
        "name": name_in(folder),
        "attempts": [
            {"number": one.number, "began": one.value.get("began"), "where": one.where, "end": one.end}
            for one in attempts
        ],
        "failed": reason,
        "lines": lines,
    }
