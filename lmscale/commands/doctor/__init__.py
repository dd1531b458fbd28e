"""`lmscale doctor`: what this machine has for training, what is missing and how to get it.

Importing this loads nothing heavy; `checks` does the work.
"""

from typing import TYPE_CHECKING

from lmscale.commands.answer import write_answer
from lmscale.commands.doctor.arguments import DoctorArgs

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["DoctorArgs", "main"]

EXIT_WRONG = 1
"""Something that training needs is wrong here."""


def main(args: DoctorArgs, console: "Console") -> int:
    """Check and print; the exit status."""
    from lmscale import __version__
    from lmscale.commands.doctor.checks import findings
    from lmscale.commands.doctor.show import show
    from lmscale.core.config import check

    check(args.wait_seconds >= 1, f"--wait-seconds {args.wait_seconds}: must be at least 1")
    results = list(findings(args))
    show(results, console)
    wrong = [one.name for one in results if one.state == "wrong"]
    write_answer(
        args.json,
        {"version": __version__, "ok": not wrong, "wrong": wrong, "findings": [one.to_json() for one in results]},
    )
    return EXIT_WRONG if wrong else 0
