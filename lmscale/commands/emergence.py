"""`lmscale emergence`: its arguments, and what it does. Importing this loads nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from lmscale.commands.answer import write_answer
from lmscale.commands.console import fitted
from lmscale.commands.next_step import print_next
from lmscale.commands.several_values import Joined
from lmscale.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class EmergenceArgs:
    """At which scale each ability appears, how sure that is, and whether a graded metric says the same."""

    table: Positional[str]
    """A CSV (.gz too), Parquet or JSONL file of scores (task, metric, kind, an axis, correct and n, chance), or the
    folder of a sweep whose runs have been scored."""
    axis: Literal["params", "flops", "loss", "x"] | None = None
    """Scale that the scores lie over; unset, every one that the table has."""
    columns: Annotated[str | None, arg(metavar="params=size,..."), Joined()] = None
    """What the table calls task, metric, params, correct, n, chance, ...; usual names are recognised."""
    where: Annotated[str | None, arg(metavar="EXPR")] = None
    """Keep only rows for which this is true, for example "shots == 0"."""
    rho: float | None = None
    """Correlation of the answers of one model beyond chance; unset, from seeds, else 0.003."""
    q: float = 0.05
    """False discovery rate over all curves of an axis."""
    resamples: int = 100
    """Draws of the bootstrap behind each interval, at each of three feet."""
    seed: int = 0
    """Seed of the bootstrap."""
    json: Path | None = None
    """Write every verdict with its evidence here (- or no file: to standard output, alone)."""


def parse_columns(text: str | None) -> dict[str, str]:
    """{our name: the table's} from "params=size,correct=hits". Raises `UserError` for a bad pair."""
    pairs = [pair.partition("=") for pair in (text or "").split(",") if pair.strip()]
    for name, sign, source in pairs:
        if not (name.strip() and sign and source.strip()):
            raise UserError(
                f"--columns has {name!r} without a source column: write pairs as in params=size,correct=hits"
            )
    names = [name.strip() for name, _, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--columns names {twice[0]} twice: give it one column")
    return {name.strip(): source.strip() for name, _, source in pairs}


def main(args: EmergenceArgs, console: "Console") -> None:
    """Detect, print and write --json. Raises `UserError` as `detect` does."""
    from lmscale.study.emergence.detector import detect

    result = detect(
        args.table, args.axis, columns=parse_columns(args.columns), where=args.where, rho=args.rho, q=args.q,
        resamples=args.resamples, seed=args.seed,
    )  # fmt: skip
    write_answer(args.json, result.to_json())
    print(fitted(str(result), console))
    if Path(args.table).is_dir():
        print_next("report", args.table)
    elif args.json is None:
        print_next("emergence", args.table, "--json", "verdicts.json")
    else:
        print_next("fit", args.table)
