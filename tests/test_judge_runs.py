"""Runs that are judged: what they write, the rows in their folders, and what `emergence` reads of them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import call
from helpers.judge_server import Answer, says, serving
from helpers.tiny_runs import run, write_corpus

import lmscale
from lmscale.core.config import ModelConfig
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.files import read_json, write_json
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.run_folder import CONFIG_FILE, SCORES_FILE
from lmscale.core.run_identity import read_config
from lmscale.core.scores import read_rows
from lmscale.lm.train.loop import train
from lmscale.study.emergence.folder import read_scores

RUBRIC = {
    "name": "tiny", "instructions": "Grade.", "openings": ["the ", "a quick "],
    "criteria": [{"name": "plot", "question": "How good?"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained runs of a sweep and one that has not begun."""
    root = tmp_path_factory.mktemp("judged")
    (root / "text").mkdir()
    corpus = write_corpus(root / "text")
    configs = [run(corpus, 3, model=ModelConfig(width=width, layers=1, heads=2, context=16)) for width in (24, 16, 20)]
    write_plan(root / "sweep", "sweep", [PlannedRun(config) for config in configs])
    for config in configs[:2]:
        folder = root / "sweep" / config.run_id
        folder.mkdir()
        write_json(folder / CONFIG_FILE, config.to_json())
        train(config, folder)
    (root / "rubric.json").write_text(json.dumps(RUBRIC))
    return root / "sweep"


@pytest.fixture
def words(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    for file in sweep.glob(f"*/{SCORES_FILE}"):
        file.unlink()
    return ("judge", sweep, "--rubric", sweep.parent / "rubric.json", "--max-tokens", 12, "--n", 2)


def grades(body: dict[str, Any], number: int) -> Answer:
    text = body["messages"][-1]["content"]
    if "A:" in text:
        return says('{"better": "A"}')
    return says(json.dumps({"plot": 1 + len(text) % 10}))


def folders(sweep: Path) -> list[Path]:
    """The folders of the trained runs, the smallest first."""
    return sorted((file.parent for file in sweep.glob("*/outcome.json")), key=params_of)


def params_of(folder: Path) -> int:
    return count(read_config(folder)).params


@pytest.mark.long
def test_scores_of_runs_are_rows_like_others(sweep: Path, words: tuple[object, ...]) -> None:
    """Judged again, a row replaces the one before; by another judge it stands beside it."""
    with serving(grades) as running:
        server = ("--server", running.url, "--model")
        for judge, requests in (("m", 8), ("m", 8), ("other", 16)):
            assert call(*words, *server, judge) == 0
            assert len(running.bodies) == requests, "texts of one seed are the same again, and nothing is paid twice"
    for folder in folders(sweep):
        rows = read_rows(folder / SCORES_FILE)
        assert [(row["judge"], row["metric"], row["n"]) for row in rows] == [("m", "plot", 4), ("other", "plot", 4)]
        assert rows[0]["params"] == params_of(folder) and rows[0]["run_id"] == folder.name and rows[0]["loss"] > 0
        assert "model" not in rows[0] and rows[0]["task"] == "judge:tiny" and rows[0]["kind"] == "graded"
        responses = [json.loads(line) for line in (folder / rows[0]["responses"]).read_text().splitlines()]
        assert [one["prompt"] for one in responses] == ["the ", "the ", "a quick ", "a quick "]
        mean = sum(one["grades"]["plot"] for one in responses) / 4
        assert math.isclose(rows[0]["score"], mean)
        assert responses[0]["text"] != responses[1]["text"], "two draws"
    table = read_scores(sweep, where="judge == 'm'")
    assert len(table) == 2 and set(table["params"]) == {params_of(folder) for folder in folders(sweep)}


@pytest.mark.long
def test_ratings_and_measures_are_rows_too(sweep: Path, words: tuple[object, ...], tmp_path: Path) -> None:
    with serving(grades) as running:
        assert call(*words, "--server", running.url, "--model", "m", "--pairs", "--json", tmp_path / "o.json") == 0
    assert call(*words, "--offline") == 0
    ratings = [read_rows(folder / SCORES_FILE)[0] for folder in folders(sweep)]
    assert [row["metric"] for row in ratings] == ["rating"] * 2 and [row["n"] for row in ratings] == [8, 8]
    assert ratings[0]["score"] == pytest.approx(0.0, abs=1e-6), "a judge that follows the place prefers nobody"
    votes = read_json(tmp_path / "o.json")["votes"]
    assert len(votes) == 16 and {vote["model_a"] for vote in votes} <= {folder.name for folder in folders(sweep)}
    offline = [row for row in read_rows(folders(sweep)[0] / SCORES_FILE) if row["task"] == "offline"]
    assert {"distinct_1", "self_bleu", "words", "reading_age_years"} <= {row["metric"] for row in offline}


@pytest.mark.long
def test_python_returns_what_the_verb_writes(
    sweep: Path, words: tuple[object, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same grades, measures and rows, and nothing is printed."""
    settings: dict[str, Any] = {"rubric": sweep.parent / "rubric.json", "max_tokens": 12, "n": 2}
    with serving(grades) as running:
        judge = {"server": running.url, "model": "m"}
        assert call(*words, "--server", running.url, "--model", "m", "--json", tmp_path / "o.json") == 0
        rows = [read_rows(folder / SCORES_FILE) for folder in folders(sweep)]
        capfd.readouterr()
        value = lmscale.judge(sweep, **judge, **settings)
        cost = lmscale.judge(sweep, **judge, **settings, pairs=True, dry_run=True)["cost"]
    assert json.loads(json.dumps(value)) == read_json(tmp_path / "o.json")
    assert [read_rows(folder / SCORES_FILE) for folder in folders(sweep)] == rows and cost["requests"] == 16
    measures = lmscale.judge(sweep, offline=True, **settings)
    page = lmscale.judge(sweep, people=tmp_path / "page.html", **settings)
    assert {row["task"] for row in measures["rows"]} == {"offline"} and len(measures["texts"]) == 8
    assert page["pairs"] == 8 and (tmp_path / "page.html").is_file()
    assert capfd.readouterr() == ("", "")
    with pytest.raises(UserError, match="say who judges"):
        lmscale.judge(sweep)


def test_a_dry_run_writes_no_text(sweep: Path, words: tuple[object, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Its cost is that of texts of full length, and the models are not even opened."""
    for more, requests in (((), 8), (("--pairs",), 16)):
        server = ("--server", "http://127.0.0.1:9/v1", "--model", "m")
        assert call(*words, *server, "--dry-run", *more) == 0
        assert f"{requests} requests, 0 of them answered before" in capsys.readouterr().out
    assert not list(sweep.glob(f"*/{SCORES_FILE}"))


def test_runs_that_cannot_be_judged(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(tmp_path / "bare", "bare", [PlannedRun(run("stdlib", 8))])
    (tmp_path / "r.json").write_text(json.dumps({**RUBRIC, "openings": []}))
    for more, sentence in [
        ((tmp_path / "bare", "--offline"), "no run of"),
        ((sweep, "--offline", "--rubric", tmp_path / "r.json"), "no openings"),
        ((folders(sweep)[0], "--offline", "--text-temperature", "-1"), "temperature = -1"),
    ]:  # fmt: skip
        assert call("judge", *more) == 2
        output = capsys.readouterr().err
        assert sentence in output and output.count("\n") == 1
