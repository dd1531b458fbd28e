"""A table of runs from wherever it lies: CSV, Parquet, JSONL, the shipped Chinchilla runs, or a sweep's folder.

The canonical columns are `run` (text), `params`, `tokens`, `flops`, `loss_nats`, `flops_budget` (NaN where none), and
where known `held_out`, `group`, `unique_tokens`; every other column is kept under its own name. What was completed
travels in `table.attrs["notes"]` (sentences), what was left out in `table.attrs["dropped"]` (run and reason).
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.core.run_folder import PLAN_FILE
from lmscale.study.laws import SIX_ND

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED = Path(__file__).parent / "published"
CHINCHILLA = "chinchilla"

# Canonical name -> names it goes by, best first. The first of them that a table has is taken.
KNOWN = {
    "run": ("run", "run_id"),
    "params": ("params", "n_params"),
    "tokens": ("tokens", "n_tokens"),
    "flops": ("flops",),
    "loss_nats": ("loss_nats", "loss"),
    "flops_budget": ("flops_budget", "isoflop_budget", "budget"),
    "held_out": ("held_out",),
    "group": ("group",),
    "unique_tokens": ("unique_tokens", "n_unique_tokens"),
    "trunk": ("trunk",),
    "seed": ("seed",),
}
SHORT = {"loss": "loss_nats", "budget": "flops_budget"}
NUMBERS = ("params", "tokens", "flops", "loss_nats", "flops_budget", "unique_tokens")


def read_table(
    source: "str | Path | pd.DataFrame", columns: Mapping[str, str] | str | None = None, where: str | None = None
) -> "pd.DataFrame":
    """The runs of `source`, a file, a sweep's folder, "chinchilla" or a DataFrame, in canonical columns.

    `columns` maps canonical names (also `loss`, `budget`) to the source's, as a mapping or as
    "params=n_params,loss=val_loss"; what it leaves out is recognised by its usual names. `where` is an expression
    over source or canonical columns, as of `pandas.DataFrame.query`. Missing tokens become C/(6N), missing FLOPs
    6ND, and the notes say so.

    Raises `UserError` for a source that is absent or corrupt, an unknown column (naming the nearest), a column that is
    not numeric, or an expression that fails.
    """
    import pandas as pd

    table = _load(source)
    source = "the table" if isinstance(source, pd.DataFrame) else source
    mapping = parse_columns(columns)
    notes: list[str] = list(table.attrs.get("notes", []))
    dropped: list[dict[str, str]] = list(table.attrs.get("dropped", []))
    present = [str(name) for name in table.columns]
    table.columns = pd.Index(present)
    for name, column in mapping.items():
        if column not in present:
            raise UserError(f"{source} has no column {column!r} (asked for as {name}){nearest(column, present)}")
    canonical = {}
    for name, usual in KNOWN.items():
        known = next((other for other in usual if other in present), None) or _other_case(usual, present)
        if (column_ := mapping.get(name) or known) is not None:
            canonical[name] = table[column_]
    for name, column in mapping.items():
        canonical[name] = table[column]
    table = table.assign(**canonical)
    if "run" not in table:
        table["run"] = [f"row {index + 1}" for index in range(len(table))]
    unnamed = table["run"].isna().to_numpy()
    table["run"] = np.where(unnamed, [f"row {index + 1}" for index in range(len(table))], table["run"].astype(str))
    for name in NUMBERS:
        if name in table:
            table[name] = numbers(table, name, mapping.get(name, name), source)
    if "held_out" in table:
        table["held_out"] = flags(table, "held_out", source)
    if where is None and str(source) == CHINCHILLA:
        out = table["used_in_fit"] != 1
        dropped += [
            {"run": run, "reason": "among the five highest losses, left out by Besiroglu 2024 as outliers"}
            for run in table["run"][out]
        ]
        table = table[~out]
    if where is not None:
        before = len(table)
        table = query(table, where)
        notes.append(f"`where={where!r}` keeps {len(table)} of {before} rows")
    _complete(table := table.copy(), notes)
    if "flops_budget" not in table:
        table["flops_budget"] = float("nan")
    front = [
        name
        for name in ("run", "params", "tokens", "flops", "loss_nats", "flops_budget", "held_out", "group")
        if name in table
    ]
    table = table[front + [name for name in table.columns if name not in front]].reset_index(drop=True)
    table.attrs = {"notes": notes, "dropped": dropped, "source": str(source)}
    return table


def _other_case(usual: Sequence[str], present: Sequence[str]) -> str | None:
    """The one column that differs from a usual name only in upper and lower case."""
    names = [name for name in present if name.lower() in usual]
    return names[0] if len(names) == 1 else None


def flags(table: "pd.DataFrame", name: str, source: object = "the table") -> "pd.Series[bool]":
    """A yes-or-no column as booleans; what is missing is no. Raises `UserError` for a value that is neither."""
    known = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}
    text = table[name].astype(object).where(table[name].notna(), "").astype(str).str.strip().str.lower()
    bad = ~text.isin([*known, ""])
    if bad.any():
        raise UserError(f"column {name!r} of {source} holds '{table[name][bad].iloc[0]}': write true or false")
    return text.map({**known, "": False}).astype(bool)


def parse_columns(columns: Mapping[str, str] | str | None) -> dict[str, str]:
    """{canonical name: source column} from a mapping or "params=n_params,loss=loss".

    Raises `UserError` for a bad pair.
    """
    if not columns:
        return {}
    if isinstance(columns, str):
        pairs = [pair.partition("=") for pair in columns.split(",") if pair.strip()]
        if bad := [name for name, sign, column in pairs if not (sign and column.strip())]:
            raise UserError(
                f"`columns` has {bad[0]!r} without a source column: write pairs as in params=n_params,loss=loss"
            )
        columns = {name.strip(): column.strip() for name, _, column in pairs}
    columns = {SHORT.get(name, name): column for name, column in columns.items()}
    for name in columns:
        if name not in KNOWN and not name.isidentifier():
            raise UserError(f"`columns` cannot name a column {name!r}{nearest(name, [*KNOWN, *SHORT])}")
    likely = [name for name in columns if name not in KNOWN]
    extra = {
        "rate_sum",
        "annealing_sum",
        "error",
        "accuracy",
        "epochs",
        "learning_rate",
        "warmup_fraction",
        "schedule",
        "fraction_of_schedule",
    }
    for name in likely:
        if name not in extra and not name.startswith("params_"):
            raise UserError(f"`columns` maps to {name!r}, which no fit reads{nearest(name, [*KNOWN, *SHORT, *extra])}")
    return columns


def _load(source: "str | Path | pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return source.copy()
    path = PUBLISHED / "chinchilla.csv" if str(source) == CHINCHILLA else Path(source)
    if path.is_dir():
        if not (path / PLAN_FILE).exists():
            raise UserError(
                f"{path} is a folder without plan.json: "
                f"a table is a sweep's folder, a CSV, Parquet or JSONL file, or 'chinchilla'"
            )
        from lmscale.core.results import collect

        return collect(path).copy()
    if not path.exists():
        raise UserError(
            f"there is no table at {path}: "
            f"give a sweep's folder, a CSV (.gz too), Parquet or JSONL file, or the word 'chinchilla'"
        )
    suffixes = [suffix for suffix in path.suffixes if suffix in (".csv", ".tsv", ".parquet", ".jsonl", ".gz")]
    kind = next((suffix for suffix in suffixes if suffix != ".gz"), None)
    try:
        if kind == ".parquet":
            table = pd.read_parquet(path)
        elif kind == ".jsonl":
            table = _jsonl(path)
        elif kind in (".csv", ".tsv"):
            table = _csv(path, kind)
        else:
            raise UserError(f"{path} is no table by its name: end it in .csv, .csv.gz, .tsv, .parquet or .jsonl")
    except UserError:
        raise
    except (
        ValueError,
        OSError,
        EOFError,
        UnicodeDecodeError,
        zlib.error,
    ) as error:  # pandas' and pyarrow's parse errors are ValueErrors
        raise UserError(
            f"the table {path} is corrupt or no {str(kind)[1:]} file ({str(error).splitlines()[0]})"
        ) from error
    if not len(table):
        raise UserError(f"the table {path} has no rows")
    return table


def _csv(path: Path, kind: str) -> "pd.DataFrame":
    """Columns are parted by commas, by tabs in a .tsv, or by semicolons where the header holds these and no comma.

    Spreadsheets of many countries write semicolons, and then decimal commas.
    """
    import gzip

    import pandas as pd

    with (
        gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else path.open(encoding="utf-8-sig") as file
    ):
        head, second = file.readline(), file.readline()
    if not head.strip():
        raise UserError(f"the table {path} is empty: its first line names the columns")
    semicolons = kind == ".csv" and ";" in head and "," not in head
    decimal = "," if semicolons and "," in second and "." not in second else "."
    # pandas 3 reads floats exactly; before, it had to be asked to.
    exact: Any = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}
    table = pd.read_csv(path, sep=";" if semicolons else "\t" if kind == ".tsv" else ",", decimal=decimal, **exact)
    if semicolons:
        table.attrs["notes"] = [
            f"read with semicolons between columns and decimal {'commas' * (decimal == ',') or 'points'}"
        ]
    return table


def _jsonl(path: Path) -> "pd.DataFrame":
    import gzip

    import pandas as pd

    rows = []
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for number, line in enumerate(content.decode("utf-8-sig").splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"the table {path} is corrupt in line {number} ({error}): every line is one JSON object"
                ) from None
            if not isinstance(row, dict):
                raise UserError(f"the table {path} is corrupt in line {number}: every line is one JSON object")
            rows.append(row)
    return pd.DataFrame(rows)


def numbers(table: "pd.DataFrame", name: str, column: str | None = None, source: object = "the table") -> np.ndarray:
    """A column as float64 (n,), NaN where it is missing. Raises `UserError` for the first value that is no number.

    `column` is what `source` calls it.
    """
    import pandas as pd

    values = np.asarray(pd.to_numeric(table[name], errors="coerce"), dtype=float)
    bad = np.isnan(values) & np.asarray(table[name].notna())
    if bad.any():
        first = table[bad].iloc[0]
        raise UserError(
            f"column {(column or name)!r} of {source} holds '{first[name]}' (run {first['run']}), which is no number: "
            f"{name} must be numeric"
        )
    return values


def query(table: "pd.DataFrame", where: str) -> "pd.DataFrame":
    """The rows for which the expression `where` holds. Raises `UserError` where it cannot be evaluated, or for none."""
    try:
        rows = table.query(where)
    except NameError as error:  # pandas' UndefinedVariableError is one
        name = str(error).split("'")[1] if "'" in str(error) else where
        raise UserError(
            f"`where={where!r}` names {name!r}, which is no column{nearest(name, map(str, table.columns))}"
        ) from None
    except Exception as error:  # the expression is the user's: whatever it raises becomes one sentence, not a traceback
        raise UserError(
            f"`where={where!r}` cannot be evaluated ({error}): write a comparison of columns, as in 'params > 1e8'"
        ) from None
    if not len(rows):
        raise UserError(f"`where={where!r}` keeps none of the {len(table)} rows")
    return rows


def _complete(table: "pd.DataFrame", notes: list[str]) -> None:
    """Fill in tokens = C/(6N) and C = 6ND where one is missing, row by row."""
    columns = set(map(str, table.columns))
    if {"flops", "params"} <= columns:
        missing = table["tokens"].isna() if "tokens" in columns else table["params"].notna()
        missing &= table["flops"].notna() & table["params"].notna()
        if missing.any():
            table.loc[missing, "tokens"] = table["flops"][missing] / (6 * table["params"][missing])
            notes.append(f"{int(missing.sum())} rows state no tokens: D = C/(6N)")
    columns = set(map(str, table.columns))
    if {"tokens", "params"} <= columns:
        missing = table["flops"].isna() if "flops" in columns else table["params"].notna()
        missing &= table["tokens"].notna() & table["params"].notna()
        if missing.any():
            table.loc[missing, "flops"] = SIX_ND.flops(table["params"][missing], table["tokens"][missing])
            notes.append(f"{int(missing.sum())} rows state no FLOPs: C = 6ND")
