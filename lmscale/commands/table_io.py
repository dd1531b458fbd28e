"""Tables as files: the format that a file's ending names, and a table written whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lmscale.core import files
from lmscale.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["csv", "parquet", "jsonl"]
FORMATS: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl"}


def format_of(output: Path | None) -> Format:
    """The format that a file's ending names, CSV without a file. Raises `UserError` for another ending."""
    if output is None:
        return "csv"
    if output.suffix not in FORMATS:
        raise UserError(
            f"--output {output}: the ending says the format, one of {', '.join(sorted(FORMATS))}; or name it with --to"
        )
    return FORMATS[output.suffix]


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
