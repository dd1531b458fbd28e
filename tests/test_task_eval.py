"""A run is scored on tasks from its checkpoint or while it trains, and its scores are kept."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.tiny_runs import outcome
from helpers.tiny_runs import rows as metrics
from rich.console import Console

from lmscale.core.config import DataConfig, ExamConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.core.run_folder import RESPONSES_FOLDER, SCORES_FILE, SCORING_FILE
from lmscale.lm.devices import machine
from lmscale.lm.eval import task_eval
from lmscale.lm.eval.tasks import Shots, load
from lmscale.lm.train.loop import train
from lmscale.lm.use import score_tasks

pytestmark = pytest.mark.usefixtures("known_peak", "compiled_programs")

LANGUAGE = 'synthetic:tasks(letters=2, length=2, only="copy")'
CONFIG = RunConfig(
    model=ModelConfig(width=32, layers=1, heads=2, context=32),
    optimizer=OptimizerConfig(peak_lr=0.02, batch_sequences=16),
    data=DataConfig(source=LANGUAGE),
    tokens=160 * 16 * 32,
    validation_tokens=1024,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, compiled_programs: Path) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "matmul_peak", lambda dtype: 1e11)
        train(CONFIG, folder)
    return folder


ADDED = ("shots_seed", "draw", "task_hash", "responses")


def show(run: Path, *shots: int | Shots, items: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=400, highlight=False)
    drawn = [one if isinstance(one, Shots) else Shots(one) for one in shots]
    score_tasks.show(run, [LANGUAGE], drawn, items, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / SCORES_FILE).read_text().splitlines()]


@pytest.mark.long
def test_rows_are_kept_and_replaced(run: Path) -> None:
    output = show(run, 0, 1, items=10)
    assert output.count("10 items in") == 2 and "exact_match" in output
    first = rows(run)
    assert [(row["metric"], row["shots"]) for row in first] == [
        (metric, shots) for shots in (0, 1) for metric in ("exact_match", "share_in_place", "gold_bits_per_byte")
    ]
    assert {(row["step"], row["tokens"], row["n"]) for row in first} == {(160, CONFIG.tokens, 10)}
    assert first[0]["loss"] == json.loads((run / "outcome.json").read_text())["loss_nats"]
    assert "items where" not in output
    # on fewer items, with other examples or other ones for each question: further rows, and none replaces another
    output = show(run, 1, items=5)
    assert "the best-measured score of each run is used" in output and "has 5 items where 10 are scored" in output
    show(run, Shots(1, seed=1), items=10)
    show(run, Shots(1, draw="each"), items=10)
    now = rows(run)
    assert now[: len(first)] == first
    assert [(row["n"], row["shots_seed"], row["draw"]) for row in now if row["metric"] == "exact_match"] == [
        (10, None, None), (10, 0, "shared"), (5, 0, "shared"), (10, 1, "shared"), (10, 0, "each"),
    ]  # fmt: skip
    show(run, 1, items=10)  # the same once more
    assert sorted(map(str, rows(run))) == sorted(map(str, now))
    files = {row["responses"]: row["n"] for row in now}
    assert len(files) == len(list((run / RESPONSES_FOLDER).glob("*"))) == 5
    for name, items in files.items():
        responses = [json.loads(line) for line in (run / name).read_text().splitlines()]
        assert len(responses) == items and responses[0]["generated"]


@pytest.mark.long
def test_rows_of_an_older_version_stay(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    show(folder, 0, items=10)
    old = [{name: row[name] for name in row if name not in ADDED} for row in rows(folder)]
    (folder / SCORES_FILE).write_text("".join(json.dumps(row) + "\n" for row in old))
    show(folder, 0, items=5)
    assert rows(folder)[: len(old)] == old and len(rows(folder)) == len(old) + 3
    (folder / SCORES_FILE).write_text('{"task": "copy", "score": NaN}\n')
    with pytest.raises(UserError, match=r"line 1 are corrupt \(NaN is no number"):
        show(folder, 0, items=5)


@pytest.mark.long
def test_responses_that_are_no_numbers_are_no_scores(run: Path, tmp_path: Path) -> None:
    """A model that has become NaN is neither right nor wrong; other tasks are scored."""
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / SCORES_FILE).unlink(missing_ok=True)
    scorer, columns = score_tasks.newest_scorer(folder)
    good, (task,) = scorer.params, load(LANGUAGE)
    scorer.params = {name: value * float("nan") for name, value in good.items()}
    (result,) = task_eval.evaluate(scorer, [task], [Shots()], folder, columns)
    assert not result.scores and "500 of 500 items are not finite, first of item 0" in result.problem
    assert any("not scored" in sentence for sentence in task_eval.remarks(result))
    assert not (folder / SCORES_FILE).exists() and not (folder / SCORING_FILE).exists()


@pytest.mark.long
def test_a_trained_run_scores_above_chance(run: Path) -> None:
    (task,) = load(LANGUAGE)
    (result,) = score_tasks.score_run(run, [task], [Shots()], 100)
    exact, share, bits = result.scores
    assert exact.chance == pytest.approx(0.25) and share.score >= exact.score > 0.4
    assert bits.score < 1 and len(result.responses) == 100


@pytest.mark.long
def test_scored_while_it_trains(run: Path, tmp_path: Path) -> None:
    """At the steps asked for, as from a checkpoint; and what is learned is the same to the last bit."""
    exam = ExamConfig(tasks=(LANGUAGE,), shots=(0, 1), items=10, at=(0.25, 1.0))
    config = replace(CONFIG, exam=exam, keep_checkpoint=False)
    assert config.run_id == CONFIG.run_id
    train(config, tmp_path)
    assert outcome(tmp_path) == outcome(run)
    exam_rows = rows(tmp_path)
    assert [(row["step"], row["shots"]) for row in exam_rows[::3]] == [(40, 0), (40, 1), (160, 0), (160, 1)]
    assert [row["loss"] for row in exam_rows[::6]] == [
        next(row["validation_loss_nats"] for row in metrics(tmp_path) if row["step"] == step) for step in (40, 160)
    ]
    assert exam_rows[6]["flops"] == 4 * exam_rows[0]["flops"]
    show(run, 0, 1, items=10)
    last = {(row["metric"], row["shots"]): row["score"] for row in rows(run) if _as_exam(row)}
    assert last == {(row["metric"], row["shots"]): row["score"] for row in exam_rows[6:]}


def _as_exam(row: dict[str, object]) -> bool:
    return row["n"] == 10 and row["shots_seed"] in (0, None) and row["draw"] in ("shared", None)


@pytest.mark.long
def test_two_languages_may_have_a_task_of_one_name(run: Path, tmp_path: Path) -> None:
    """Its rows say of which they are, and none replaces another."""
    other = 'synthetic:tasks(letters=3, length=2, only="copy sort")'
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / SCORES_FILE).unlink(missing_ok=True)
    score_tasks.show(folder, [LANGUAGE, other], [Shots()], 10, Console(file=io.StringIO()))
    chances = {row["task"]: row["chance"] for row in rows(folder) if row["metric"] == "exact_match"}
    assert chances == {f"copy of {LANGUAGE}": 1 / 4, f"copy of {other}": 1 / 9, "sort": 2 / 9}


def test_tasks_that_cannot_be_read_stop_a_run_at_once(tmp_path: Path) -> None:
    exam = ExamConfig(tasks=(f"task:{tmp_path / 'none.json'}",))
    with pytest.raises(UserError, match="nothing is downloaded"):
        train(replace(CONFIG, exam=exam), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", CONFIG.to_json())
    with pytest.raises(UserError, match="has no checkpoint; train the run with keep_checkpoint=True"):
        show(tmp_path, 0)
