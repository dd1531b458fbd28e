"""`lmscale import`: other people's runs as a table that fits and reports take."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next
from lmscale.commands.several_values import Joined
from lmscale.core.quantities import counted

if TYPE_CHECKING:
    from rich.console import Console

NEEDED = ("params", "tokens", "flops", "loss_nats")
"""Columns that a fit needs."""


@dataclass(frozen=True)
class ImportArgs:
    """Read other people's runs (CSV, JSON, Parquet, a W&B export) into a table that `lmscale fit` and `report` take."""

    source: Positional[Path]
    """The file to read."""
    output: Path
    """A .csv, .parquet or .jsonl file."""
    columns: Annotated[str | None, Joined()] = None
    """What the source calls our columns: params=n_params,tokens=n_tokens,loss=summary.eval/loss; usual names are
    recognised. A factor states the unit of a column: params=N*1e6 for millions."""
    where: str | None = None
    """Keep only rows for which this expression over the columns is true: "state == 'finished'"."""
    json: Path | None = None
    """Write how many runs there are, what a fit lacks and the notes here (- or no file: to standard output, alone)."""


def main(args: ImportArgs, console: "Console") -> None:
    """Read, write in canonical columns, and say what was completed and what a fit still lacks.

    `columns` and `where` are those of `tables.read_table`. Raises `UserError` as that does.
    """
    from lmscale.study.tables import read_table, units, writing

    form = writing.format_of(args.output)
    table = read_table(args.source, columns=args.columns, where=args.where)
    writing.write(table, args.output, form)
    notes = [*table.attrs.get("notes", []), *units.doubts(table)]
    for note in notes:
        print(f"note: {note}")
    lacking = [name for name in NEEDED if name not in table]
    without = 0 if lacking else int(table["loss_nats"].isna().sum())
    print(f"{counted(len(table), 'run')} in {args.output}" + (f", {without} of them without a loss" if without else ""))
    facts = {"runs": len(table), "runs_without_loss": without, "lacking": lacking, "notes": notes}
    write_answer(args.json, {"output": str(args.output), **facts})
    if lacking:
        print(f"it has no column {' or '.join(lacking)}, which a fit needs: --columns {lacking[0]}=YOUR_COLUMN")
    else:
        print_next("report", args.output)
