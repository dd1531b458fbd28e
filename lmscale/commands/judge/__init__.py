"""`lmscale judge`: texts graded, compared and measured, by a model behind a server, by people or without a judge.

Importing this loads nothing heavy; `verb` does the work.
"""

from typing import TYPE_CHECKING

from lmscale.commands.judge.arguments import JudgeArgs

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["JudgeArgs", "main"]


def main(args: JudgeArgs, console: "Console") -> None:
    """Judge and show. Raises `UserError` for texts that cannot be judged and a judge that does not answer."""
    from lmscale.commands.judge import verb

    verb.judge(args, console)
