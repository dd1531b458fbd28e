"""The answer of a report: which number, which direction, on which condition."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from helpers.report_fits import Line, runs
from helpers.simulated import TRUTH

from lmscale.study import fits, report
from lmscale.study.fits.results.common import Dropped, Status
from lmscale.study.laws import ComputeModel, Law, Parameter
from lmscale.study.report import answer
from lmscale.study.report.brief import brief


def sentences(*of, table=None):
    return answer.answer(of, runs() if table is None else table)


def test_the_exponent_with_its_interval_its_runs_and_where_n_and_d_grow_alike():
    assert sentences(Line(a=0.52))[0] == (
        "Over 9 fitted runs of 10¹¹ to 10¹² training FLOPs, the compute-optimal model size grows as N* ∝ Cᵃ with "
        "a = 0.520 (95 % interval 0.510 to 0.530) by the parametric law (Approach 3); with a = 0.5, N and D would grow "
        "alike."
    )
    two = sentences(Line("2", a=0.5, n_runs=7, resamples=0), Line(a=0.52))[0]
    assert two.startswith("Over 9 (Approach 3) and 7 (Approach 2) fitted runs of ")
    assert "(Approach 3) and 0.500 by the IsoFLOP minima (Approach 2); with" in two


def test_n_and_d_grow_alike_at_the_exponent_that_the_compute_model_gives():
    """C = k N^p D with D = r N: N = (C / (k r))^(1 / (1 + p))."""
    for p in (0.92, 1.0):
        compute = ComputeModel(6.0, p)
        a = math.log(compute.flops(10, 10) / compute.flops(1, 1)) / math.log(10)
        assert sentences(Line(p=p))[0].endswith(f"with a = {1 / a:.3g}, N and D would grow alike.")
    assert sentences(Line(p=0.92), Line("2"))[0].endswith("with a = 0.5 or 0.521, N and D would grow alike.")


def test_the_allocation_at_the_largest_fitted_budget():
    assert sentences(Line())[1] == (
        "At the compute of the largest fitted run, C = 10¹² FLOPs, the optimum is N* = 1.00k (900 to 1.10k) parameters "
        "on D* = 20.0k (18.0k to 22.0k) tokens by Approach 3."
    )
    planned = sentences(Line(resamples=0), Line("2"), table=runs(flops_budget=[*[1e12] * 9, 1e14]))[1]
    assert planned.startswith(
        "At the largest fitted budget, C = 10¹² FLOPs, the optimum is N* = 1.00k parameters on "
        "D* = 20.0k tokens by Approach 3; and N*"
    )
    assert planned.endswith("tokens by Approach 2.")


def test_a_budget_that_no_fit_used_is_not_the_largest_fitted():
    line = Line("2")
    line.dropped = (Dropped("r8", "odd"),)
    assert "C = 8.89×10¹¹ FLOPs" not in sentences(Line("2"))[1]
    assert "C = 5.99×10¹¹" in sentences(line)[1]


@pytest.mark.parametrize(
    ("low", "high", "side"), [(21, 30, "below"), (15, 25, "inside"), (2, 19, "above"), (np.nan, np.nan, "")]
)
def test_where_twenty_lies(low, high, side):
    assert answer.where_20_lies(low, high) == side


AGREE, CONTRADICT = ": at this budget the runs agree with", ": at this budget the runs contradict"
DISAGREE = ": the approaches disagree about"


@pytest.mark.parametrize(
    ("sides", "judgement"),
    [
        (["inside", "inside"], AGREE), (["below", "below"], CONTRADICT), (["above", "below"], CONTRADICT),
        (["inside", "below"], DISAGREE), (["above", "inside"], DISAGREE), (["inside", ""], AGREE),
        (["", "above"], CONTRADICT), (["", ""], ""),
    ],
)  # fmt: skip
def test_what_the_fits_say_together_of_twenty(sides, judgement):
    ends = {"below": (25, 40), "above": (2, 19), "inside": (15, 40), "": (math.nan, math.nan)}
    lines = [Line(approach, low=ends[side][0], high=ends[side][1], resamples=10 * bool(side))
             for approach, side in zip(("3", "2"), sides)]  # fmt: skip
    rest = " 20 tokens per parameter" + " at this budget" * (judgement == DISAGREE) if judgement else ""
    end = f" by Approach 2{judgement}{rest}."
    assert sentences(*lines)[2].endswith(end)


def test_tokens_per_parameter_with_interval_and_side():
    assert sentences(Line())[2] == (
        "That is, in tokens per parameter, D*/N* = 30 (95 % interval 25 to 40; 20 lies below it) by Approach 3: at "
        "this "
        "budget the runs contradict 20 tokens per parameter."
    )


def test_the_tokens_per_parameter_of_two_fits_stand_side_by_side():
    start = "That is, in tokens per parameter, D*/N* = 30 by Approach 3 and 25 by Approach 2"
    assert sentences(Line(resamples=0), Line("2", ratio=25.0, resamples=0))[2] == f"{start}."


def test_every_crossing_of_twenty_is_stated_if_it_is_near():
    rising = Line(ratio=lambda flops: 20 * (flops / 3e13) ** 0.1)
    assert sentences(rising)[2].endswith("; Approach 3 crosses 20 at C = 3×10¹³ FLOPs.")
    twice = Line(ratio=lambda flops: 20 * np.exp((np.log10(flops) - 11.5) * (np.log10(flops) - 14)))
    assert sentences(twice)[2].endswith("; Approach 3 crosses 20 at C = 3.16×10¹¹ and 10¹⁴ FLOPs.")
    assert "crosses" not in sentences(Line(ratio=lambda flops: 20 * (flops / 2e16) ** 0.1))[2]


@pytest.mark.parametrize(
    ("top", "sentence"),
    [
        (5.76e23, "The compute of the largest fitted run reaches the 5.76×10²³ FLOPs (6ND) at which 20 tokens per "
                  "parameter was proposed."),
        (4e23, "The compute of the largest fitted run is 1.44 times smaller than Chinchilla's 5.76×10²³ FLOPs (6ND), "
               "at "
               "which 20 tokens per parameter was proposed."),
        (1.92e23, "The compute of the largest fitted run is 3 times smaller than Chinchilla's 5.76×10²³ FLOPs (6ND), "
                  "at "
                  "which 20 tokens per parameter was proposed."),
        (5.4857e22, "The compute of the largest fitted run is 10.5 times smaller than Chinchilla's 5.76×10²³ FLOPs "
                    "(6ND), so "
                    "that a ratio stated for that budget is an extrapolation by this factor."),
        (5.76e21, "The compute of the largest fitted run is 100 times smaller than Chinchilla's 5.76×10²³ FLOPs "
                  "(6ND), so "
                  "that a ratio stated for that budget is an extrapolation by this factor."),
        (5.76e17, "The compute of the largest fitted run is 10⁶ times smaller than Chinchilla's 5.76×10²³ FLOPs "
                  "(6ND), and "
                  "the constants of a law belong to its text, tokenizer, architecture and recipe: the optimum at this "
                  "scale need not be 20, and it does not carry over to large models."),
    ],
)  # fmt: skip
def test_what_the_scale_of_the_runs_implies(top, sentence):
    assert sentences(Line(), table=runs(top))[3] == sentence


@pytest.mark.parametrize(
    ("vocab", "phrase"),
    [
        (256, "(6ND), a token is one byte, and the"),
        (1024, "(6ND), tokens come from a vocabulary of 1,024, and the"),
        ([512] * 5 + [4096] * 5, "(6ND), tokens come from vocabularies of 512 to 4,096, and the"),
    ],
)
def test_what_a_token_is(vocab, phrase):
    assert phrase in sentences(Line(), table=runs(vocab=vocab))[3]


def test_a_law_that_is_not_identified_answers_nothing():
    line = Line()
    line.status = (Status("cannot be identified", "cond(J) is large", "warning"),)
    assert sentences(line) == [] and sentences(Line(), table=runs(held_out=True)) == []


def test_warnings_are_stated_once_with_every_approach():
    one, two = Line("2"), Line("3")
    one.status = (Status("x", "mind this", "warning"), Status("y", "no warning", "note"))
    two.status = (Status("x", "mind this", "warning"), Status("z", "and this", "warning"))
    assert answer.cautions([one, two]) == ["Approach 2 and 3 – x: mind this.", "Approach 3 – z: and this."]


def test_the_optimum_is_stated_with_its_intervals_by_every_fit():
    assert brief([Line("2", resamples=0), Line()], runs()) == [
        "optimum at C = 10¹² FLOPs, Approach 3: N* = 1.00k (900 to 1.10k), D* = 20.0k (18.0k to 22.0k), "
        "D*/N* = 30 (25 to 40) (95 % intervals)",
        "optimum at C = 10¹² FLOPs, Approach 2: N* = 1.00k, D* = 20.0k, D*/N* = 30",
    ]
    assert brief([], runs()) == []


def valley_table():
    """Runs of four budgets, none of which is stated: only their FLOPs say which belong together."""
    rows = [
        (f"c{budget:.0e}-{index}", params, budget / (6 * params), budget)
        for budget in (3e11, 1e12, 3e12, 1e13)
        for index, params in enumerate(float(TRUTH.optimum(budget).params) * np.geomspace(0.3, 3, 7))
    ]
    runs = pd.DataFrame(rows, columns=["run", "params", "tokens", "flops"])
    noise = 1 + 1e-3 * np.random.default_rng(0).standard_normal(len(runs))
    return runs.assign(loss_nats=TRUTH.loss(runs["params"], runs["tokens"]) * noise)


@pytest.mark.long
def test_budgets_that_a_table_does_not_state_are_those_that_approach_2_finds(tmp_path):
    alone = {"run": "alone", "params": 9e4, "tokens": 2e7, "flops": 1.1e13, "loss_nats": float(TRUTH.loss(9e4, 2e7))}
    runs = pd.concat([valley_table(), pd.DataFrame([alone])])
    runs.to_csv(tmp_path / "runs.csv", index=False)
    page = report.of_table(tmp_path / "runs.csv", tmp_path / "out", resamples=50).read_text("utf-8")
    drawn = pd.read_csv(tmp_path / "out" / "figures" / "valleys.csv")
    assert "Approach 2" in page and set(drawn["run"].dropna()) == set(valley_table()["run"])


@dataclass(frozen=True)
class Plain(Law):
    """A law of size and data by a user who gives no exponents."""

    A: float
    B: float
    NAME = "plain"
    INPUTS = ("params", "tokens")
    PARAMETERS = (Parameter("A", 1, 1e6, (100.0,)), Parameter("B", 1, 1e6, (100.0,)))

    def loss(self, params, tokens):
        return 1.05 + self.A / params**0.34 + self.B / tokens**0.28


@dataclass(frozen=True)
class OfSizeAlone(Plain):
    """Nothing is gained by more data: no budget is best split."""

    NAME = "of-size-alone"

    def loss(self, params, tokens):
        return 1.05 + self.A / params**0.34 + 1e-9 * self.B * tokens**0


def test_a_law_without_exponents_of_its_own_states_its_allocation_and_the_slope_of_it():
    fit, *_ = fits.fit(valley_table(), ("3",), law=Plain, resamples=50, check=False)
    assert answer.usable([fit]) == [fit] and not fit.exponents()
    assert answer.exponent(fit, 1e13) == pytest.approx(0.28 / (0.34 + 0.28), rel=1e-6)
    first, *_ = answer.answer([fit], valley_table())
    assert "a = 0.452 (95 % interval 0.452 to 0.452) at 10¹³ FLOPs by the parametric law" in first


def test_a_law_that_does_not_trade_size_against_data_states_no_allocation():
    fit, *_ = fits.fit(valley_table(), ("3",), law=OfSizeAlone, resamples=0, check=False)
    assert fit.states_optimum and answer.usable([fit]) == []
