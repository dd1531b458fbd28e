"""Files that are no tables, or odd ones: one sentence, or the same numbers."""

import gzip
import json
import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from lmscale.core.errors import UserError
from lmscale.study.tables import read_table, writing

ROWS = pd.DataFrame(
    {
        "run": [f"r{row}" for row in range(6)],
        "params": np.geomspace(1e7, 1e9, 6).round(),
        "tokens": np.geomspace(1e10, 1e9, 6).round(),
        "loss": np.linspace(3.5, 2.1, 6),
    }
)
CSV = ROWS.to_csv(index=False)
LINES = ROWS.to_json(orient="records", lines=True, double_precision=15)
OURS = ["run", "params", "tokens", "loss_nats"]


def same(path: Path) -> bool:
    return read_table(path)[OURS].to_numpy().tolist() == ROWS.to_numpy().tolist()


@pytest.mark.long
@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + CSV,
        CSV.replace("\n", "\r\n"),
        CSV.replace("\n", "\r"),
        CSV.replace(",", ", "),
        CSV.replace("params", " Params "),
        CSV.replace("run,params", "RUN,#Params"),
        "\n".join(line + ",," for line in CSV.split("\n") if line),
        CSV.replace("\n", "\n\n") + ",,,\n",
        "sep=;\n" + CSV.replace(",", ";"),
        CSV.replace(",", "\t"),
        CSV.replace(",", "|"),
        ROWS.to_csv(),
        ROWS.set_index("run").to_csv(index_label=""),
        ROWS.assign(again=ROWS["loss"]).to_csv(index=False).replace("again", "loss"),
        ROWS.assign(note="two\nlines, and a comma").to_csv(index=False),
        ROWS.assign(note="x" * 200_000).to_csv(index=False),
    ],
)  # fmt: skip
def test_relatives_of_csv(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode())
    assert same(path)
    path.write_bytes(content.encode("utf-16"))
    assert same(path)
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(content[:40].encode()) + gzip.compress(content[40:].encode()))
    assert same(path.with_suffix(".csv.gz"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.jl", LINES),
        ("t.ndjson", LINES),
        ("t.json", LINES),
        ("t.json", ROWS.to_json(orient="records", double_precision=15)),
        ("t.json", ROWS.to_json(orient="split", double_precision=15)),
        ("t.json", ROWS.to_json(double_precision=15)),
        ("t.json", json.dumps(json.loads(ROWS.to_json(orient="records", double_precision=15)), indent=2)),
        ("t.jsonl", LINES.replace('"run"', '"note":"a\u2028b\u0085c","run"')),
    ],
)
def test_relatives_of_json(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert same(tmp_path / name)


def test_types_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    whole = ROWS["params"].astype("int64")
    for odd in (whole.astype("uint64"), whole.astype("Int64"), [Decimal(value) for value in whole], whole.astype(str),
                whole.astype("category"), pd.array(whole, dtype="int64[pyarrow]")):  # fmt: skip
        ROWS.assign(params=odd).to_parquet(path)
        assert same(path)
    ROWS.set_index("run").to_parquet(path)
    assert same(path)
    columns = [pa.array(ROWS[name]) for name in ROWS]
    parquet.write_table(pa.table([*columns, columns[-1]], names=[*ROWS, "loss"]), path)
    assert same(path)
    for wrong in ([[1.0]] * 6, pd.Timestamp("2026-01-01"), [b"\xff"] * 6, True):
        ROWS.assign(params=wrong).to_parquet(path)
        with pytest.raises(UserError, match=r"column 'params' of .*, which is no number"):
            read_table(path)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", CSV[:-30], "cells in line 7 and 4 names"),
        ("t.csv", CSV.replace("r2", '"r2'), "unexpected end of data"),
        ("t.csv", CSV.replace("r2,", "r2,1,"), "5 cells in line 4"),
        ("t.csv", CSV.replace("tokens", "loss"), "two columns named 'loss' that differ, and loss_nats is one"),
        ("t.csv", CSV.replace("r2", "é").encode("latin-1"), "is not UTF-8"),
        ("t.csv", "a," * 30_000 + "\n" + "1," * 30_000, "30001 columns: at most"),
        ("t.csv", b"\0" * 100, "has no rows"),
        ("t.csv.gz", gzip.compress(CSV.encode())[:-12], "gzip data are cut"),
        ("t.csv.gz", CSV, "its name says gzip"),
        ("t.jsonl.gz", gzip.compress(b" " * 30_000_000), "unpacks to more than"),
        ("t.jsonl", '{"a":' + "[" * 100_000, "line 1 .brackets too deep"),
        ("t.json", "[" * 100_000, "brackets too deep"),
        ("t.json", "[]", "has no rows"),
        ("t.json", "{}", "holds no table"),
        ("t.json", "3", "holds no table"),
        ("t.json", '[{"a": 1}, 2]', "holds no table"),
        ("t.json", '{"a": [1, 2], "b": [1]}', "holds no table"),
        ("t.jsonl", '{"params": ' + "1" * 5000 + "}", "corrupt in line 1"),
        ("t.jsonl", '{"loss": 1, "loss": 2}', "two values named 'loss' in line 1"),
        ("t.jsonl", json.dumps(dict.fromkeys(map(str, range(30_000)), 1)), "30,000 columns: at most"),
        ("t.jsonl", json.dumps({"config": dict.fromkeys(map(str, range(30_000)), 1)}), "30,000 columns: at most"),
        ("t.jsonl", json.dumps({"x" * 20_000: 1}), "20,000 letters long"),
        ("t.csv", "x" * 20_000 + ",params\n1,2\n", "20,000 letters long"),
        ("t.jsonl", '{"params": {"a": 1}, "tokens": [2]}', "holds '.2.'"),
        ("t.parquet", CSV, "corrupt or no parquet file"),
        ("t.xlsx", b"PK\3\4", "no table by its name"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        read_table(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.csv").mkdir()
    for path in (
        tmp_path / "folder.csv",
        tmp_path / ("x" * 300 + ".csv"),
        tmp_path / "a\0b.csv",
        tmp_path / "t.csv/x.csv",
    ):
        with pytest.raises(UserError):
            read_table(path)
    (tmp_path / "t.csv").write_text(CSV)
    denied = PermissionError(13, "Permission denied")
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(denied))
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        read_table(tmp_path / "t.csv")


def test_a_cut_parquet_file_gives_no_other_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    ROWS.to_parquet(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_table(path)


def test_a_changed_byte_of_our_own_parquet_gives_no_other_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    writing.write(ROWS, path, "parquet")
    whole = path.read_bytes()
    start = whole.index(np.float64(ROWS["tokens"][2]).tobytes())
    path.write_bytes(whole[: start + 6] + bytes([whole[start + 6] ^ 1]) + whole[start + 7 :])
    with pytest.raises(UserError, match="corrupt or no parquet file"):
        read_table(path)


def test_a_tables_index_is_a_column() -> None:
    assert read_table(ROWS.set_index("run"))["run"].tolist() == ROWS["run"].tolist()
    assert read_table(ROWS.set_index(["run", "params"]))["params"].tolist() == ROWS["params"].tolist()
