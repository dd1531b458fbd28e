"""`lmscale plan`: what a sweep would cost and could identify, before a run is started.

Importing this loads nothing heavy; `verb` does the work.
"""

from typing import TYPE_CHECKING

from lmscale.commands.plan.arguments import PlanArgs

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["PlanArgs", "main"]


def main(args: PlanArgs, console: "Console") -> None:
    """Do what was asked. Raises `UserError` where a plan cannot identify its law, after printing it."""
    from lmscale.commands.plan import verb

    verb.main(args, console)
