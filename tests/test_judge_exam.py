"""What a run writes as scores of its exam: graded or measured in training, from a checkpoint, and against scale."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.judge_server import Answer, error, says, serving
from helpers.tiny_runs import run, write_corpus
from rich.console import Console

from lmscale.core.config import ExamConfig, ModelConfig, RunConfig
from lmscale.core.config.exam import is_task
from lmscale.core.config.judge import JudgeSpec, judge_spec
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.core.run_folder import CONFIG_FILE, SCORES_FILE
from lmscale.core.scores import read_rows
from lmscale.lm.eval.judge import exam, measures
from lmscale.lm.eval.tasks import Shots
from lmscale.lm.train.loop import train
from lmscale.lm.use import score_tasks
from lmscale.study.emergence.folder import read_scores
from lmscale.study.launch.jobs import local_paths

pytestmark = pytest.mark.usefixtures("known_peak", "compiled_programs")

CRITERIA = [{"name": "plot", "question": "How good?"}]
RUBRIC = {"name": "tiny", "instructions": "Grade.", "openings": ["the ", "a quick "], "criteria": CRITERIA}
HIDDEN = "sk-" + "a1" * 12


def grades(body: dict[str, Any], number: int) -> Answer:
    return says(json.dumps({"plot": 1 + len(body["messages"][-1]["content"]) % 10}))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A run to be trained, whose rubric lies in the folder where it is called."""
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("rubric.json").write_text(json.dumps(RUBRIC))
    Path("text").mkdir()
    return run(write_corpus(tmp_path / "text"), 8, model=ModelConfig(width=16, layers=1, heads=2, context=32))


def trained(config: RunConfig, *tasks: str, **exam_settings: Any) -> Path:
    folder = Path("runs") / config.run_id
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = replace(config, exam=ExamConfig(tasks=tasks, **exam_settings))
    write_json(folder / CONFIG_FILE, config.to_json())
    train(config, folder)
    return folder


def evaluated(folder: Path, *specs: str, items: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=200)
    score_tasks.show(folder, specs, [Shots(0)], items, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.long
def test_a_run_is_judged_while_it_trains_and_afterwards(config: RunConfig) -> None:
    """Both ways the same texts, so that the later rows stand in place of the earlier ones."""
    with serving(grades) as running:
        specs = (
            "judge:offline(rubric=rubric.json)",
            f"judge:grades(server={running.url}, model=m, rubric=rubric.json)",
        )
        folder = trained(config, *specs, at=(0.5, 1.0))
        rows, requests = read_rows(folder / SCORES_FILE), len(running.bodies)
        assert "plot" in evaluated(folder, *specs)
        assert len(running.bodies) == requests > 8, "the last texts were answered from the cache"
    last = [row for row in rows if row["step"] == config.steps]
    assert {row["step"] for row in rows} == {4, 8}
    (plot,) = [row for row in last if row["task"] == "judge:tiny"]
    responses = [json.loads(line) for line in (folder / plot["responses"]).read_text().splitlines()]
    assert [one["prompt"] for one in responses] == ["the "] * 4 + ["a quick "] * 4
    assert len({one["text"] for one in responses}) > 4 and all(len(one["text"]) <= 16 for one in responses)
    assert plot["score"] == pytest.approx(sum(one["grades"]["plot"] for one in responses) / 8)
    assert (plot["metric"], plot["n"], plot["judge"], plot["kind"]) == ("plot", 8, "m", "graded")
    assert "model" not in plot and plot["run_id"] == config.run_id and plot["loss"] > 0
    assert {row["metric"] for row in last} >= {"self_bleu", "words", "reading_age_years", "plot"}
    key = ("step", "task", "metric", "score")
    assert sorted([row[k] for k in key] for row in read_rows(folder / SCORES_FILE)) == sorted(
        [row[k] for k in key] for row in rows
    )
    assert {"plot", "self_bleu"} <= set(read_scores(folder.parent)["metric"]), "emergence reads them"


@pytest.mark.long
def test_variety_is_that_of_so_many_words(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distinct-n of a model depends on no other one, and is left out where its texts have too few words."""
    folder, spec = trained(config), "judge:offline(rubric=rubric.json)"
    assert "distinct-n is left out" in evaluated(folder, spec)
    assert not [row for row in read_rows(folder / SCORES_FILE) if row["metric"].startswith("distinct")]
    monkeypatch.setattr(exam, "WORDS", 5)
    evaluated(folder, spec)
    (row,) = [row for row in read_rows(folder / SCORES_FILE) if row["metric"] == "distinct_1"]
    texts = [json.loads(line)["text"] for line in (folder / row["responses"]).read_text().splitlines()]
    first = [word for text in texts for word in measures.words(text)][:5]
    assert row["score"] == pytest.approx(len(set(first)) / 5)
    evaluated(folder, spec, items=1)
    assert {row["n"] for row in read_rows(folder / SCORES_FILE) if row["metric"] == "words"} == {4, 8}


@pytest.mark.long
def test_a_judge_that_does_not_answer_stops_no_training(config: RunConfig, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(lambda body, number: error(401, "no")) as running:
        spec = f"judge:grades(server={running.url}, model=m, rubric=rubric.json)"
        folder = trained(config, spec, "judge:offline(rubric=rubric.json)")
        assert f"not scored at step 8: {spec}" in capfd.readouterr().out
        assert {row["task"] for row in read_rows(folder / SCORES_FILE)} == {"offline"}
        with pytest.raises(UserError, match="1 of the scores asked for could not be computed: judge:grades"):
            evaluated(folder, spec)
    with serving(lambda body, number: says("no idea")) as running:
        spec = f"judge:grades(server={running.url}, model=m, rubric=rubric.json)"
        with pytest.raises(UserError, match="fewer than two of 8 answers of m could be read"):
            evaluated(folder, spec)


def test_what_cannot_be_judged_is_reported_before_training(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THE_KEY", raising=False)
    Path("bare.json").write_text(json.dumps({**RUBRIC, "openings": []}))
    for spec, sentence in [
        ("judge:grades(server=https://h/v1, model=m, key_variable=THE_KEY)", "THE_KEY is not set"),
        ("judge:offline(rubric=bare.json)", "has no openings"),
        ("judge:offline(rubric=nowhere.json)", "nowhere.json"),
    ]:
        with pytest.raises(UserError, match=sentence):
            trained(config, spec)


def test_what_a_specification_says() -> None:
    assert judge_spec("judge:offline") == JudgeSpec("offline", "tinystories") and not is_task("judge:offline")
    assert judge_spec("judge:grades(server=http://h:1/v1/, model=a/b, key_variable=K, rubric=r.toml)") == JudgeSpec(
        "grades", "r.toml", "http://h:1/v1", "a/b", "K"
    )
    assert judge_spec("mmlu:data") is None and is_task("mmlu:data")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("judge:onlin", "judge:onlin says no way of judging; write judge:offline, or judge:grades"),
        ("judge:grades", "says no way of judging"),
        ("judge:grades(server=http://h/v1)", "says no way of judging"),
        ("judge:grades(server=http://h/v1, model=m", "says no way of judging"),
        ("judge:offline(server=http://h/v1)", "says no way of judging"),
        ("judge:offline(rubric=)", "says no way of judging"),
        ("judge:grades(server=ftp://h/v1, model=m)", "'ftp://h/v1' is none"),
        (f"judge:grades(server=http://h/v1?key={HIDDEN}, model=m)", "which would end in logs"),
        (f"judge:grades(server=http://{HIDDEN}@h/v1, model=m)", "which would end in logs"),
        (f"judge:grades(http://h/v1/{HIDDEN}, model=m)", "says no way of judging"),
        (f"judge:grades(server=http://h/v1, model=m, key_variable={HIDDEN})", "never the key itself"),
    ],
)
def test_what_says_no_way_of_judging(spec: str, sentence: str) -> None:
    """One sentence, which repeats no key: a configuration is written into many files."""
    with pytest.raises(UserError) as caught:
        ExamConfig(tasks=(spec,))
    assert sentence in str(caught.value) and HIDDEN not in str(caught.value)


def test_a_rubric_of_its_own_goes_with_a_job(config: RunConfig) -> None:
    tasks = ("judge:offline", "judge:offline(rubric=rubric.json)")
    paths = local_paths(replace(config, exam=ExamConfig(tasks=tasks)))
    assert [path.name for what, path in paths.items() if what.startswith("the rubric")] == ["rubric.json"]
