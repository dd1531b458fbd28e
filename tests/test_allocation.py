"""The best inputs under constraints: against closed forms, elasticities and a grid; intervals; a saved fit."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call

from lmscale import UserError, fits, laws, read_table
from lmscale.study.laws import CHINCHILLA_REFIT, SIX_ND, ComputeModel, Law, Parameter


@pytest.mark.parametrize("law", [CHINCHILLA_REFIT, laws.KAPLAN_2020, laws.GADRE_2024_C4], ids=lambda law: law.NAME)
@pytest.mark.parametrize("compute", [SIX_ND, ComputeModel(21.0, 0.93)], ids=str)
def test_one_budget_is_the_closed_form(law: Law, compute: ComputeModel) -> None:
    allocation, exact = laws.allocate(law, [laws.training_flops(1e21, compute)]), law.optimum(1e21, compute)
    assert allocation.inputs["params"] == pytest.approx(float(exact.params), rel=1e-4)
    assert allocation.loss == pytest.approx(float(exact.loss_nats), rel=1e-10)
    assert allocation.binding == ("training FLOPs",)


def test_inference_drives_the_elasticities_apart() -> None:
    """Sardana 2024: at the optimum they differ by the wedge 1 + D_inf/(3 D)."""
    law, inference = CHINCHILLA_REFIT, 2e12
    best = laws.allocate(law, [laws.lifetime_flops(1e23, inference)]).inputs
    size = law.alpha * law.A * best["params"] ** -law.alpha
    data = law.beta * law.B * best["tokens"] ** -law.beta
    assert size / data == pytest.approx(1 + inference / (3 * best["tokens"]), rel=1e-4)
    assert best["params"] < law.optimum(1e23).params


def test_memory_and_tokens_bind_where_they_are_scarce() -> None:
    free = CHINCHILLA_REFIT.optimum(1e23)
    small = laws.allocate(CHINCHILLA_REFIT, [laws.training_flops(1e23), laws.weights_memory(2e9)])
    assert small.inputs["params"] == pytest.approx(1e9, rel=1e-5)
    assert small.inputs["tokens"] == pytest.approx(1e23 / 6e9, rel=1e-5)
    assert set(small.binding) == {"training FLOPs", "memory of the weights"}
    few = laws.allocate(CHINCHILLA_REFIT, [laws.training_flops(1e23), laws.at_most("tokens", 1e10)])
    assert few.inputs["tokens"] == pytest.approx(1e10, rel=1e-5) and few.loss > free.loss_nats
    ample = laws.allocate(CHINCHILLA_REFIT, [laws.training_flops(1e23), laws.weights_memory(1e15)])
    assert ample.binding == ("training FLOPs",)


def test_experts_are_chosen_under_total_memory() -> None:
    """More experts help until their weights fill the memory; a grid finds no better split."""
    law = laws.CLARK_2022_SBASE
    memory = laws.Constraint("memory", 4e9, lambda x: 2 * x["params"] * (1 + 0.5 * (x["experts"] - 1)))
    active = laws.at_most("params", 4e8)
    best = laws.allocate(law, [memory, active], free={"params": (1e6, 1e10), "experts": (1, 512)})
    sizes, experts = np.meshgrid(np.geomspace(1e6, 4e8, 800), np.geomspace(1, 512, 800))
    allowed = 2 * sizes * (1 + 0.5 * (experts - 1)) <= 4e9
    grid = np.where(allowed, law.loss(sizes, experts), np.inf)
    assert best.loss == pytest.approx(grid.min(), rel=1e-3) and best.loss <= grid.min() * (1 + 1e-9)
    assert "memory" in best.binding and 1 < best.inputs["experts"] < 512


def test_the_cost_of_a_distilled_run() -> None:
    """3 F(N_S) D_S + F(N_T) (D_S + 3 D_T) of forward passes F = 2 N."""
    student, seen, teacher, taught = 3e8, 8e9, 3e9, 2e10
    cost = laws.teacher_flops(1e21, teacher, taught).cost({"params": student, "tokens": seen})
    assert cost == pytest.approx(3 * 2 * student * seen + 2 * teacher * (seen + 3 * taught), rel=1e-12)


def test_a_teacher_that_has_to_be_trained_leaves_less_for_the_student() -> None:
    law = laws.Distillation(2.5, 520.0, 1.3, 0.09, 2240.0, 24000.0, 0.32, 0.437, 0.764)
    free, trained = (
        laws.allocate(law, [laws.teacher_flops(1e21, 3e9, tokens)], given={"teacher_loss": 2.0}) for tokens in (0, 2e10)
    )
    assert trained.loss > free.loss
    spent = (
        6 * trained.inputs["params"] * trained.inputs["tokens"] + 2 * 3e9 * trained.inputs["tokens"] + 6 * 3e9 * 2e10
    )
    assert spent == pytest.approx(1e21, rel=1e-5)


def test_repeats_of_few_tokens_are_weighed() -> None:
    law = laws.MUENNIGHOFF_2023
    best = laws.allocate(law, [laws.training_flops(1e22)], given={"unique_tokens": 1e10})
    grid = np.geomspace(1e8, 1e11, 20_000)
    losses = law.loss(grid, 1e22 / (6 * grid), 1e10)
    assert best.loss == pytest.approx(losses.min(), rel=1e-8)


@dataclass(frozen=True)
class Falling(Law):
    """A loss that larger models always lower."""

    A: Any
    NAME: ClassVar[str] = "falling"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("A", 1e-3, 10),)
    INPUTS: ClassVar[tuple[str, ...]] = ("params",)

    def loss(self, params: Any) -> Any:
        return self.A + params**-0.1


LARGE = {"params": (1e12, 1e13), "tokens": (1e9, 1e10)}


@pytest.mark.parametrize(
    ("call_it", "sentence"),
    [
        (lambda: laws.training_flops(-1), "allows at most -1: give a positive number"),
        (lambda: laws.allocate(CHINCHILLA_REFIT, [laws.training_flops(1e18)], free=LARGE),
         "no allocation has training FLOPs of at most 1e+18: the smallest needs 6e+21"),
        (lambda: laws.allocate(CHINCHILLA_REFIT, [], free=["experts"]), "has no input 'experts'"),
        (lambda: laws.allocate(CHINCHILLA_REFIT, [], free=["params"]), "needs tokens: give `given='tokens=...'`"),
        (lambda: laws.allocate(Falling(1.0), [], free=["params"]), "falls for ever larger params"),
        (lambda: laws.allocate(CHINCHILLA_REFIT, [], free={"params": (2.0, 1.0)}), "the lower one first"),
    ],
)  # fmt: skip
def test_what_no_allocation_meets_is_one_sentence(call_it: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        call_it()


@pytest.mark.long
def test_intervals_of_an_allocation_are_those_of_the_closed_form() -> None:
    fit = fits.loss_law(read_table("chinchilla"), resamples=200, check=False)
    best = fits.allocate(fit, [laws.training_flops(1e21)])
    exact = fit.interval(lambda law: law.optimum(1e21).params)
    assert best.interval("params") == pytest.approx(exact, rel=1e-3)
    assert "binding: training FLOPs" in str(best) and best.to_json()["intervals"]["0.95"]["loss"]


@pytest.mark.long
def test_a_saved_fit_answers_without_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("fits/mine.slaw")
    assert call("fit", "chinchilla", "--approach", "3", "--resamples", 60, "--save", file, "--predict",
                "params=1e9,tokens=2e10") == 0  # fmt: skip
    (fit,) = fits.load(file)
    expected = fit.predict(params=1e9, tokens=2e10)
    assert json.loads(Path("prediction.json").read_text())["fit"]["path"] == str(file)
    said = capsys.readouterr().out
    assert said.splitlines()[-2:] == [
        "Train that run now, and name the table that it is in:",
        "next: lmscale check prediction.json --table TABLE",
    ]
    assert call("predict", file, "--params", 1e9, "--tokens", 2e10, "--json", "answer.json") == 0
    assert str(expected) in capsys.readouterr().out
    assert json.loads(Path("answer.json").read_text())["interval"] == list(expected.interval)
    assert call("predict", file, "--flops", "1e22", "--inference-tokens", "1e12", "--memory", "2GB") == 0
    assert "binding: training and inference FLOPs, memory of the weights" in capsys.readouterr().out
    assert call("fit", "chinchilla", "--approach", "3", "--resamples", 0, "--save", file) == 2
    assert "already holds a fit" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--params", "1e9"], "the law 'chinchilla' takes params, tokens"),
        (["--params", "-1", "--tokens", "1e9"], "params is not positive"),
        (["--flops", "1e21", "--memory", "lots"], "--memory lots: write an amount with its unit, as in 80GB"),
        (["--inference-tokens", "1e12"], "--inference-tokens needs --flops"),
        (["--flops", "1e21", "--params", "1e9", "--tokens", "1e9"], "leave one out"),
        (["--params", "1e9", "--tokens", "1e9", "--level", "95"], "--level 95.0: a share between 0 and 1"),
    ],
)
def test_questions_that_a_fit_cannot_answer(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fits.save(fits.loss_law(read_table("chinchilla"), resamples=3, check=False), tmp_path / "a.slaw")
    assert call("predict", tmp_path / "a.slaw", *words) == 2
    assert sentence in capsys.readouterr().err


def test_a_fit_of_another_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.slaw"
    fits.save(fits.loss_law(read_table("chinchilla"), resamples=0, check=False), file)
    file.write_text(json.dumps({**json.loads(file.read_text()), "artefact": 2}))
    with pytest.raises(UserError, match="is a fit of version 2, and this lmscale reads version 1"):
        fits.load(file)


def test_a_table_is_no_saved_fit_and_nobody_is_told_to_delete_it(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("params,tokens,loss\n")
    with pytest.raises(UserError, match="give a file that `lmscale fit TABLE --save` or `--json` wrote") as error:
        fits.load(tmp_path / "runs.csv")
    assert "delete" not in str(error.value)


@pytest.mark.long
def test_the_planned_run_meets_the_constraints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of the CPU recipe, from a law of small models: the budget alone, with inference, with little memory."""
    file, sweep = tmp_path / "a.slaw", Path(__file__).parents[1] / "sweeps" / "isoflop_cpu.py"
    sizes, lengths = (x.ravel() for x in np.meshgrid(np.geomspace(1e4, 7e5, 6), np.geomspace(1e6, 6e7, 6)))
    rng = np.random.default_rng(0)
    loss = laws.Chinchilla(1.0, 100.0, 300.0, 0.3, 0.3).loss(sizes, lengths) * np.exp(1e-3 * rng.standard_normal(36))
    table = pd.DataFrame({"run": range(36), "params": sizes, "tokens": lengths, "loss_nats": loss})
    fits.save(fits.loss_law(read_table(table), resamples=30, check=False), file)
    params = {}
    for name, words in {
        "plain": (),
        "inference": ("--inference-tokens", "2e7"),
        "memory": ("--memory", "80KB"),
    }.items():
        plan = tmp_path / f"{name}.json"
        assert call("plan", sweep, "--optimal", file, "--flops", "2e12", *words, "--json", plan) == 0
        params[name] = json.loads(plan.read_text())["optimal"]["prediction"]["inputs"]["params"]
    assert params["memory"] == pytest.approx(4e4, rel=0.25) and params["inference"] < 0.9 * params["plain"]
    assert "binding: training FLOPs, memory of the weights" in " ".join(capsys.readouterr().out.split())
    assert call("plan", sweep, "--optimal", file, "--flops", "2e12", "--memory", "80KB", "--tokens-per-param", 20) == 2
    assert "leave one out" in capsys.readouterr().err
