"""`lmscale table`: a sweep's results as a table for other programs."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from lmscale.commands.next_step import print_next
from lmscale.core.errors import UserError
from lmscale.core.quantities import counted
from lmscale.study.tables import writing

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console


@dataclass(frozen=True)
class TableArgs:
    """Write a sweep's table: one row per planned run, with its outcome."""

    folder: Positional[Path]
    """The folder of a sweep, runs/<sweep>."""
    output: Path | None = None
    """A .csv, .parquet or .jsonl file; by default the terminal."""
    to: Literal["csv", "parquet", "jsonl", "wandb", "tensorboard"] | None = None
    """The format; by default that of the file's ending, else CSV. `wandb` sends the table and the report's page;
    `tensorboard` writes the metrics of every run into its folder."""
    scores: bool = False
    """Write the scores on benchmark tasks instead: a row per run, step, task, metric and number of shots, where there
    are several the one over most items."""


def main(args: TableArgs, console: "Console") -> None:
    """Print the table, write it to a file, whole or not at all, or send it to a tracker.

    Raises `UserError` for an ending that names no format, for Parquet without a file, and for scores where there are
    none or that would go to a tracker.
    """
    from lmscale.core.config import check

    if args.to == "tensorboard":
        from lmscale.lm.train.logs.tensorboard import write_events

        check(
            not args.scores and args.output is None,
            "--to tensorboard takes neither --scores nor --output; leave them out",
        )
        print(
            f"metrics of {counted(write_events(args.folder), 'run')} written; next: tensorboard --logdir {args.folder}"
        )
        return
    verb = "emergence" if args.scores else "fit"
    if args.to == "wandb":
        check(not args.scores, "--scores go to a file or the terminal; leave --to wandb out")
        print(_send_to_wandb(args.folder, _runs(args.folder)))
        return
    form = args.to or writing.format_of(args.output)
    check(form != "parquet" or args.output is not None, "--to parquet is not for a terminal; add --output FILE.parquet")
    table = _scores(args) if args.scores else _runs(args.folder)
    if args.output is None:
        print(writing.csv_text(table) if form == "csv" else writing.jsonl_text(table), end="", flush=True)
        print_next(verb, args.folder, stderr=True)
        return
    writing.write(table, args.output, form)
    print(f"{counted(len(table), 'score' if args.scores else 'run')} in {args.output}")
    print_next(verb, args.output)


def _runs(folder: Path) -> "pd.DataFrame":
    from lmscale.core.results import STATES, collect

    table = collect(folder)
    corrupt, notes = table.attrs["corrupt"], table.attrs["notes"]
    if corrupt and not table["state"].isin(STATES).any():
        raise UserError(corrupt[0])
    for sentence in (*corrupt, *notes):
        print(f"note: {sentence}", file=sys.stderr)
    return table


def _scores(args: TableArgs) -> "pd.DataFrame":
    from lmscale.study.emergence.folder import read_scores

    table = read_scores(args.folder, every_step=True)
    for sentence in table.attrs["notes"]:
        print(sentence, file=sys.stderr)  # the table itself may go to the terminal
    return table


def _send_to_wandb(folder: Path, table: "pd.DataFrame") -> str:
    """Send the table, and the report's page where there is one, as the run `table` of the sweep's group."""
    from lmscale.core.plans import read_plan
    from lmscale.core.run_folder import REPORT_FILE, REPORT_FOLDER
    from lmscale.lm.train.logs.wandb import begin

    name, _ = read_plan(folder)
    try:
        run = begin(group=name, job_type="table", id=f"{name}-table", name=f"{name} table", dir=str(folder))
        import wandb

        values = table.astype(object).where(table.notna(), None)
        run.log({"runs": wandb.Table(columns=list(values.columns), data=values.to_numpy().tolist())})
        page = folder / REPORT_FOLDER / REPORT_FILE
        if page.exists():
            run.log({"report": wandb.Html(str(page))})
        run.finish()
    except Exception as error:
        cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(f"Weights & Biases did not take the table ({cause}); try WANDB_MODE=offline") from error
    content = counted(len(table), "run") + (" and the report" if page.exists() else "")
    return f"{content} sent to Weights & Biases, group {name}"
