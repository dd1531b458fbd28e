"""`--json -`, or `--json` alone: one object on standard output, and everything else on standard error."""

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import call
from helpers.tiny_runs import run, write_corpus

import lmscale
from lmscale.cli import VERBS, parse
from lmscale.commands.answer import alone, write_answer
from lmscale.core.config import ModelConfig
from lmscale.core.files import read_json, write_json
from lmscale.core.plans import PlannedRun, read_plan, write_plan
from lmscale.core.run_folder import CONFIG_FILE
from lmscale.lm.devices import machine
from lmscale.lm.train.loop import train
from lmscale.study.launch import lease

TABLE = "table"
"""The verb whose answer is the table itself: `--to jsonl`."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.01)


@pytest.fixture
def folder(workspace: Path, tmp_path: Path) -> Path:
    """A finished sweep whose first run is then failed."""
    folder = Path(shutil.copytree(workspace / "runs" / "smoke", tmp_path / "runs" / "smoke"))
    first = folder / read_plan(folder)[1][0].config.run_id
    (first / "outcome.json").unlink()
    write_json(first / "failed.json", {"reason": "exit status 3", "log": []})
    return folder


def answer(capsys: pytest.CaptureFixture[str], *words: object, status: int = 0) -> Any:
    """What a call writes to standard output, which is one line; what it prints stands on standard error."""
    assert call(*words, "--json") == status
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and out.endswith("\n") and err
    return json.loads(out)


def test_every_verb_answers() -> None:
    without = [name for name, verb in VERBS.items() if "json" not in _fields(getattr(verb.load(), verb.arguments))]
    assert without == [TABLE]


def _fields(arguments: Any) -> set[str]:
    return {field.name for field in fields(arguments)}


def test_retry(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [run.config.run_id for run in read_plan(folder)[1]]
    value = answer(capsys, "retry", folder)
    assert value["folder"] == str(folder) and [run["run_id"] for run in value["runs"]] == ids[:1]
    assert value["runs"][0]["name"].startswith("N ") and " D " in value["runs"][0]["name"]
    assert answer(capsys, "retry", folder)["runs"] == []


def test_stop_of_a_sweep_that_is_at_an_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "stop", folder) == {"folder": str(folder), "stopped": [], "at_work": []}


def test_status_and_logs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = answer(capsys, "status", folder)
    assert value["states"]["failed"] == 1 and len(value["runs"]) == sum(value["states"].values())
    failed = next(run["run_id"] for run in value["runs"] if run["state"] == "failed")
    assert answer(capsys, "logs", folder / failed)["failed"] == "exit status 3"
    assert call("logs", folder / failed, "--follow", "--json") == 2


def test_init_and_export_jobs(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "init", "mine", "--folder", tmp_path) == {"file": str(tmp_path / "mine.py")}
    assert answer(capsys, "clean", folder)["checkpoints of ended runs"] == {"bytes": 0, "deleted": False}
    jobs = answer(capsys, "export-jobs", folder / "plan.json", "--runs", folder.parent)["jobs"]
    assert len(jobs) == 1 and Path(jobs[0]).is_file()


def test_what_a_refusal_leaves_on_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("retry", folder, "zzz", "--json", "-") == 2
    out, err = capsys.readouterr()
    assert out == "" and "plans no run 'zzz'" in err


def test_a_file_has_the_answer_and_standard_output_the_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("retry", folder, "--json", folder / "answer.json") == 0
    assert "may be tried again" in capsys.readouterr().out
    assert len(read_json(folder / "answer.json")["runs"]) == 1


def test_text_beside_the_answer_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    with alone(parse("status", ["runs/x", "--json", "-"])):
        print("a\x1b[2Jb")
        write_answer(Path("-"), {"a": 1})
    out, err = capsys.readouterr()
    assert out == '{"a": 1}\n' and "\x1b" not in err and "a" in err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of one trained run."""
    root = tmp_path_factory.mktemp("answers")
    (root / "text").mkdir()
    config = run(write_corpus(root / "text"), 3, model=ModelConfig(width=16, layers=1, heads=2, context=16))
    write_plan(root / "sweep", "sweep", [PlannedRun(config)])
    folder = root / "sweep" / config.run_id
    folder.mkdir()
    write_json(folder / CONFIG_FILE, config.to_json())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "matmul_peak", lambda dtype: 1e11)
        train(config, folder)
    return folder


@pytest.mark.long
def test_a_trained_run(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = answer(capsys, "eval", trained, "inside:heads", "--items", 2)
    assert value["run"] == str(trained) and value["problem"] is None
    assert {row["task"] for row in value["scores"]} and all("responses" in row for row in value["scores"])
    rows = (trained / "scores.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows] == value["scores"]
    assert answer(capsys, "eval", trained, "inside:heads", "--items", 2)["scores"] == value["scores"], "scored again"

    value = answer(capsys, "export", trained, tmp_path / "model")
    assert {file["file"] for file in value["files"]} == {path.name for path in (tmp_path / "model").iterdir()}
    value = answer(capsys, "import-model", tmp_path / "model", "--output", tmp_path / "back")
    assert value["folder"] == str(tmp_path / "back") and value["params"] > 0
    assert value["run_id"] == lmscale.load(tmp_path / "back").config.run_id

    value = answer(capsys, "run", trained.parent / "plan.json", "--runs", trained.parent.parent)
    assert value["states"] == {"finished": 1} and value["status"] == 0
    value = answer(capsys, "finish", trained)
    assert value["run_id"] == trained.name and value["state"] == "finished"
