"""A file becomes a table: which format it has, how much of it is read, and one sentence for what cannot be read."""

import difflib
import io
import re
import stat
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from lmscale.core.errors import UserError
from lmscale.core.files import open_regular
from lmscale.core.run_folder import PLAN_FILE
from lmscale.study.tables.delimited import read_delimited
from lmscale.study.tables.json_rows import read_json, read_json_lines

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

PUBLISHED = Path(__file__).parent.parent / "published"
CHINCHILLA = "chinchilla"

KINDS = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet", ".pq": "parquet", ".json": "json",
    ".jsonl": "jsonl", ".jsonlines": "jsonl", ".jl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip
MOST_BYTES = 1 << 30
"""Largest size of a file, unpacked: tables of a million runs have some hundred megabytes."""
LARGEST_RATIO, FREE_BYTES = 200, 16 << 20
"""Text of tables packs twenty-fold, and what packs more than 200-fold beyond 16 MiB is no table."""
MOST_CELLS = 300_000_000
INDEX = re.compile(r"__index_level_(\d+)__")
"""What pandas calls an index without a name."""


def load(path: Path) -> "pd.DataFrame":
    """The table of a sweep's folder or of a file. Raises `UserError` for what cannot be read as one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if difflib.get_close_matches(str(path), [CHINCHILLA]):
            raise UserError(f"there is no table at {path}; did you mean {CHINCHILLA!r}?") from None
        raise UserError(
            f"there is no table at {path}: "
            f"give a sweep's folder, a CSV (.gz too), Parquet or JSONL file, or the word {CHINCHILLA!r}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise UserError(
            f"the table {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    if stat.S_ISDIR(mode):
        return _of_sweep(path)
    if path.name == PLAN_FILE:
        raise UserError(f"{path} is the plan of a sweep: give its folder, {path.parent}")
    kind = kind_of(path)
    if kind == "parquet":
        table = _parquet(_content(path), path)
    else:  # nothing but the text is held while it is read
        table = _text_table(_text(_content(path), kind, path), kind, path)
    if not len(table):
        raise UserError(f"the table {path} has no rows")
    return table


def kind_of(path: Path) -> str:
    """The format that a file's endings name. Raises `UserError` where they name none."""
    for suffix in reversed(path.suffixes):
        if kind := KINDS.get(suffix.lower()):
            return kind
    raise UserError(f"{path} is no table by its name: end it in .csv, .csv.gz, .tsv, .parquet, .json or .jsonl")


def _of_sweep(path: Path) -> "pd.DataFrame":
    from lmscale.core.plans import plan_path
    from lmscale.core.results import collect

    plan_path(path)
    table = collect(path)
    if corrupt := table.attrs["corrupt"]:
        more = f"; {len(corrupt) - 1} more runs are corrupt, as `lmscale status` lists" if len(corrupt) > 1 else ""
        raise UserError(corrupt[0] + more)
    return table


def _content(path: Path) -> bytes:
    """The bytes of a file, unpacked where they are packed; never more than `MOST_BYTES`."""
    try:
        with open_regular(path) as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"the table {path} cannot be read: {error.strerror or error}") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"the table {path} is larger than {MOST_BYTES >> 30} GiB: give the rows of runs alone")
    if content[:2] == b"\x1f\x8b":
        return _unpacked(content, path)
    if path.suffix.lower() == ".gz":
        raise UserError(
            f"the table {path} is corrupt or no {kind_of(path)} file (its name says gzip, its bytes do not)"
        )
    return content


def _unpacked(content: bytes, path: Path) -> bytes:
    """gzip's content, of all its members."""
    most = min(MOST_BYTES, max(FREE_BYTES, LARGEST_RATIO * len(content)))
    parts, size, rest = [], 0, content
    try:
        while rest.strip(b"\0"):
            member = zlib.decompressobj(wbits=31)
            parts.append(member.decompress(rest, most + 1 - size))
            size += len(parts[-1])
            if size > most:
                raise UserError(
                    f"the table {path} unpacks to more than {most >> 20} MiB from {len(content)} bytes, "
                    f"which no table of runs does; unpack it to see what it holds"
                )
            if not member.eof:
                raise UserError(f"the table {path} is corrupt or no {kind_of(path)} file (its gzip data are cut)")
            rest = member.unused_data
    except zlib.error as error:
        raise UserError(f"the table {path} is corrupt or no {kind_of(path)} file ({error})") from None
    return b"".join(parts)


def _text(content: bytes, kind: str, path: Path) -> str:
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")  # spreadsheets' "Unicode text"
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the table {path} is corrupt or no {kind} file (byte {error.start + 1} is not UTF-8); save it as UTF-8"
        ) from None


def _text_table(text: str, kind: str, path: Path) -> "pd.DataFrame":
    if kind == "jsonl":
        return read_json_lines(text, path)
    if kind == "json":
        return read_json(text, path)
    return read_delimited(text, path, tabs=kind == "tsv")


def _parquet(content: bytes, path: Path) -> "pd.DataFrame":
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
        rows, columns = file.metadata.num_rows, file.metadata.num_columns
        if rows * columns > MOST_CELLS:
            raise UserError(f"the table {path} has {rows} rows of {columns} columns: more than {MOST_CELLS} cells")
        return _frame(file.read())
    except UserError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
        raise UserError(
            f"the table {path} is corrupt or no parquet file ({(str(error).splitlines() or [type(error).__name__])[0]})"
        ) from None


def _frame(table: "pyarrow.Table") -> "pd.DataFrame":
    """An Arrow table column by column, since two may have one name; pandas' index is a column without a name."""
    import pandas as pd

    columns = [table.column(place).to_pandas().reset_index(drop=True) for place in range(table.num_columns)]
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=range(table.num_rows))
    frame.columns = pd.Index([INDEX.sub(r"Unnamed: \1", name) for name in table.column_names])
    return frame
