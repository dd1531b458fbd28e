"""Retrieval as an axis of a sweep: points with a datastore, scores of a training run, and the law through its rows."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call
from helpers.plans import shown
from helpers.retrieval import subject_of, trained
from helpers.tiny_runs import outcome, strictly
from rich.console import Console

import lmscale
from lmscale.core.config import DataConfig, ExamConfig
from lmscale.core.config.exam import RetrievalSpec, is_task, retrieval_spec
from lmscale.core.errors import UserError
from lmscale.core.run_folder import SCORES_FILE
from lmscale.lm.devices import machine
from lmscale.lm.eval.tasks import Shots
from lmscale.lm.train.loop import train
from lmscale.lm.use import score_tasks
from lmscale.study import fits, laws
from lmscale.study.launch.jobs import local_paths

pytestmark = pytest.mark.usefixtures("compiled_programs")

SPECS = ("retrieval:knn", "retrieval:passages")
SIZES = (0, 1024)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, compiled_programs: Path) -> Path:
    return trained(tmp_path_factory.mktemp("run"), steps=4)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / folder.name)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [strictly(line) for line in (folder / SCORES_FILE).read_text("utf-8").splitlines()]


@pytest.mark.long
def test_scores_of_a_training_run_are_those_of_its_checkpoint(copied: Path, tmp_path: Path) -> None:
    """And what is learned is the same to the last bit."""
    config = subject_of(copied)[0].config
    exam = ExamConfig(tasks=SPECS, items=4, datastore_tokens=SIZES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "matmul_peak", lambda dtype: 1e11)
        (tmp_path / "exam").mkdir()
        train(replace(config, exam=exam), tmp_path / "exam")
    assert outcome(tmp_path / "exam") == outcome(copied)
    score_tasks.show(copied, SPECS, [Shots(0)], 4, Console(quiet=True), SIZES)
    trained_rows, own = rows(tmp_path / "exam"), rows(copied)
    assert [row["task"] for row in own] == [row["task"] for row in trained_rows]
    for row, other in zip(own, trained_rows):
        assert row["score"] == pytest.approx(other["score"], abs=1e-4) and row["n"] == other["n"] > 1
        assert row["metric"] == "loss_nats" and row["stderr"] is not None and not row["higher_is_better"]
    knn = [row for row in own if row["task"].startswith("retrieval:knn")]
    assert [(row["datastore_tokens"], row["task"]) for row in knn] == [
        (0, "retrieval:knn, 0 tokens"), (1024, "retrieval:knn, 1,024 tokens"),
    ]  # fmt: skip
    assert knn[0]["retrieval_flops"] == knn[0]["datastore_flops"] == 0 < knn[1]["retrieval_flops"]


def test_specifications() -> None:
    assert retrieval_spec("retrieval:knn") == RetrievalSpec("knn")
    assert retrieval_spec("retrieval:passages( books/ )") == RetrievalSpec("passages", "books/")
    assert retrieval_spec("mmlu:data") is None and is_task("mmlu:data") and not is_task("retrieval:docstrings")
    exam = ExamConfig(tasks=("retrieval:knn(books/)", "retrieval:knn(stdlib)", "retrieval:docstrings"))
    config = replace(lmscale.recipes.cpu({"width": 16, "tokens": 1e5}), exam=exam)
    assert list(local_paths(config).values()) == [Path("books/")]


@pytest.mark.parametrize(
    "spec", ["retrieval:kn", "retrieval:knn(", "retrieval:knn()", "retrieval:docstrings(stdlib)", "retrieval:"]
)
def test_what_names_no_retrieval_is_refused(spec: str) -> None:
    with pytest.raises(UserError, match="names no measurement of retrieval"):
        ExamConfig(tasks=(spec,))


def test_sizes_of_datastores_are_checked() -> None:
    with pytest.raises(UserError, match="tokens of datastores, 0 or more"):
        ExamConfig(tasks=SPECS, datastore_tokens=(-1,))
    with pytest.raises(UserError, match="nothing is retrieved from a datastore"):
        ExamConfig(tasks=("retrieval:docstrings",), datastore_tokens=(0, 9))


def sweep(points: Any, exam: ExamConfig | None) -> lmscale.Sweep:
    recipe = lmscale.recipes.cpu(data=DataConfig(source="stdlib"))
    return lmscale.Sweep(name="retrieval", points=points, recipe=recipe, exam=exam, law="")


def test_points_that_differ_in_the_datastore_are_one_run() -> None:
    models = lmscale.grid(width=[16, 24], tokens=[1e5])
    points = lmscale.product(models, lmscale.grid(datastore_tokens=[0, 65536, 4096]))
    exam = ExamConfig(tasks=("retrieval:knn",))
    plan = lmscale.plan(sweep(points, exam))
    alone = lmscale.plan(sweep(models, exam))
    assert [run.config.run_id for run in plan.runs] == [run.config.run_id for run in alone.runs]
    assert [run.config.exam.datastore_tokens for run in plan.runs] == [(0, 4096, 65536)] * 2
    assert plan.warnings == alone.warnings, "no point is given twice"


def test_a_plan_names_the_datastores(tmp_path: Path) -> None:
    """In a phrase where all runs have the same, else in a column; a run without any says nothing of them."""
    models, exam = lmscale.grid(width=[16, 24], tokens=[1e5]), ExamConfig(tasks=SPECS)
    several = lmscale.product(models, lmscale.grid(datastore_tokens=[0, 65536, 4096]))
    text = shown(lmscale.plan(sweep(several, exam)), tmp_path, 160)
    assert "datastores of 0, 4.1k, 65.5k tokens" in text and "datastore\n" not in text
    uneven = [*several, *lmscale.grid(width=[16], tokens=[1e5], datastore_tokens=[2**18, 2**20])]
    text = shown(lmscale.plan(sweep(uneven, exam)), tmp_path, 160)
    assert "datastore\n" in text and "5 sizes from 0 to 1.05M" in text and "0, 4.1k, 65.5k" in text
    assert "datastores of 0 to all tokens" in shown(lmscale.plan(sweep(models, exam)), tmp_path, 160)
    assert "datastore" not in shown(lmscale.plan(sweep(models, None)), tmp_path, 160)


def test_a_datastore_nobody_measures_is_refused() -> None:
    points = lmscale.grid(width=[16], tokens=[1e5], datastore_tokens=[4096])
    with pytest.raises(UserError, match="nothing is retrieved from a datastore"):
        lmscale.plan(sweep(points, None))
    for size in (-1, "all", True, float("nan")):
        with pytest.raises(UserError, match="tokens of a datastore, 0 or more"):
            sweep(lmscale.grid(width=[16], tokens=[1e5], datastore_tokens=[size]), ExamConfig(tasks=SPECS))


@pytest.mark.long
def test_the_law_goes_through_rows_of_scores(tmp_path: Path) -> None:
    """The engine of all fits, on the columns that an exam writes: the truth comes back."""
    truth = laws.Retrieval(1.6, 400.0, 1200.0, 0.33, 0.35, 0.6, 0.2)
    points = [(n, d, r) for n in (1e6, 4e6, 1.6e7) for d in (2e7, 8e7, 3.2e8) for r in (0, 1e4, 1e6, 1e8)]
    columns = np.array(points).T
    table = pd.DataFrame(
        {
            "params": columns[0], "tokens": columns[1], "datastore_tokens": columns[2], "retrieval": "knn",
            "score": truth.loss(*columns), "loss": truth.loss(columns[0], columns[1], 0),
            "flops": 6 * columns[0] * columns[1],
        }
    )  # fmt: skip
    table.to_csv(tmp_path / "scores.csv", index=False)
    (fit,) = fits.fit(
        str(tmp_path / "scores.csv"), 3, law="retrieval", columns={"loss_nats": "score"}, resamples=20,
        where="retrieval == 'knn'",
    )  # fmt: skip
    assert fit.law.gamma == pytest.approx(0.2, rel=0.02) and abs(fit.law.C / 0.6 - 1) < 0.05


@pytest.mark.long
def test_rows_of_a_run_are_a_table_of_scores(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("eval", copied, "retrieval:knn", "--items", 4, "--datastore-tokens", 0, 512) == 0
    printed = capsys.readouterr().out
    assert "retrieval:knn, 512 tokens" in printed and "0 documents of the datastore nearly copy" in printed
    assert [row["datastore_tokens"] for row in rows(copied)] == [0, 512]
    assert call("eval", copied, "retrieval:docstrings", "--datastore-tokens", 9) == 2
    assert "nothing is retrieved from a datastore" in capsys.readouterr().err
