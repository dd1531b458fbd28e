"""A table is the same in every format, and runs of others become one that a fit takes."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from helpers.outcomes import OTHER, RUN, outcome_of
from rich.console import Console

from lmscale.commands import import_table, report, table
from lmscale.commands.import_table import ImportArgs
from lmscale.commands.table import TableArgs
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.results import collect
from lmscale.core.run_folder import SCORES_FILE
from lmscale.study.tables import read_table, writing

COLUMNS = ["run", "state", "params", "tokens", "flops", "loss_nats", "flops_budget", "held_out"]
READ = {"csv": pd.read_csv, "parquet": pd.read_parquet, "jsonl": lambda path: pd.read_json(path, lines=True)}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    write_plan(tmp_path / "two", "two", [PlannedRun(RUN, flops_budget=1e9), PlannedRun(OTHER)])
    outcome_of(RUN).write(tmp_path / "two" / RUN.run_id)
    return tmp_path / "two"


def write_table(folder: Path, output: Path | None = None, **options: Any) -> None:
    table.main(TableArgs(folder, output, **options), Console())


def take_in(source: Path, output: Path, columns: str | None = None, where: str | None = None) -> None:
    import_table.main(ImportArgs(source, output, columns, where), Console())


@pytest.mark.parametrize("ending", READ)
def test_a_table_is_the_same_in_every_format(sweep: Path, ending: str) -> None:
    for number, options in enumerate(({}, {"to": ending})):
        path = sweep / (f"runs.{ending}" if not number else "runs")
        write_table(sweep, path, **options)
        pd.testing.assert_frame_equal(READ[ending](path)[COLUMNS], collect(sweep)[COLUMNS], check_dtype=False)


def test_on_a_terminal_it_is_text(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(sweep)
    assert capsys.readouterr().out.startswith("run,name,state,")
    write_table(sweep, to="jsonl")
    assert [json.loads(line)["run"] for line in capsys.readouterr().out.splitlines()] == [RUN.run_id, OTHER.run_id]


def test_what_has_no_format_is_refused(sweep: Path) -> None:
    before = sorted(sweep.rglob("*"))
    with pytest.raises(UserError, match=r"x\.xls: the ending says the format, one of \.csv, \.jsonl, \.parquet"):
        write_table(sweep, sweep / "x.xls")
    with pytest.raises(UserError, match="--to parquet is not for a terminal; add --output"):
        write_table(sweep, to="parquet")
    assert sorted(sweep.rglob("*")) == before


def test_scores_are_a_table_of_their_own(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"no run in .*two has scores; name tasks in its sweep"):
        write_table(sweep, scores=True)
    rows = [{"run_id": RUN.run_id, "step": step, "task": "copy", "score": step / 10} for step in (1, 2)]
    (sweep / RUN.run_id / SCORES_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_table(sweep, sweep / "scores.csv", scores=True)
    assert "2 scores in" in capsys.readouterr().out
    assert pd.read_csv(sweep / "scores.csv")[["step", "score", "seed"]].to_numpy().tolist() == [
        [1, 0.1, 0],
        [2, 0.2, 0],
    ]
    with pytest.raises(UserError, match="--scores go to a file or the terminal"):
        write_table(sweep, to="wandb", scores=True)


class Recorder:
    """Stands for the module `wandb`."""

    def __init__(self) -> None:
        self.logged: dict[str, Any] = {}
        self.Table = lambda columns, data: SimpleNamespace(columns=columns, data=data)
        self.Html = lambda path: path

    def init(self, **settings: Any) -> "Recorder":
        self.settings = settings
        return self

    def log(self, values: dict[str, Any]) -> None:
        self.logged |= values

    def finish(self) -> None:
        self.logged["over"] = True


def test_the_table_and_the_page_go_to_wandb(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    (sweep / "report").mkdir()
    (sweep / "report" / "report.html").touch()
    write_table(sweep, to="wandb")
    assert (recorder.settings["group"], recorder.settings["id"]) == ("two", "two-table")
    table = recorder.logged["runs"]
    rows = [dict(zip(table.columns, row)) for row in table.data]
    assert [row["loss_nats"] for row in rows] == [2.5, None] and recorder.logged["report"].endswith("report.html")
    assert capsys.readouterr().out == "2 runs and the report sent to Weights & Biases, group two\n"
    monkeypatch.setattr(recorder, "log", lambda values: 1 / 0)
    with pytest.raises(UserError, match=r"did not take the table .ZeroDivisionError.*WANDB_MODE=offline"):
        write_table(sweep, to="wandb")


OTHERS = pd.DataFrame(
    {"Name": ["a", "b"], "State": ["finished", "crashed"], "n": [1e6, 2e6], "seen": [2e7, 4e7], "eval/loss": [3.1, 3.0]}
)


@pytest.mark.parametrize("ending", READ)
def test_runs_of_others_become_a_table(tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    writing.write(OTHERS, tmp_path / f"theirs.{ending}", ending)  # type: ignore[arg-type]
    take_in(
        tmp_path / f"theirs.{ending}",
        tmp_path / "ours.csv",
        "params=n,tokens=seen,loss=eval/loss",
        "State == 'finished'",
    )
    output = capsys.readouterr().out
    assert "keeps 1 of 2 rows" in output and "1 run in" in output and "next: lmscale report" in output
    ours = read_table(tmp_path / "ours.csv")
    assert ours[["params", "tokens", "loss_nats"]].to_numpy().tolist() == [[1e6, 2e7, 3.1]]
    assert ours["flops"].tolist() == [6 * 1e6 * 2e7]


NESTED = {
    "name": ["a", "b"],
    "summary": [{"loss": 3.0, "_step": 5}, {"loss": 2.9}],
    "config": [{"n_params": 1e6, "model": {"width": 8}, "tokens": 1e8}, {"n_params": 2e6, "tokens": 2e8}],
}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_mappings_in_cells_become_columns(tmp_path: Path, ending: str) -> None:
    """As W&B's own example of an export writes them: as text in CSV, as mappings in JSONL."""
    path = tmp_path / f"project.{ending}"
    writing.write(pd.DataFrame(NESTED), path, ending)  # type: ignore[arg-type]
    mapping = "params=config.n_params,tokens=config.tokens,loss=summary.loss,run=name"
    take_in(path, tmp_path / "ours.parquet", mapping)
    ours = read_table(tmp_path / "ours.parquet")
    assert ours["run"].tolist() == ["a", "b"] and ours["loss_nats"].tolist() == [3.0, 2.9]
    assert ours["config.model.width"].tolist()[0] == 8 and ours["params"].tolist() == [1e6, 2e6]


def test_trouble_with_a_table_of_others_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writing.write(OTHERS, tmp_path / "t.csv", "csv")
    with pytest.raises(UserError, match="has no column 'lost'"):
        take_in(tmp_path / "t.csv", tmp_path / "o.csv", "loss=lost")
    with pytest.raises(UserError, match=r"there is no table at .*absent\.csv"):
        take_in(tmp_path / "absent.csv", tmp_path / "o.csv")
    with pytest.raises(UserError, match="the ending says the format"):
        take_in(tmp_path / "t.csv", tmp_path / "o.xls")
    assert not list(tmp_path.glob("o.*"))
    take_in(tmp_path / "t.csv", tmp_path / "o.csv", "loss=eval/loss")
    assert "it has no column params or tokens or flops, which a fit needs" in capsys.readouterr().out


HOSTILE = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=already", "''=twice", "'quoted'", "-",
           " =1", "a,b", 'say "x"', "two\nlines", "-1.5", "plain", ""]  # fmt: skip


def test_no_cell_of_csv_is_a_formula_and_every_cell_reads_back(tmp_path: Path) -> None:
    """As OWASP lists them: =, +, -, @, tab, carriage return; numbers below zero stay numbers."""
    table = pd.DataFrame({"run": [f"r{row}" for row in range(len(HOSTILE))], "=note": HOSTILE, "x": -1.5}).assign(
        loss=3.0
    )
    writing.write(table, tmp_path / "t.csv", "csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "@", "\t", "\r") or cell[:2] == "-2"]
    assert cells.count("-1.5") == len(HOSTILE) + 1
    ours = read_table(tmp_path / "t.csv")
    assert [None if pd.isna(cell) else cell for cell in ours["=note"]] == [*HOSTILE[:-1], None]
    assert ours["x"].tolist() == table["x"].tolist()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_digit_is_written_and_no_value_lost(tmp_path: Path, ending: Any) -> None:
    odd: dict[str, Any] = {
        "run": ["a", "b"],
        "params": [1e7, 2e7],
        "tokens": [2e8, 3e8],
        "loss": [3.123456789012345, float("inf")],
        "peak_lr": [1.2345678901e-7, 3e-11],
        "mixed": ["x", 1],
        "wide": pd.Series([2**70, 1], dtype=object),
        "nested": pd.Series([[1, 2], None], dtype=object),
        "half": pd.Series(["\ud800", None], dtype=object),
        "when": pd.to_datetime(["2026-01-01", None]),
    }
    writing.write(pd.DataFrame(odd), tmp_path / f"t.{ending}", ending)
    ours = read_table(tmp_path / f"t.{ending}")
    for name in ("loss", "peak_lr"):
        assert [float(value) for value in ours[name]] == odd[name]
    assert [float(value) for value in ours["wide"]] == [2.0**70, 1]
    assert str(ours["mixed"][0]) == "x" and str(ours["mixed"][1]) == "1"
    assert "2026-01-01" in str(ours["when"][0]) and pd.isna(ours["when"][1])


@pytest.mark.long
@pytest.mark.parametrize(
    "cell",
    [
        "{'params': 1e6, 'tokens': 2e7, 'clip': inf, 'x': -inf, 'y': nan}",
        '{"params": 1e6, "tokens": 2e7, "clip": Infinity, "y": NaN, "z": null, "t": true}',
        "{'params': 1000000, 'tokens': 20000000, 'big': 1180591620717411303424}",
        "{'params': np.float64(1000000.0), 'tokens': 2e7, 'when': datetime.datetime(2026, 1, 1), 'f': open('x')}",
        "{'params': 1e6, 'tokens': 2e7, 'inner': '{\"a\": 1}', 'deep': " + "{'a': " * 30 + "1" + "}" * 30 + "}",
    ],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_no_value_in_a_mapping_costs_the_others(tmp_path: Path, cell: str, ending: Any) -> None:
    table = pd.DataFrame({"name": ["a", "b"], "config": [cell, "{'params': 2e6, 'tokens': 4e7}"], "loss": [3.1, 3.0]})
    writing.write(table, tmp_path / f"t.{ending}", ending)
    for output in ("o.parquet", "o.csv", "o.jsonl"):
        take_in(tmp_path / f"t.{ending}", tmp_path / output)
        ours = read_table(tmp_path / output)
        assert ours[["run", "params", "tokens"]].to_numpy().tolist() == [["a", 1e6, 2e7], ["b", 2e6, 4e7]]


def test_values_beside_their_descriptions(tmp_path: Path) -> None:
    """As W&B's own files write a configuration."""
    cells = [json.dumps({"params": {"desc": None, "value": n}, "tokens": {"value": 2e7}}) for n in (1e6, 2e6)]
    pd.DataFrame({"config": cells}).to_csv(tmp_path / "t.csv")
    assert read_table(tmp_path / "t.csv")["params"].tolist() == [1e6, 2e6]


def test_a_mapping_that_cannot_be_read_is_named_with_its_own_file(tmp_path: Path) -> None:
    pd.DataFrame({"name": ["a", "b"], "config": ["{'params': 1e6}", "{'params': <obj>}"]}).to_csv(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"'config' of .*t\.csv holds mappings, but in row 2 '{'params': <obj>}'"):
        take_in(tmp_path / "t.csv", tmp_path / "o.csv")


@pytest.mark.long
def test_a_report_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = [(n, d) for n in (1e7, 3e7, 1e8) for d in (1e9, 3e9, 1e10)]
    rows = [{"run": f"={n}", "N": n, "tokens": d, "loss": 1.8 + 480 * n**-0.35 + 2000 * d**-0.37} for n, d in sizes]
    pd.DataFrame(rows).to_csv("theirs.csv", index=False)
    report.main(report.ReportArgs("theirs.csv", where="N > 2e7", resamples=0), Console())
    assert capsys.readouterr().out.startswith("the report is reports/theirs/report.html; open it in a browser\nnext: ")
    assert len(read_table("reports/theirs/table.csv")) == 6
    assert read_table("reports/theirs/table.csv")["run"][0] == "=30000000.0"
    with pytest.raises(UserError, match="there is no table at absent"):
        report.main(report.ReportArgs("absent"), Console())
