"""Tables of runs and of scores in every format, and the expressions that choose their rows and columns."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.readers.reader import Reader
from lmscale.study.emergence.scores import canonical
from lmscale.study.tables import query, read_rows, read_table
from lmscale.study.tables.headers import NUMBERS
from lmscale.study.tables.writing import format_of
from lmscale.study.tables.writing import write as write_table

PARAMS, TOKENS = np.array([1.5e7, 3e7, 6e7, 1.2e8]), np.array([4e9, 2e9, 1e9, 5.5e8])
RUNS = pd.DataFrame(
    {
        "run": ["a", "b", "c", "d"], "params": PARAMS, "tokens": TOKENS, "flops": 6 * PARAMS * TOKENS,
        "loss_nats": [3.1, 3.0125, 3.05, 3.2], "held_out": [False, False, False, True], "note": ["é", "x,y", 'q"', ""],
    }
)  # fmt: skip
SCORES = pd.DataFrame(
    {
        "task": ["sums"] * 4, "metric": ["accuracy"] * 4, "kind": ["hard"] * 4, "params": PARAMS,
        "correct": [24, 25, 40, 90], "n": [100] * 4, "chance": [0.25] * 4, "shots": [0] * 4,
    }
)  # fmt: skip
WANDB = pd.DataFrame(
    {
        "name": ["a", "b", "c"], "state": ["finished"] * 3,
        "config": ["{'params': 15000000.0, 'tokens': 4e9, 'opt': {'lr': 0.01}}", '{"params": 3e7, "tokens": 2e9}',
                   "{'params': 60000000, 'tokens': 1e9, 'clip': inf}"],
        "summary": ["{'loss': 3.1, '_step': 100}", "{'loss': 3.0125}", "{'loss': 3.05}"],
    }
)  # fmt: skip
DEEP = "params=config.params,tokens=config.tokens,loss=summary.loss"


def _is_table(table: Any) -> bool:
    """Whether the canonical columns are numbers; a fit leaves out a row with an infinite one, and says so."""
    numbers = [table[name] for name in NUMBERS if name in table]
    return all(column.dtype == float for column in numbers)


def _writes(name: str, table: pd.DataFrame) -> Any:
    def write(folder: Path) -> Path:
        path = folder / name
        if path.suffix == ".tsv":
            table.to_csv(path, sep="\t", index=False)
        else:
            write_table(table, path, format_of(path))
        return path

    return write


def _export(folder: Path) -> Path:
    WANDB.to_csv(folder / "export.csv")
    return folder / "export.csv"


def _array(folder: Path) -> Path:
    RUNS.to_json(folder / "runs.json", orient="records")
    return folder / "runs.json"


def _gzip(folder: Path) -> Path:
    RUNS.to_csv(folder / "runs.csv.gz", index=False)
    return folder / "runs.csv.gz"


def _scores(path: Path) -> pd.DataFrame:
    return canonical(read_rows(path))


def text_of(path: Path) -> str:
    """The content of a file as an argument of the command line has it."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return text.split("\0")[0][:100_000]  # no argument is longer, or holds a zero byte


def argument(text: str) -> Any:
    """Writes `text` as the file that stands for an argument."""

    def write(folder: Path) -> Path:
        path = folder / "argument"
        path.write_text(text, "utf-8")
        return path

    return write


def _queried(path: Path) -> pd.DataFrame:
    return query(RUNS, text_of(path))


def _mapped(path: Path) -> pd.DataFrame:
    return read_table(RUNS, text_of(path))


READERS = (
    Reader("runs csv", _writes("runs.csv", RUNS), read_table, "text", may_hold=_is_table, finite=False),
    Reader("runs csv gz", _gzip, read_table, may_hold=_is_table, finite=False),
    Reader("runs tsv", _writes("runs.tsv", RUNS), read_table, "text", may_hold=_is_table, finite=False),
    Reader("runs jsonl", _writes("runs.jsonl", RUNS), read_table, "lines", may_hold=_is_table, finite=False),
    Reader("runs json", _array, read_table, "json", may_hold=_is_table, finite=False),
    Reader("runs parquet", _writes("runs.parquet", RUNS), read_table, may_hold=_is_table, finite=False),
    Reader("export of wandb", _export, lambda path: read_table(path, DEEP), "text", may_hold=_is_table, finite=False),
    Reader("table of scores", _writes("scores.csv", SCORES), _scores, "text"),
    Reader("where", argument("params > 2e7 and not held_out or run in ['a', 'b']"), _queried, "text", text=True),
    Reader("columns", argument("params=params*1e0,loss=loss_nats"), _mapped, "text", text=True, finite=False),
)
