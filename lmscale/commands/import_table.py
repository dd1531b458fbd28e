"""`lmscale import`: other people's runs as a table that fits and reports take."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from lmscale.commands import table_io

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

NESTED = ("config", "summary", "_wandb")
"""Columns of W&B's exports whose cells are mappings."""
NEEDED = ("params", "tokens", "flops", "loss_nats")
"""Columns that a fit needs."""


@dataclass(frozen=True)
class ImportArgs:
    """Read other people's runs (CSV, JSONL, Parquet, a W&B export) into a table that fits and reports take."""

    source: Positional[Path]
    """The file to read."""
    output: Path
    """A .csv, .parquet or .jsonl file."""
    columns: str | None = None
    """What the source calls our columns: params=n_params,tokens=n_tokens,loss=summary.eval/loss; usual names are
    recognised."""
    where: str | None = None
    """Keep only rows for which this expression over the columns is true: "state == 'finished'"."""


def main(args: ImportArgs, console: "Console") -> None:
    """Read, write in canonical columns, and say what was completed and what a fit still lacks.

    `columns` and `where` are those of `tables.read_table`, after the mappings in cells of W&B's exports have become
    columns of their own: config.lr, summary.loss. Raises `UserError` as that does.
    """
    form = table_io.format_of(args.output)
    table = _read(args)
    table_io.write(table, args.output, form)
    for note in table.attrs.get("notes", []):
        print(f"note: {note}")
    lacking = [name for name in NEEDED if name not in table]
    without = 0 if lacking else int(table["loss_nats"].isna().sum())
    print(f"{len(table)} runs in {args.output}" + (f", {without} of them without a loss" if without else ""))
    if lacking:
        print(f"it has no column {' or '.join(lacking)}, which a fit needs: --columns {lacking[0]}=YOUR_COLUMN")
    else:
        print(f"next: lmscale fit {args.output}")


def _read(args: ImportArgs) -> "pd.DataFrame":
    import tempfile

    from lmscale.study.tables import read_table

    spread = _spread(args.source)
    if spread is None:
        return read_table(args.source, columns=args.columns, where=args.where)
    with tempfile.TemporaryDirectory() as folder:
        table_io.write(spread, Path(folder) / "spread.parquet", "parquet")
        return read_table(Path(folder) / "spread.parquet", columns=args.columns, where=args.where)


def _spread(source: Path) -> "pd.DataFrame | None":
    """The table whose cells of mappings have become columns "cell.key"; None without such cells, or if unreadable."""
    import pandas as pd

    readers: dict[str, Any] = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
    }
    try:
        table = readers[source.suffix](source)
    except (KeyError, OSError, ValueError):
        return None  # `read_table` says what is wrong
    nested = [name for name in table.columns if len(cells := table[name].dropna()) and _mapping(name, cells.iloc[0])]
    if not nested:
        return None
    tables = [table.drop(columns=nested)]
    for name in nested:
        rows = [_mapping(name, cell) or {} for cell in table[name]]
        tables.append(pd.json_normalize(rows).add_prefix(f"{name}."))
    return pd.concat(tables, axis=1)


def _mapping(name: str, cell: Any) -> dict[str, Any] | None:
    """The mapping in a cell: as itself, or as the text that W&B's example of an export writes; None for other cells."""
    if isinstance(cell, str) and name in NESTED:
        try:
            cell = ast.literal_eval(cell)
        except (ValueError, SyntaxError):
            return None
    return cell if isinstance(cell, dict) else None
