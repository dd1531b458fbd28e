"""Tables out, for other programs, and in, from other people's runs."""

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lmscale.core import files
from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.plans import read_plan
from lmscale.core.results import collect
from lmscale.core.run_folder import REPORT_FILE, REPORT_FOLDER
from lmscale.lm.train.logs.tensorboard import write_events
from lmscale.study.emergence.folder import holds_scores, read_scores

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["csv", "parquet", "jsonl"]
NESTED = ("config", "summary", "_wandb")
"""Columns of W&B's exports whose cells are mappings."""


def table_of(
    folder: Path,
    output: Path | None = None,
    to: Format | Literal["wandb", "tensorboard"] | None = None,
    scores: bool = False,
) -> None:
    """Print a sweep's table, or write it to `output`, atomically, or send it to Weights & Biases or TensorBoard.

    With `scores`, that of its scores on benchmark tasks: a row per run, step, task, metric and number of shots.

    The format is that of `to`, else of the ending of `output`, else CSV. Raises `UserError` for an ending that says
    none, for Parquet without a file, and for scores where there are none or that are to go to a tracker.
    """
    if to == "tensorboard":
        check(not scores and output is None, "--to tensorboard takes neither --scores nor --output; leave them out")
        print(f"metrics of {write_events(folder)} runs written; next: tensorboard --logdir {folder}")
        return
    if scores:
        check(to != "wandb", "--scores go to a file or the terminal; leave --to wandb out")
        check(
            holds_scores(folder),
            f"no run in {folder} has scores; name tasks in its sweep (exam=ExamConfig(tasks=...)), or take "
            f"`lmscale eval`",
        )
        table = read_scores(folder, every_step=True)
    else:
        table = collect(folder)
    if to == "wandb":
        print(_to_wandb(folder, table))
        return
    form = _format(output, to)
    if output is None:
        check(form != "parquet", "--to parquet is not for a terminal; add --output FILE.parquet")
        print(table.to_csv(index=False) if form == "csv" else table.to_json(orient="records", lines=True), end="")
        return
    write(table, output, form)
    print(f"{len(table)} {'scores' if scores else 'runs'} in {output}")


def _format(output: Path | None, to: Any) -> Format:
    if to is not None or output is None:
        return to or "csv"
    kinds: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl"}
    check(
        output.suffix in kinds,
        f"--output {output}: the ending says the format, one of {', '.join(sorted(kinds))}; or name it with --to",
    )
    return kinds[output.suffix]


def write(table: "pd.DataFrame", path: Path, form: Format) -> None:
    """Write a table, whole or not at all."""
    plain = table.copy()
    plain.attrs = {}  # notes that no format holds
    with files.atomic_write(path, "wb") as file:
        if form == "parquet":
            plain.to_parquet(file, index=False)
        elif form == "jsonl":
            plain.to_json(file, orient="records", lines=True)
        else:
            plain.to_csv(file, index=False)


def _to_wandb(folder: Path, table: "pd.DataFrame") -> str:
    """Send the table and, where there is one, the report's page as the run `table` of the sweep's group."""
    import wandb

    name, _ = read_plan(folder)
    try:
        run = wandb.init(
            project="lmscale", group=name, job_type="table", id=f"{name}-table", name=f"{name} table",
            dir=str(folder), resume="allow",
        )  # fmt: skip
        values = table.astype(object).where(table.notna(), None)
        run.log({"runs": wandb.Table(columns=list(values.columns), data=values.to_numpy().tolist())})
        page = folder / REPORT_FOLDER / REPORT_FILE
        if page.exists():
            run.log({"report": wandb.Html(str(page))})
        run.finish()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise UserError(f"Weights & Biases did not take the table ({said}); try WANDB_MODE=offline") from error
    return f"{len(table)} runs{' and the report' if page.exists() else ''} sent to Weights & Biases, group {name}"


def take_in(source: Path, output: Path, columns: str | None = None, where: str | None = None) -> None:
    """Read runs of others into a table in canonical columns, which fits and reports take; say what was completed.

    `columns` and `where` are those of `tables.read_table`, after the mappings that W&B's exports hold in cells are
    spread into columns of their own: config.lr, summary.loss. Raises `UserError` as that does.
    """
    import tempfile

    from lmscale.study.tables import read_table

    form = _format(output, None)
    spread = _spread(source)
    if spread is None:
        table = read_table(source, columns=columns, where=where)
    else:
        with tempfile.TemporaryDirectory() as folder:
            write(spread, Path(folder) / "spread.parquet", "parquet")
            table = read_table(Path(folder) / "spread.parquet", columns=columns, where=where)
    write(table, output, form)
    for note in table.attrs.get("notes", []):
        print(f"note: {note}")
    lacking = [name for name in ("params", "tokens", "flops", "loss_nats") if name not in table]
    without = 0 if lacking else int(table["loss_nats"].isna().sum())
    print(f"{len(table)} runs in {output}" + (f", {without} of them without a loss" if without else ""))
    if lacking:
        print(f"it has no column {' or '.join(lacking)}, which a fit needs: --columns {lacking[0]}=YOUR_COLUMN")
    else:
        print(f"next: lmscale fit {output}")


def _spread(source: Path) -> "pd.DataFrame | None":
    """The table with its cells of mappings as columns "cell.key"; None where it has none, or cannot be read so."""
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
    parts = [table.drop(columns=nested)]
    for name in nested:
        rows = [_mapping(name, cell) or {} for cell in table[name]]
        parts.append(pd.json_normalize(rows).add_prefix(f"{name}."))
    return pd.concat(parts, axis=1)


def _mapping(name: str, cell: Any) -> dict[str, Any] | None:
    """The mapping in a cell: as one, or as the text that W&B's example of an export writes."""
    if isinstance(cell, str) and name in NESTED:
        try:
            cell = ast.literal_eval(cell)
        except (ValueError, SyntaxError):
            return None
    return cell if isinstance(cell, dict) else None
