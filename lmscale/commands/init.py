"""`lmscale init`: a sweep file to start from."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next
from lmscale.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

SWEEP = '''"""At a given training compute, how should FLOPs be split between model and data?

    lmscale plan {path}
    lmscale run {path}
    lmscale report runs/{name}

Cost: what the plan says. Outcome: not known yet.
"""

from lmscale import Sweep, isoflop, recipes

BUDGETS = (1e11, 3e11, 9e11)    # training FLOPs

SWEEP = Sweep(
    name="{name}",
    question="At a given training compute, how should FLOPs be split between model and data?",
    # five sizes about the one that should be best at each budget, from a third of it to three times it
    points=isoflop(BUDGETS, centre=lambda flops: 9e4 * (flops / 2e12) ** 0.45, sizes=5, spread=3),
    # point -> RunConfig: width, rate, batch and corpus; recipes.cpu(data=...) reads your own text
    recipe=recipes.cpu,
    # no fit sees these runs: they are what the law has to predict
    held_out=lambda point: point["flops"] == BUDGETS[-1],
)
'''


@dataclass(frozen=True)
class InitArgs:
    """Write a sweep file to start from: budgets, sizes, recipe, held-out runs, each with a word on what to change."""

    name: Positional[str]
    """Name of the sweep; its runs go to runs/NAME."""
    folder: Path = Path("sweeps")
    """Folder of the file, NAME.py."""
    json: Path | None = None
    """Write the path of the file here (- or no file: to standard output, alone)."""


def main(args: InitArgs, console: "Console") -> None:
    """Write the file. Raises `UserError` for a name that can be no folder, and for a file that is there."""
    from lmscale.core.files import write_text
    from lmscale.core.text import checked_name

    name = checked_name(args.name, "sweep")
    path = args.folder / f"{name}.py"
    if path.exists():
        raise UserError(f"{path} is there already: choose another name, or delete it knowingly")
    write_text(path, SWEEP.format(name=name, path=path))
    print(f"wrote {path}: its budgets and sizes are for a laptop; change what the comments say")
    write_answer(args.json, {"file": str(path)})
    print_next("plan", path)
