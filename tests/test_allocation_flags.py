"""Flags that constrain an allocation, of any law: `lmscale predict` and `lmscale plan --optimal`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call

from lmscale import fits, laws, read_table
from lmscale.study.design import total_params
from lmscale.study.laws import Law
from lmscale.study.sweep import read

SWEEP = Path(__file__).parents[1] / "sweeps" / "isoflop_cpu.py"
AXES = {
    "params": np.geomspace(1e4, 7e5, 5),
    "tokens": np.geomspace(1e6, 6e7, 5),
    "experts": np.array([1.0, 4.0, 16.0]),
    "unique_tokens": np.array([5e5, 2e6]),
    "streams": np.array([1.0, 2.0, 8.0]),
    "teacher_loss": np.array([2.0, 2.4]),
}
LAWS: dict[str, Law] = {
    "chinchilla": laws.Chinchilla(1.0, 100.0, 300.0, 0.3, 0.3),
    "joint-experts": laws.JointExperts(20.0, 0.1, -0.25, -0.02, 30.0, -0.2, -0.25, 0.01, 1.0, 1.5, 300.0),
    "data-constrained": laws.DataConstrained(1.0, 100.0, 300.0, 0.3, 0.3, 5.0, 15.0),
    "parscale": laws.ParScale(1e5, 0.3, 0.25, 1.0),
    "clark": laws.Clark(-0.08, -0.1, 0.009, 1.1, 1.8, 300.0),
    "distillation": laws.Distillation(2.5, 520.0, 1.3, 0.09, 2240.0, 24000.0, 0.32, 0.437, 0.764),
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of fits whose parameters are those of the laws, without draws: fits of nothing but the law's form."""
    folder = tmp_path_factory.mktemp("fits")
    for name, law in LAWS.items():
        grid = np.meshgrid(*(AXES[one] for one in law.INPUTS))
        table = pd.DataFrame({one: axis.ravel() for one, axis in zip(law.INPUTS, grid)})
        table["loss_nats"] = law.loss(*(table[one].to_numpy() for one in law.INPUTS))
        fixed = law.values() | {law.names()[0]: None}
        fit = fits.loss_law(
            read_table(table.assign(run=range(len(table)))), type(law), resamples=0, check=False,
            fixed={key: value for key, value in fixed.items() if value is not None},
        )  # fmt: skip
        fits.save(fit, folder / f"{name}.slaw")
    return folder


def asked(verb: str, file: Path, *words: Any) -> dict[str, Any]:
    """The JSON answer of a verb."""
    out = file.with_name("answer.json")
    out.unlink(missing_ok=True)
    assert call(*verb.split(), file, *words, "--json", out) == 0
    return dict(json.loads(out.read_text()))


@pytest.mark.long
def test_experts_of_which_all_are_in_memory_are_chosen(fitted: Path) -> None:
    words = ("--flops", "1e13", "--memory", "1MB", "--choose", "experts=1:64")
    best = asked("predict", fitted / "joint-experts.slaw", *words)["inputs"]
    law = LAWS["joint-experts"]
    bytes_used = 2 * total_params(best["params"], best["experts"])
    assert bytes_used <= 1e6 * (1 + 1e-5) and 6 * best["params"] * best["tokens"] <= 1e13 * (1 + 1e-5)
    sizes, experts = np.meshgrid(np.geomspace(1e3, 5e5, 400), np.geomspace(1, 64, 400))
    losses = law.loss(sizes, 1e13 / (6 * sizes), experts)
    grid = np.where(2 * total_params(sizes, experts) <= 1e6, losses, np.inf)
    assert law.loss(best["params"], best["tokens"], best["experts"]) <= grid.min() * (1 + 1e-9)


@pytest.mark.long
def test_a_teacher_is_paid_with_its_training(fitted: Path) -> None:
    words = ("--flops", "1e15", "--given", "teacher_loss=2.2", "--teacher-params", "1e6")
    file = fitted / "distillation.slaw"
    free, trained = asked("predict", file, *words), asked("predict", file, *words, "--teacher-tokens", "5e7")
    assert trained["loss"] > free["loss"]
    inputs = trained["inputs"]
    spent = 6 * inputs["params"] * inputs["tokens"] + 2e6 * inputs["tokens"] + 6e6 * 5e7
    assert spent == pytest.approx(1e15, rel=1e-5)
    read_too = asked("predict", file, *words, "--inference-tokens", "1e9")["inputs"]
    spent = 6 * read_too["params"] * read_too["tokens"] + 2e6 * read_too["tokens"] + 2e9 * read_too["params"]
    assert spent == pytest.approx(1e15, rel=1e-5)


@pytest.mark.long
def test_the_planned_run_has_the_experts_and_repeats_the_text(fitted: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    words = ("--flops", "2e12", "--given", "experts=4", "--json", plan)
    assert call("plan", SWEEP, "--optimal", fitted / "joint-experts.slaw", *words) == 0
    (run,) = read(plan).runs
    assert run.config.model.experts == 4
    assert json.loads(plan.read_text())["optimal"]["prediction"]["inputs"]["experts"] == 4
    words = ("--flops", "2e12", "--unique-tokens", "1e6", "--json", plan)
    assert call("plan", SWEEP, "--optimal", fitted / "data-constrained.slaw", *words) == 0
    (run,) = read(plan).runs
    assert run.config.data.unique_tokens == 1_000_000 and run.config.tokens > 1e6


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("chinchilla", ["--flops", "1e23", "--memory", "80GB"], "give the sweep whose recipe is to make the run"),
        ("parscale", ["--memory", "1MB", "--given", "streams=4"], "no streams, of which the law 'parscale' is"),
        ("clark", ["--memory", "1MB", "--choose", "experts=1:64"], "binding: memory of the weights of all experts"),
        ("clark", ["--flops", "1e15", "--given", "experts=8,tokens=1e8"], "binding: training FLOPs"),
    ],
)
def test_an_allocation_without_a_recipe_is_stated(
    name: str, words: list[str], sentence: str, fitted: Path, capsys: pytest.CaptureFixture[str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "answer.json"
    sweep = [SWEEP] if name == "parscale" else []
    assert call("plan", *sweep, "--optimal", fitted / f"{name}.slaw", *words, "--json", out) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Best under the constraints" in shown and "No run is planned" in shown and sentence in shown
    assert set(json.loads(out.read_text())["optimal"]) == {"flops", "law", "constrained"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("distillation", ["--flops", "1e12", "--given", "teacher_loss=2", "--teacher-params", "1e9",
                          "--teacher-tokens", "1e9"],
         "no allocation has FLOPs of student and teacher of at most 1e+12: the smallest needs 6e+18; allow more"),
        ("chinchilla", ["--flops", "1e21", "--memory", "1"], "no allocation has memory of the weights of at most 1"),
        ("clark", ["--flops", "1e15", "--given", "experts=8"],
         "training FLOPs needs tokens, and the law 'clark' is of params, experts: give --given tokens=..."),
        ("clark", ["--unique-tokens", "1e9", "--memory", "1MB", "--given", "experts=8"],
         "--unique-tokens: the law 'clark' is of params, experts, without tokens"),
        ("clark", ["--memory", "1MB"], "give --given experts=..."),
        ("joint-experts", ["--flops", "1e13", "--given", "expert=8,experts=8"], "did you mean 'experts'?"),
        ("joint-experts", ["--flops", "1e13", "--given", "experts=0"], "--given gives experts = 0: experts is below 1"),
        ("joint-experts", ["--flops", "1e13", "--given", "experts=8", "--choose", "experts=1:8"], "leave one out"),
        ("joint-experts", ["--flops", "1e13", "--choose", "experts=8:1"], "the lower one first"),
        ("distillation", ["--flops", "1e15", "--teacher-tokens", "1e9"], "--teacher-tokens needs --teacher-params"),
        ("distillation", ["--teacher-params", "1e9"], "--teacher-params needs --flops"),
        ("chinchilla", ["--flops", "-1", "--memory", "1GB"], "--flops -1: a finite number of at least 1"),
        ("chinchilla", ["--flops", "1e21", "--unique-tokens", "0.5"], "0.5: a finite number of at least 1"),
        ("chinchilla", ["--memory", "1MB"], "falls for ever larger tokens: add a constraint"),
        ("parscale", ["--memory", "1MB", "--given", "params=1e5,streams=2"], "no input of the law 'parscale' is left"),
    ],
)  # fmt: skip
def test_what_cannot_be_allocated_is_one_sentence(
    name: str, words: list[str], sentence: str, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("predict", "plan --optimal"):
        assert call(*verb.split(), fitted / f"{name}.slaw", *words) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "doubt"),
    [
        (["--flops", "1e14", "--unique-tokens", "10"], "times below the smallest of the runs"),
        (["--flops", "1e14", "--memory", "100"], "params = 50 lies 200 times below"),
        (["--flops", "1e40"], "times above the largest of the runs"),
        (["--params", "1e5", "--tokens", "10"], "tokens = 10 lies 1e+05 times below"),
        (["--flops", "1e14"], ""),
        (["--params", "1e6", "--tokens", "1e8"], ""),
    ],
)
def test_inputs_that_no_run_was_near_are_doubted(
    words: list[str], doubt: str, fitted: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "answer.json"
    assert call("predict", fitted / "chinchilla.slaw", *words, "--json", out) == 0
    assert doubt in json.loads(out.read_text())["warning"]
    shown = " ".join(capsys.readouterr().out.split())
    assert doubt in shown and ("of the runs" in shown) == bool(doubt)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--unique-tokens", "1e6"], "--unique-tokens: the law 'chinchilla' is of params, tokens, so they only limit"),
        (["--teacher-tokens", "10"], "give --teacher-params and --flops with it"),
    ],
)
def test_flags_that_say_nothing_of_one_run_are_refused(
    words: list[str], sentence: str, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("predict", fitted / "chinchilla.slaw", "--params", "1e9", "--tokens", "2e10", *words) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.long
def test_a_vocabulary_is_chosen_with_the_sizes() -> None:
    law = laws.TAO_2024
    free = ("params_non_vocab", "params_vocab", "characters")
    best = laws.allocate(law, [laws.vocabulary_flops(1e21, 4.0)], free=free)
    non_vocab, vocab = np.meshgrid(np.geomspace(1e8, 1e11, 700), np.geomspace(1e6, 1e10, 700))
    losses = law.loss(non_vocab, vocab, 4 * 1e21 / (6 * (non_vocab + vocab)))
    assert best.loss <= losses.min() + 1e-9 and best.loss == pytest.approx(float(losses.min()), abs=1e-3)
    with pytest.raises(laws.allocation.UserError, match="give a positive number"):
        laws.vocabulary_flops(1e21, 0.0)
