"""Tables: every format, the names of columns, what is completed, what is refused."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study.tables import PUBLISHED, read_table

ROWS = [
    {"run": "a", "params": 1e6, "tokens": 2e7, "flops": 1.2e14, "loss_nats": 3.5},
    {"run": "b", "params": 2e6, "tokens": 4e7, "flops": 4.8e14, "loss_nats": 3.1},
]


def test_chinchilla_ships_whole_and_names_what_it_leaves_out() -> None:
    table = read_table("chinchilla")
    assert len(table) == 240
    assert len(table.attrs["dropped"]) == 5
    assert "outliers" in table.attrs["dropped"][0]["reason"]
    with (PUBLISHED / "chinchilla.csv").open() as file:
        exact = [float(row["loss"]) for row in csv.DictReader(file) if row["used_in_fit"] == "1"]
    assert table["loss_nats"].tolist() == exact


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "t.jsonl", "t.jsonl.gz"])
def test_formats_agree(tmp_path: Path, name: str) -> None:
    frame, path = pd.DataFrame(ROWS), tmp_path / name
    if "csv" in name:
        frame.to_csv(path, index=False)
    elif "parquet" in name:
        frame.to_parquet(path)
    else:
        text = "\n".join(json.dumps(row) for row in ROWS)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    table = read_table(path)
    assert table[list(ROWS[0])].to_dict("records") == ROWS
    assert table["flops_budget"].isna().all()


def write(tmp_path: Path, **columns: list[object]) -> Path:
    path = tmp_path / "t.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_columns_are_mapped_by_name_or_recognised(tmp_path: Path) -> None:
    path = write(tmp_path, n_params=[1e6], n_tokens=[2e7], C=[1.2e14], final=[3.0])
    table = read_table(path, "flops=C,loss=final,budget=C")
    assert table.loc[0, ["params", "tokens", "flops", "loss_nats", "flops_budget"]].tolist() == [
        1e6,
        2e7,
        1.2e14,
        3.0,
        1.2e14,
    ]
    assert table.loc[0, "run"] == "row 1"
    assert table.loc[0, "final"] == 3.0  # the source's own columns stay


def test_unknown_columns_name_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, n_params=[1e6], n_tokens=[2e7], loss=[3.0])
    with pytest.raises(UserError, match=r"no column 'n_param'.*did you mean 'n_params'"):
        read_table(path, "params=n_param")
    with pytest.raises(UserError, match="did you mean 'params'"):
        read_table(path, "parms=n_params")
    with pytest.raises(UserError, match="without a source column"):
        read_table(path, "params")


def test_missing_tokens_and_flops_are_completed_with_a_note(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, params=[1e6, 2e6], flops=[1.2e14, 4.8e14], loss=[3.0, 2.9]))
    assert table["tokens"].tolist() == pytest.approx([2e7, 4e7])
    assert "D = C/(6N)" in table.attrs["notes"][0]
    table = read_table(write(tmp_path, params=[1e6, 2e6], tokens=[2e7, np.nan], loss=[3.0, 2.9]))
    assert table["flops"].isna().tolist() == [False, True]  # nothing to complete it from: it stays missing
    assert "C = 6ND" in table.attrs["notes"][0]


def test_where_filters_and_says_how_many(tmp_path: Path) -> None:
    path = write(tmp_path, n_params=[1e6, 2e6], n_tokens=[2e7, 4e7], loss=[3.0, 2.9], kind=["x", "y"])
    table = read_table(path, where="kind == 'x' and params < 5e6")
    assert len(table) == 1
    assert "keeps 1 of 2 rows" in table.attrs["notes"][0]
    with pytest.raises(UserError, match=r"names 'knd'.*did you mean 'kind'"):
        read_table(path, where="knd == 'x'")
    with pytest.raises(UserError, match="keeps none"):
        read_table(path, where="params > 1e9")
    with pytest.raises(UserError, match="cannot be evaluated"):
        read_table(path, where="params >")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.parquet", b"no parquet", "corrupt or no parquet file"),
        ("t.csv.gz", b"no gzip", "corrupt or no csv file"),
        ("t.csv", b"", "is empty: its first line"),
        ("t.csv", b"params,tokens,loss\n", "has no rows"),
        ("t.jsonl", b'{"params": 1}\n{"params": \n', "corrupt in line 2"),
        ("t.jsonl", b"[1, 2]\n", "corrupt in line 1"),
        ("t.txt", b"1 2 3", "no table by its name"),
        ("t.csv", b"params,tokens,loss\n1e6,2e7,3.0\n1e6,many,3.0\n", r"holds 'many'.*tokens must be numeric$"),
        ("t.csv", b"params,tokens,loss\n1.4B,2e7,3.0\n", r"holds '1.4B'.*must be numeric; write 1400000000 for it"),
    ],
)
def test_unusable_files_are_one_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_table(path)
    assert "\n" not in str(error.value)


def test_spreadsheets_and_their_marks(tmp_path: Path) -> None:
    frame, path = pd.DataFrame(ROWS), tmp_path / "t.csv"
    for encoding, sep, decimal in (("utf-8-sig", ",", "."), ("utf-8", ";", "."), ("utf-8-sig", ";", ",")):
        path.write_text(frame.to_csv(index=False, sep=sep, decimal=decimal), encoding=encoding)
        table = read_table(path)
        assert table[list(ROWS[0])].to_dict("records") == ROWS
        notes = [note for note in table.attrs["notes"] if "semicolons" in note]
        assert len(notes) == (sep == ";")
        assert not notes or notes[0].endswith("commas" if decimal == "," else "points")
    lines = tmp_path / "t.jsonl"
    lines.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8-sig")
    assert read_table(lines)["params"].tolist() == [1e6, 2e6]


def test_columns_in_capitals_are_recognised_where_there_is_no_doubt(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, N_Params=[1e6], TOKENS=[2e7], Loss=[3.0]))
    assert table.loc[0, ["params", "tokens", "loss_nats"]].tolist() == [1e6, 2e7, 3.0]
    assert "params" not in read_table(write(tmp_path, PARAMS=[1e6], Params=[2e6], tokens=[2e7], loss=[3.0]))


def test_held_out_is_yes_or_no(tmp_path: Path) -> None:
    table = read_table(
        write(tmp_path, params=[1, 2, 3], tokens=[1, 2, 3], loss=[3, 2, 1], held_out=["yes", "No", None])
    )
    assert table["held_out"].tolist() == [True, False, False]
    with pytest.raises(UserError, match=r"'held_out' of .* holds 'perhaps'"):
        read_table(write(tmp_path, params=[1], tokens=[1], loss=[3], held_out=["perhaps"]))


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no table at chinchila; did you mean 'chinchilla'"):
        read_table("chinchila")
    with pytest.raises(UserError, match="there is no table at"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="no sweep's folder: there is no plan at"):
        read_table(tmp_path)
