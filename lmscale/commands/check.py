"""`lmscale check`: its arguments, and what it does. Importing this loads nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from lmscale.commands.answer import write_answer
from lmscale.commands.console import fitted
from lmscale.commands.next_step import print_next, repeat
from lmscale.commands.several_values import Joined

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class CheckArgs:
    """Judge a prediction that `lmscale fit --predict` wrote before the run."""

    prediction: Positional[Path]
    """The file that --predict wrote."""
    table: str | None = None
    """The table that holds the finished run or runs."""
    loss: float | None = None
    """The measured loss of the one run, in nats, where there is no table."""
    columns: Annotated[str | None, arg(metavar="params=n_params,..."), Joined()] = None
    """What the table calls params, tokens, flops, loss, budget; usual names are recognised."""
    where: Annotated[str | None, arg(metavar="EXPR")] = None
    """Keep only rows for which this is true, for example "params > 1e8"."""
    stage: str | None = None
    """Which stage of training was predicted where the table holds several, for example fine-tune; unset, pretrain."""
    json: Path | None = None
    """Write the verdict here (- or no file: to standard output, alone)."""


def main(args: CheckArgs, console: "Console") -> None:
    """Print the verdict and write --json. Raises `UserError` as `preregister.check` does."""
    from lmscale.study.fits.predict import preregister
    from lmscale.study.tables import read_table

    table = None if args.table is None else read_table(args.table, args.columns, args.where)
    verdict = preregister.check(args.prediction, loss_nats=args.loss, table=table, stage=args.stage)
    print(fitted("\n".join(preregister.verdict_lines(verdict)), console))
    write_answer(args.json, verdict)
    if args.table is not None:
        print_next("report", args.table)
    elif args.json is None:
        print_next(*repeat("--json", "verdict.json"))
