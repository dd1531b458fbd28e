"""What happens inside a model as scores of its run: in training, from a checkpoint, against scale; held-out text."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import induction
from helpers.command_line import call
from helpers.tiny_runs import outcome, strictly
from rich.console import Console

import lmscale
from lmscale.core.config import DataConfig, ExamConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.config.exam import InsideSpec, inside_spec
from lmscale.core.errors import UserError
from lmscale.core.run_folder import RESPONSES_FOLDER, SCORES_FILE
from lmscale.lm import data
from lmscale.lm.data.document_windows import PADDING
from lmscale.lm.data.tokenizer import ByteTokenizer, SymbolTokenizer
from lmscale.lm.devices import machine
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.eval.tasks import Shots
from lmscale.lm.inspect import exam, heads, summary
from lmscale.lm.inspect.subject import Subject, held_out_text, known_tokens, source_tokens
from lmscale.lm.model import transformer
from lmscale.lm.train.loop import train
from lmscale.lm.use import load, score_tasks
from lmscale.study.launch.jobs import local_paths

pytestmark = pytest.mark.usefixtures("known_peak", "compiled_programs")

LANGUAGE = 'synthetic:tasks(letters=4, length=2, only="copy most-frequent")'
NEURONS = f"inside:neurons({LANGUAGE})"
SPECS = ("inside:heads", "inside:context", NEURONS)
CONFIG = RunConfig(
    model=ModelConfig(width=16, layers=2, heads=2, context=32, mlp_width=16),
    optimizer=OptimizerConfig(peak_lr=0.02, batch_sequences=16),
    data=DataConfig(source=LANGUAGE),
    tokens=40 * 16 * 32,
    validation_tokens=1024,
)
METRICS = {
    "inside:heads": ["induction_score", "previous_token_score"],
    "inside:context": ["in_context_nats"],
    "inside:neurons(copy)": ["pair_accuracy", "neurons_used"],
    "inside:neurons(most-frequent)": ["pair_accuracy", "neurons_used"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, compiled_programs: Path) -> Path:
    """A run without an exam."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "matmul_peak", lambda dtype: 1e11)
        train(CONFIG, folder)
    return folder


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


def rows(folder: Path) -> list[dict[str, Any]]:
    return [strictly(line) for line in (folder / SCORES_FILE).read_text("utf-8").splitlines()]


def show(folder: Path, *specs: str, items: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=400, highlight=False)
    score_tasks.show(folder, specs, [Shots(0)], items, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.long
def test_scores_of_a_training_run_are_those_of_its_checkpoint(copied: Path, tmp_path: Path) -> None:
    """And what is learned is the same to the last bit."""
    config = replace(CONFIG, exam=ExamConfig(tasks=SPECS, items=6, at=(0.5, 1.0)), keep_checkpoint=False)
    assert config.run_id == CONFIG.run_id
    (tmp_path / "exam").mkdir()
    train(config, tmp_path / "exam")
    assert outcome(tmp_path / "exam") == outcome(copied)
    trained = rows(tmp_path / "exam")
    for step in (20, 40):
        of_step = [row for row in trained if row["step"] == step]
        assert {row["task"]: [one["metric"] for one in of_step if one["task"] == row["task"]] for row in of_step} == (
            METRICS
        )
        assert all(row["n"] == 6 and row["stderr"] is not None for row in of_step)
    assert "6 items\n" in show(copied, *SPECS, items=6)
    last = [{**row, "loss": None} for row in trained if row["step"] == 40]
    assert [{**row, "loss": None} for row in rows(copied)] == [
        {**row, "score": pytest.approx(row["score"], abs=1e-5), "stderr": pytest.approx(row["stderr"], abs=1e-5)}
        for row in last
    ]


@pytest.mark.long
def test_rows_name_the_values_that_they_are_the_means_of(copied: Path) -> None:
    show(copied, *SPECS)
    score_rows = rows(copied)
    assert [row["n"] for row in score_rows][:3] == [64, 64, 2048], "64 rows; 65,536 tokens of text"
    for row in score_rows:
        items = [json.loads(line) for line in (copied / row["responses"]).read_text("utf-8").splitlines()]
        if row["metric"] in items[0]:
            assert np.mean([item[row["metric"]] for item in items]) == pytest.approx(row["score"], abs=1e-9)
            assert row["n"] == len(items)
    by_metric = {row["metric"]: row for row in score_rows}
    assert by_metric["pair_accuracy"]["chance"] == 0.5 and by_metric["pair_accuracy"]["kind"] == "hard"
    assert not by_metric["in_context_nats"]["higher_is_better"] and by_metric["in_context_nats"]["chance"] == 0
    assert 0 <= by_metric["neurons_used"]["score"] <= 1
    show(copied, "inside:heads", items=4)
    assert len(rows(copied)) == len(score_rows) + 2, "on other rows it is another measurement"
    assert len(list((copied / RESPONSES_FOLDER).iterdir())) == 5


def test_a_perfect_induction_head_has_the_score_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model built by hand; its chance is the attention of a head that attends to all alike."""
    config = replace(CONFIG, model=induction.CONFIG, tokens=40 * 16 * induction.CONTEXT)
    monkeypatch.setattr(exam, "held_out_text", lambda config, rows: None)
    subject = Subject(config, induction.params(), SymbolTokenizer(induction.VOCAB), make_mesh(config.mesh))
    (part,) = exam.parts_of(["inside:heads"], config.model, subject.tokenizer).parts
    head, previous = exam.measure(subject, part)[0]
    assert (head.metric, head.score, head.n) == ("induction_score", pytest.approx(1, abs=1e-5), 64)
    assert previous.score == pytest.approx(1, abs=1e-5)
    assert (head.chance, previous.chance) == pytest.approx(heads.uniform_scores(16))


@pytest.mark.long
def test_heads_are_scored_on_the_tokens_of_a_text(run: Path) -> None:
    """No token twice in a copy, as far as there are enough; a text of other tokens is refused."""
    opened = load.open_run(run)
    subject = Subject(CONFIG, opened.run.params, opened.run.tokenizer, opened.mesh)
    words = "synthetic:repeats(letters=7, longest=7)"
    assert source_tokens(words, subject.tokenizer, 32).tolist() == list(range(33, 40))
    (on_words,) = exam.parts_of([f"inside:heads({words})"], CONFIG.model, subject.tokenizer).parts
    induction_score, _ = exam.measure(subject, on_words)[0]
    tokens_NT = heads.repeated_tokens(np.arange(33, 40, dtype=np.int32), 255, 7)
    rows = heads.row_scores(subject.params, tokens_NT, CONFIG.model)
    expected = heads.best_head_scores(rows.induction).mean()
    assert induction_score.score == pytest.approx(expected, rel=1e-4)
    for source, sentence in (
        ("synthetic:zipf-facts", "other tokens than this model reads"),
        ("no/text", "no file or folder"),
    ):
        with pytest.raises(UserError, match=sentence):
            exam.parts_of([f"inside:heads({source})"], CONFIG.model, subject.tokenizer)


@pytest.mark.long
def test_values_that_are_no_numbers_are_no_scores(run: Path) -> None:
    opened = load.open_run(run)
    bad = {name: value * float("nan") for name, value in opened.run.params.items()}
    subject = Subject(CONFIG, bad, opened.run.tokenizer, opened.mesh)
    for part in exam.parts_of(SPECS[:2], CONFIG.model, subject.tokenizer, 4).parts:
        with pytest.raises(UserError, match="not finite"):
            exam.measure(subject, part)


@pytest.mark.long
def test_emergence_reads_the_scores_of_a_sweep(copied: Path, tmp_path: Path) -> None:
    """Six sizes of one run's scores, with an ability that comes at the fourth."""
    show(copied, *SPECS, items=6)
    lines = [
        {**row, "run_id": f"r{size}", "params": 10.0**size, "score": row["score"] if size < 5 else 0.9}
        for size in range(2, 8)
        for row in rows(copied)
        if row["metric"] in ("induction_score", "pair_accuracy")
    ]
    table = tmp_path / "scores.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    result = lmscale.emergence.detect(table, "params", resamples=5)
    assert {(one.curve.task, one.curve.metric) for one in result.findings} == {
        ("inside:heads", "induction_score"), ("inside:neurons(copy)", "pair_accuracy"),
        ("inside:neurons(most-frequent)", "pair_accuracy"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("inside:head", "names nothing inside a model"),
        ("inside:neurons", "names nothing inside a model"),
        ("inside:neurons(copy)", "names nothing inside a model"),
        ("inside:neurons(inside:heads)", "names nothing inside a model"),
        ("inside:heads()", "names nothing inside a model"),
        ("insde:heads", "did you mean 'inside'"),
    ],
)
def test_what_names_nothing_inside_is_refused(copied: Path, spec: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        show(copied, spec)
    if spec.startswith("inside:"):
        with pytest.raises(UserError, match=sentence):
            ExamConfig(tasks=(spec,))


def test_specifications() -> None:
    assert inside_spec("inside:heads") == InsideSpec("heads") and inside_spec("inside:context") == InsideSpec("context")
    assert inside_spec(NEURONS) == InsideSpec("neurons", LANGUAGE) and inside_spec(LANGUAGE) is None
    assert inside_spec(f"inside:heads({LANGUAGE})") == InsideSpec("heads", source=LANGUAGE)
    exam_of = ExamConfig(tasks=("inside:neurons(task:own.json)", *SPECS, "inside:heads(books)", "wic:val.jsonl"))
    paths = [Path("own.json"), Path("books"), Path("val.jsonl")]
    assert list(local_paths(replace(CONFIG, exam=exam_of)).values()) == paths


def test_what_a_model_cannot_show_stops_its_run_before_it_starts(tmp_path: Path) -> None:
    config = replace(CONFIG, model=replace(CONFIG.model, context=4), exam=ExamConfig(tasks=("inside:heads",)))
    with pytest.raises(UserError, match="context of 4 tokens"):
        train(config, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_tasks_of_one_name_are_told_apart_and_those_with_one_pair_are_left_out() -> None:
    other = 'synthetic:tasks(letters=3, length=2, only="copy")'
    parts, without = exam.parts_of([NEURONS, f"inside:neurons({other})"], CONFIG.model, ByteTokenizer())
    names = [part.task for part in parts]
    assert len(set(names)) == 3 and all(name.startswith("inside:neurons(") for name in names) and not without
    _, without = exam.parts_of([NEURONS], CONFIG.model, ByteTokenizer(), 1)
    assert without == (f"{NEURONS}: left out for want of two pairs of questions: copy, most-frequent",)


@pytest.mark.long
def test_held_out_text_is_the_windows_of_validation(run: Path) -> None:
    """The mean loss over them is that of the model on the same tokens, and --heads reports it."""
    text = held_out_text(CONFIG, summary.TEXT_ROWS)
    assert text is not None and text.scored_NT.all() and text.tokens_NT.shape == (32, 32)
    windows = data.ValidationSet(data.prepare(CONFIG.data), 32, 1024).windows
    np.testing.assert_array_equal(text.tokens_NT, windows[:, :32])
    opened = load.open_run(run)
    known = known_tokens(Subject(*opened.run, opened.mesh), text)
    assert set(known.tolist()) == set(b"copy most=abcd"), "random tokens are of those that occur in text"
    logits_NTV = np.asarray(transformer.logits(opened.run.params, jnp.asarray(text.tokens_NT), CONFIG.model))
    logprob_NTV = logits_NTV - np.logaddexp.reduce(logits_NTV, axis=-1, keepdims=True)
    nats_NT = -np.take_along_axis(logprob_NTV[:, :-1], text.tokens_NT[:, 1:, None], axis=-1)[:, :, 0]
    value = lmscale.inspect(run, heads=True)["heads"]
    assert value["text_nats"]["mean"] == pytest.approx(nats_NT.mean(), abs=1e-5)
    late, early = round(500 / 512 * 31) - 1, round(50 / 512 * 31) - 1
    assert value["in_context"]["mean"] == pytest.approx((nats_NT[:, late] - nats_NT[:, early]).mean(), abs=1e-5)
    assert set(value["ablation"]) == {"heads", "second_copy_nats", "text_nats", "in_context"}


@pytest.mark.long
def test_padding_is_not_read_as_text(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows as a corpus of short documents leaves them: the loss is that of their text."""
    whole = held_out_text(CONFIG, summary.TEXT_ROWS)
    assert whole is not None
    real = data.ValidationSet

    class Padded(real):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.windows[:, 20:] = PADDING

    monkeypatch.setattr(data, "ValidationSet", Padded)
    text = held_out_text(CONFIG, 8)
    assert text is not None and text.tokens_NT.min() >= 0
    np.testing.assert_array_equal(text.scored_NT.sum(axis=1), 19)
    opened = load.open_run(run)
    subject = Subject(*opened.run, opened.mesh)
    none = np.zeros((1, 2, 2), np.bool_)
    expected = heads.ablated_nats(subject.params, whole.tokens_NT, CONFIG.model, none)[0][:, :19].mean()
    value = summary.head_scores(subject)
    assert value["text_nats"]["mean"] == pytest.approx(expected, abs=1e-5) and "in_context" not in value
    (part,) = exam.parts_of(["inside:context"], CONFIG.model, subject.tokenizer, 8).parts
    with pytest.raises(UserError, match="padding stands where the loss is compared"):
        exam.measure(subject, part)


@pytest.mark.long
def test_one_call_gives_what_the_verb_writes(copied: Path, tmp_path: Path) -> None:
    words = ("--text", "copy ab=", "--task", LANGUAGE, "--units", "heads", "--most-pairs", 3)
    assert call("inspect", copied, *words, "--json", tmp_path / "i.json") == 0
    value = lmscale.inspect(copied, text="copy ab=", task=LANGUAGE, units=["heads"], most_pairs=3)
    assert json.loads(json.dumps(value)) == strictly((tmp_path / "i.json").read_text("utf-8"))
    for named, sentence in (
        ({}, "say what to look at"),
        ({"units": ["head"], "task": LANGUAGE}, "did you mean 'heads'"),
        ({"units": ["heads"], "heads": True}, "give --task or --pairs too"),
    ):
        with pytest.raises(UserError, match=sentence):
            lmscale.inspect(copied, **named)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="is no run folder"):
        lmscale.inspect(tmp_path, heads=True)
