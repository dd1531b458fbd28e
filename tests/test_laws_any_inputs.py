"""Laws of any inputs: which rows they are fitted to, what they allocate, and mixtures of several losses."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call
from helpers.three_axes import TRUTH, Three, three_axes

from lmscale import UserError, fits, laws, read_table
from lmscale.study.fits.runs import usable
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.laws import SIX_ND, Input, Law, Parameter


@pytest.mark.long
def test_a_law_of_three_inputs_is_fitted_beside_flops_zeros_and_negative_values() -> None:
    fit = fits.loss_law(three_axes(), Three, resamples=0)
    assert fit.n_runs == 27 and not fit.dropped
    assert fit.law.values() == pytest.approx(TRUTH.values(), rel=1e-6)
    assert fit.allocations() == []
    assert any(s.name == "allocation" and "given='x=...'" in s.sentence for s in fit.status)


@pytest.mark.long
def test_the_optimum_at_given_values_is_the_minimum_along_the_budget() -> None:
    fit = fits.loss_law(three_axes(), Three, resamples=20, given={"x": 2.0}, at=1e19)
    (row,) = fit.allocations()
    same = laws.Chinchilla(TRUTH.E + 2 * TRUTH.c, TRUTH.A, TRUTH.B, TRUTH.alpha, TRUTH.alpha).optimum(1e19)
    assert row["params"] == pytest.approx(float(same.params), rel=1e-5)
    assert row["loss_nats"] == pytest.approx(float(same.loss_nats), rel=1e-9)
    assert fit.optimum(1e19, x=0.0).loss_nats == pytest.approx(row["loss_nats"] - 2 * TRUTH.c, rel=1e-6)
    again = fits.LossLaw.from_json(json.loads(json.dumps(fit.to_json(samples=True))))
    assert again.optimum(1e19).params == fit.optimum(1e19).params


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "the optimum of the law 'three' depends on x: give `given='x=...'`"),
        ({"x": 1.0, "y": 2.0}, "the law 'three' has no further input 'y'"),
    ],
)
def test_an_optimum_needs_the_further_inputs_and_no_others(given: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        TRUTH.optimum(1e19, SIX_ND, **given)


def test_cells_of_learning_rates_differ_by_every_axis() -> None:
    table = three_axes(rates=(3e-4, 1e-3, 3e-3))
    fit = fits.loss_law(table, Three, resamples=0, check=False)
    assert fit.n_runs == 27
    assert fit.law.values() == pytest.approx(TRUTH.values(), rel=1e-6)
    # A known axis separates cells also where the fitted law does not read it.
    other = table.rename(columns={"x": "experts"}).assign(experts=lambda t: t.experts + 2)
    assert len(usable(other)) == 27


def test_a_law_of_learning_rates_sees_all_of_them() -> None:
    table = three_axes(rates=(3e-4, 1e-3, 3e-3))
    assert len(usable(table, ("params", "tokens", "x", "peak_lr"))) == 81


def test_the_annealing_law_keeps_rows_before_the_decay() -> None:
    areas = pd.DataFrame(
        {"rate_sum": np.linspace(1, 4, 12), "annealing_sum": [0.0] * 6 + [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    )
    truth = laws.Annealing(2.0, 1.5, 0.5, 0.3)
    table = areas.assign(run=range(12), loss_nats=truth.loss(areas.rate_sum, areas.annealing_sum))
    fit = fits.loss_law(table, "annealing", resamples=0, check=False)
    assert fit.n_runs == 12
    assert fit.law.values() == pytest.approx(truth.values(), rel=1e-6)


def test_an_accuracy_of_zero_is_a_measurement() -> None:
    truth = laws.LadderAccuracy(0.0, 0.8, 5.0, 2.0)
    losses = np.linspace(1, 12, 20)
    table = pd.DataFrame({"run": range(20), "loss_nats": losses, "accuracy": np.round(truth.loss(losses), 9)})
    assert (table.accuracy == 0).any()
    assert fits.loss_law(table, "ladder", resamples=0, check=False).n_runs == 20


@pytest.mark.parametrize(
    ("role", "bad", "reason"),
    [
        ("share", 1.2, "z is no share from 0 to 1"),
        ("count", -1.0, "z is negative"),
        ("size", 0.0, "z is not positive"),
        ("loss", -2.0, "z is not positive"),
        ("number", math.inf, "z is infinite"),
    ],
)
def test_rows_that_no_run_can_have_are_left_out_with_the_reason(role: Any, bad: float, reason: str) -> None:
    @dataclass(frozen=True)
    class Own(Law):
        E: Any
        NAME: ClassVar[str] = "own"
        PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("E", 0.1, 10),)
        INPUTS: ClassVar[tuple[Any, ...]] = (Input("z", role),)

        def loss(self, z: Any) -> Any:
            return self.E * (1 + z)

    table = pd.DataFrame({"run": ["a", "b"], "z": [0.5, bad], "loss_nats": [2.0, 3.0]})
    runs = usable(table, Own.INPUTS, law=Own)
    assert runs.names == ["a"] and [item.reason for item in runs.dropped] == [reason]


@pytest.mark.long
def test_the_hash_of_a_table_is_over_every_input() -> None:
    one = fits.loss_law(three_axes(), Three, resamples=0, check=False)
    table = three_axes()
    table.loc[0, "x"] = -1.5
    assert fits.loss_law(table, Three, resamples=0, check=False).table_hash != one.table_hash
    plain = [fits.loss_law(t, resamples=0, check=False).table_hash for t in (three_axes(), table)]
    assert plain[0] == plain[1]  # Chinchilla's law does not read x


def test_an_optimum_beyond_1e18_parameters_is_found() -> None:
    law = laws.PowerMean(1.0, 400.0, 400.0, 0.3, 0.3, 1.0)
    for flops in (1e3, 1e45):
        assert law._search(flops, SIX_ND).params == pytest.approx(law.optimum(flops).params, rel=1e-5)


def test_a_factor_is_taken_of_every_mapped_column() -> None:
    table = pd.DataFrame({"N": [1e8], "D": [1e9], "L": [2.0], "E": [2], "passes": [3]})
    read = read_table(table, "experts=E*8,epochs=passes*2")
    assert read["experts"].tolist() == [16] and read["epochs"].tolist() == [6]


def test_nothing_converges_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """No interval is stated where no resample converges, whatever the law."""
    from lmscale.study.fits.approaches import parametric

    def lost(problem: Problem, weights: np.ndarray, *_: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.ones((len(problem.form.names()), weights.shape[1])), np.zeros(weights.shape[1], dtype=bool)

    monkeypatch.setattr(parametric, "minimise_many", lost)
    fit = fits.loss_law(three_axes(noise=1e-3), Three, resamples=20, check=False)
    assert fit.samples is None and any(s.name == "no intervals" for s in fit.status)


@pytest.mark.long
def test_each_domain_of_a_mixture_has_a_law(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three losses of each run: three laws in one file, and three predictions."""
    form, rng = laws.mixture(2), np.random.default_rng(0)
    share = rng.uniform(0.1, 0.9, 25)
    truths = {f"loss_{name}": form(c, t1, t2) for name, c, t1, t2 in (("a", 1.5, 0.2, -0.5), ("b", 2.0, -0.4, 0.6))}
    table = pd.DataFrame({"share_1": share, "share_2": 1 - share})
    table = table.assign(**{name: law.loss(share, 1 - share) for name, law in truths.items()})
    table.to_csv(tmp_path / "runs.csv", index=False)
    file, out = tmp_path / "fits.slaw", tmp_path / "answer.json"
    words = ("--approach", "3", "--law", "mixture-2", "--targets", "loss_a,loss_b", "--resamples", 20)
    assert call("fit", tmp_path / "runs.csv", *words, "--save", file) == 0
    assert "Approach 3: loss_b" in capsys.readouterr().out
    assert call("predict", file, "--given", "share_1=0.3,share_2=0.7", "--json", out) == 0
    assert "25 runs, loss_a: " in capsys.readouterr().out
    answers = json.loads(out.read_text())["targets"]
    for name, law in truths.items():
        assert answers[name]["loss_nats"] == pytest.approx(float(law.loss(0.3, 0.7)), abs=1e-6)
    (one,) = fits.loss_laws(tmp_path / "runs.csv", ["loss_a"], form, resamples=0, check=False)
    assert one.name == "loss_a" and form.further_inputs() == ("share_1", "share_2")
    for more, sentence in (
        (["--targets", "loss_a,loss_a"], "name each column once"),
        (["--targets", "loss_c"], "loss_c"),
        (["--targets", "loss_a", "--columns", "loss=loss_b"], "give one of the two"),
        (["--targets", "loss_a", "--approach", "2"], "--targets are fitted by Approach 3"),
        (["--targets", "loss_a", "--predict", "share_1=1,share_2=0"], "registers the loss of one law"),
    ):
        assert call("fit", tmp_path / "runs.csv", "--law", "mixture-2", "--resamples", 0, *more) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
