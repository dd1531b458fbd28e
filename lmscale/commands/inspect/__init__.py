"""`lmscale inspect`: what happens inside one trained model or several.

Importing this loads nothing heavy; `verb` does the work.
"""

from typing import TYPE_CHECKING

from lmscale.commands.inspect.arguments import InspectArgs

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["InspectArgs", "main"]


def main(args: InspectArgs, console: "Console") -> None:
    """Measure and show. Raises `UserError` for what cannot be measured and for a run without a checkpoint."""
    from lmscale.commands.inspect import verb

    verb.main(args, console)
