"""`lmscale score`: any text under one trained model or several.

Importing this loads nothing heavy; `verb` does the work.
"""

from typing import TYPE_CHECKING

from lmscale.commands.score.arguments import ScoreArgs

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ScoreArgs", "main"]


def main(args: ScoreArgs, console: "Console") -> None:
    """Score and show. Raises `UserError` for a text that cannot be scored and for a run without a checkpoint."""
    from lmscale.commands.score import verb

    verb.main(args, console)
