"""Numbers as spreadsheets of all countries write them, and the cells that may be two numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study.tables import read_table

N, D, LOSS = [12_345_678.0, 1_234_567.0, 23_000_000.0], [987_654_321.0, 1_000_000.0, 5_000.0], [3.52884, 3.4, 3.125]


def text(value: float, thousands: str, decimal: str) -> str:
    whole, _, rest = f"{value:,}".partition(".")
    return whole.replace(",", thousands) + (decimal + rest if rest.strip("0") else "")


@pytest.mark.parametrize(
    ("thousands", "decimal", "separator"),
    [(",", ".", ","), (".", ",", ";"), (" ", ",", ";"), ("\u202f", ",", ";"), ("\u00a0", ".", ","), ("'", ".", ","),
     ("\u2019", ".", ";"), ("_", ".", ","), (".", ",", "\t"), ("", ",", ";")],
)  # fmt: skip
def test_separators_between_thousands(tmp_path: Path, thousands: str, decimal: str, separator: str) -> None:
    rows = {name: [text(value, thousands, decimal) for value in values] for name, values in
            (("params", N), ("tokens", D), ("loss", LOSS))}  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False, sep=separator)
    table = read_table(tmp_path / "t.csv")
    assert table[["params", "tokens", "loss_nats"]].to_numpy().T.tolist() == [N, D, LOSS]
    (tmp_path / "t.jsonl").write_text(pd.DataFrame(rows).drop(columns="tokens").to_json(orient="records", lines=True))
    assert read_table(tmp_path / "t.jsonl")["params"].tolist() == N


def test_a_point_is_read_as_its_file_shows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("run;params;tokens;loss\na;361;461;3,52884\nb;1.180;1.845;2,9\n")
    assert read_table(path)["tokens"].tolist() == [461, 1845]
    path.write_text("run;params;tokens;loss\na;361e6;461e6;3.528\nb;1180e6;1845e6;2.941\n")
    assert read_table(path)["loss_nats"].tolist() == [3.528, 2.941]
    path.write_text('run,params,tokens,loss\na,"1,234",2e8,3.12\n')
    assert read_table(path)["params"].tolist() == [1234]


@pytest.mark.parametrize(
    "rows",
    ["a;1.234;2.345;3,123", "a;1,234;2345;3,123", "a;1.234.567;2.345;3.12"],
)
def test_a_cell_that_may_be_two_numbers_is_named(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"run;params;tokens;loss\n{rows}\n{rows.replace('a;', 'b;', 1)}\n")
    with pytest.raises(
        UserError, match=r"holds '[\d.,]+' \(run a\), which may be \d+ or [\d.]+: write numbers without"
    ):
        read_table(path)


def test_names_of_runs_stay_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("run,params,tokens,loss,code\n007,1e7,2e8,3.1,01\n12e45,1e7,2e8,3.0,02\n")
    table = read_table(path)
    assert table["run"].tolist() == ["007", "12e45"] and table["code"].tolist() == ["01", "02"]


@pytest.mark.parametrize("cell", ["6.1M", "1,23,4", "0x10", "1e", "--5", "\uff11", "1 23"])
def test_what_is_no_number_is_named(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f'run,params,tokens,loss\na,"{cell}",2e8,3.1\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"column 'params' of .* \(run a\), which is no number"):
        read_table(path)


def test_wrong_types_are_no_numbers() -> None:
    rows = {"tokens": [2e8], "loss": [3.0]}
    for value in (True, [1], pd.Timestamp("2026-01-01"), b"1", pd.Timedelta(1), 1j):
        with pytest.raises(UserError, match="which is no number"):
            read_table(pd.DataFrame({"params": pd.Series([value]), **rows}))
    table = read_table(pd.DataFrame({"params": pd.Series([10**400], dtype=object), **rows}))
    assert np.isinf(table["params"]).all()
