"""The answer and the verdict of a report: which number, which direction, on which condition."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers.simulated import TRUTH

from lmscale.study import fits
from lmscale.study.fits.predict.held_out import HeldOut, HeldOutBudget, HeldOutRun
from lmscale.study.fits.results.common import Dropped, Prediction, Status
from lmscale.study.laws import Allocation, ComputeModel
from lmscale.study.report import answer, figures, sections, sketch, tables
from lmscale.study.report.brief import brief
from lmscale.study.report.verdict import verdict


class Line:
    """A fit with a = `a`, D*/N* = `ratio` at every C between `low` and `high`, N* = 1000 (C / 1e12)^a."""

    def __init__(self, approach="3", a=0.5, ratio=30.0, low=25.0, high=40.0, resamples=10, p=1.0, n_runs=9):
        self.approach, self.a, self.ratio, self.ends, self.n_runs = approach, a, ratio, (low, high), n_runs
        self.resamples, self.compute, self.status, self.dropped = resamples, ComputeModel(6.0, p), (), ()

    def exponents(self):
        return {"params": self.a}

    def optimum(self, flops):
        ratio = self.ratio(flops) if callable(self.ratio) else self.ratio
        return Allocation(flops, 1000.0 * (flops / 1e12) ** self.a, 20000.0, ratio, 2.0)

    def interval(self, quantity, level):
        assert level == 0.95
        if quantity == "a":
            return self.a - 0.01, self.a + 0.01
        value = quantity(SimpleNamespace(optimum=lambda c: SimpleNamespace(params=1, tokens=2, tokens_per_param=3)))
        return {1: (900.0, 1100.0), 2: (18000.0, 22000.0), 3: self.ends}[value]


def runs(top=1e12, **columns):
    """Nine fitted runs and one held out, of 1e11 FLOPs to `top`."""
    table = pd.DataFrame({"run": [f"r{i}" for i in range(10)], "params": 1e3, "tokens": 1e4, "loss_nats": 2.0,
                          "flops": np.geomspace(1e11, top, 10), "held_out": [False] * 9 + [True]})  # fmt: skip
    table.loc[8, "flops"] = top
    return table.assign(**columns)


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


def held_out_run(name, predicted, measured, half=0.05):
    ends = (predicted - half, predicted + half)
    prediction = Prediction({"params": 1e3, "tokens": 1e4}, predicted, ends, ends, 0.95)
    return HeldOutRun(name, prediction, measured)


def seen(*names):
    """What the verdict reads of Approach 3: the runs that it was fitted to."""
    return SimpleNamespace(approach="3", residuals={"run": list(names)}, status=(), exponents=dict)


def test_the_verdict_on_runs():
    check = HeldOut("3", 0.9, (held_out_run("a", 2.1, 2.0), held_out_run("b", 3.0, 3.03), held_out_run("c", 2.0, 2.0)))
    assert verdict([seen("x")], [check]) == [
        "Loss: Approach 3, fitted without them, predicted the final losses of 3 held-out runs with a mean "
        "absolute error of 1.92 %, a bias of -1.25 % and a largest error of 4.76 % (measured minus predicted: a "
        "positive one was predicted too low); 2 of 3 measured losses lie inside the 90 % interval "
        "of "
        "one new run."
    ]
    assert verdict([seen("x")], [HeldOut("3", 0.9, check.runs[1:2])]) == [
        "Loss: Approach 3, fitted without them, predicted the final loss of 1 held-out run with an error of +1.00 % "
        "(measured minus predicted: a positive one was predicted too low); "
        "1 of 1 measured losses lie inside the 90 % interval of one new run."
    ]


def test_a_fit_that_saw_the_runs_says_so():
    check = HeldOut("3", 0.95, (held_out_run("a", 2.1, 2.0), held_out_run("b", 3.0, 3.0)))
    (sentence,) = verdict([seen("b", "x")], [check])
    assert "Approach 3, fitted to 1 of them, predicted the final losses of 2 held-out runs with a mean" in sentence


def test_without_resamples_no_loss_lies_inside_or_outside():
    check = HeldOut("3", 0.95, (held_out_run("a", 2.1, 2.0, math.nan),))
    assert verdict([seen()], [check])[0].endswith("; without resamples it states no interval.")
    assert ">no</td>" not in tables.held_out([check], runs()) and "nan" not in tables.held_out([check], runs())


def test_errors_have_the_sign_that_their_heading_states():
    html = tables.held_out([HeldOut("3", 0.9, (held_out_run("a", 2.1, 2.0),))], runs())
    assert ">error<span>meas. − pred., %</span>" in html and ">-4.76</td>" in html and "<span>90 %</span>" in html


def budget(predicted, measured, predicted_ends=(900.0, 1100.0), measured_ends=(1050.0, 1300.0)):
    return HeldOutBudget(
        1e13, predicted, predicted_ends, measured, measured_ends, 2.0, 2.0, "edge: lowest at the smallest"
    )


def test_the_verdict_on_a_budget():
    (sentence,) = verdict([], [HeldOut("2", 0.9, (), (budget(1000.0, 1250.0),))])
    assert sentence == (
        "Model size: Approach 2 extrapolated N* = 1.00k (900 to 1.10k) parameters to C = 10¹³ FLOPs; the held-out "
        "runs' "
        "own minimum lies at 1.25k (1.05k to 1.30k), so the prediction was 20.0 % too small; the 90 % intervals "
        "overlap."
    )
    (sentence,) = verdict([], [HeldOut("2", 0.95, (), (budget(1000.0, 800.0, measured_ends=(700.0, 890.0)),))])
    assert sentence.endswith("so the prediction was 25.0 % too large; the 95 % intervals do not overlap.")
    (sentence,) = verdict([], [HeldOut("2", 0.95, (), (budget(1005.0, 1000.0),))])
    assert "so the prediction was 0.5 % too large;" in sentence


def test_a_budget_without_intervals_or_without_a_minimum():
    none = (math.nan, math.nan)
    (sentence,) = verdict([], [HeldOut("2", 0.95, (), (budget(1000.0, 1250.0, none, none),))])
    assert sentence.endswith("lies at 1.25k, so the prediction was 20.0 % too small.")
    (sentence,) = verdict([], [HeldOut("2", 0.95, (), (budget(1000.0, None, measured_ends=none),))])
    assert sentence == (
        "Model size: the held-out runs at C = 10¹³ FLOPs have no minimum that can be trusted (edge: lowest at the "
        "smallest), so the N* = 1.00k (900 to 1.10k) that Approach 2 extrapolates to them cannot be checked."
    )


def test_where_approach_3_puts_the_same_minimum():
    (sentence,) = verdict([Line(a=0.0)], [HeldOut("2", 0.95, (), (budget(1000.0, 1250.0),))])
    assert sentence.endswith("overlap. Approach 3 puts it at 1.00k (900 to 1.10k), -20.0 % from the measured one.")
    (sentence,) = verdict([Line(a=0.0, resamples=0)], [HeldOut("2", 0.95, (), (budget(1000.0, 1250.0),))])
    assert sentence.endswith("overlap. Approach 3 puts it at 1.00k, -20.0 % from the measured one.")


@pytest.fixture(scope="module")
def table():
    rows = [(1e5 * factor, c / (6e5 * factor), c, c) for c in (1e12, 1e13) for factor in (0.1, 0.3, 1, 3, 10)]
    frame = pd.DataFrame(rows, columns=["params", "tokens", "flops", "flops_budget"])
    names = [f"r{index}" for index in range(10)]
    return frame.assign(run=names, loss_nats=TRUTH.loss(frame["params"], frame["tokens"]), held_out=False)


@pytest.fixture(scope="module")
def valleys(table):
    return fits.isoflop(table, valley="parabola", resamples=20, noise_nats=0.001, check=False)


@pytest.fixture(scope="module")
def law(table):
    return fits.loss_law(table, resamples=0, check=False)


def test_the_caption_of_losses(table):
    def caption(curves=(), of=(), baselines=None):
        return figures._loss(table, dict.fromkeys(curves), of, baselines or {}, {}).caption

    start = "Points: final losses of the 10 runs that have one, by model size N. Thick line: their lower frontier"
    assert caption() == f"{start}."
    assert "training loss along 2 of them, averaged in steps of ln C" in caption(["r1", "r2", "another"])
    assert "training loss along each of them, averaged" in caption([f"r{index}" for index in range(10)])
    assert caption(of=[Line("2"), Line("3")]).endswith("L*(C) that the parametric law gives the best allocation.")
    low, high = float(table["loss_nats"].min()), float(table["loss_nats"].max())
    levels = {"pairs": (low + high) / 2, "perfect": 0.1 * low, "uniform": 9 * high}
    assert caption(baselines=levels).endswith(". Dotted: simple models on the same validation text (pairs).")


def test_the_caption_of_valleys(table, valleys):
    def caption(fit, checked=None):
        return figures._valleys(table, fit, checked, {}).caption

    start = "Each valley is one compute budget C; the curve is a parabola in ln N"
    assert caption(valleys) == (
        f"{start}; diamonds are the minima with 80 (thick) and 95 % (thin) intervals of N*, often narrower than the "
        f"diamond."
    )
    bare = replace(valleys, samples=None)
    assert caption(bare) == f"{start}; diamonds are the minima."
    assert "the curve is Akima interpolation of ln L on ln N; diamonds" in caption(replace(bare, method="akima"))
    assert f"{start} with the minimum found in the sizes within a factor 3 of the lowest run; diamonds" in caption(
        replace(bare, window=3.0)
    )
    lost = replace(bare, dropped=(Dropped("budget 1e+14", "flat"), Dropped("r1", "odd")))
    assert caption(lost).endswith(" Points without a curve: a budget whose minimum was rejected (1).")
    one, two = HeldOut("2", 0.9, (), (budget(1.0, 2.0),)), HeldOut("2", 0.9, (), (budget(1.0, 2.0), budget(1.0, None)))
    assert caption(bare, one).endswith(" Dashed and open: the held-out budget, which no fit saw.")
    assert caption(valleys, two).endswith(
        " Dashed and open: the held-out budgets, which no fit saw, with the 90 % interval alone."
    )


def test_the_captions_of_allocations(table, valleys, law):
    def captions(*of, checked=()):
        return [sketch.caption for sketch in figures._allocation(table, of, checked)]

    rest = (
        "Bands: 80 and 95 % intervals of the fits; dashed beyond the compute that was fitted. Points: minima of the "
        "budgets with their 95 % intervals."
    )
    assert captions(valleys, law) == [
        f"D*/N* beside the rule of 20 (dotted). {rest}",
        f"N* (left) and D* (right), beside 20 tokens per parameter (dotted). {rest}",
    ]
    assert captions(law)[0].endswith("(dotted). Dashed: beyond the compute that was fitted.")
    bare = replace(valleys, samples=None)
    assert captions(bare)[0].endswith("fitted. Points: minima of the budgets.")
    own = HeldOut("2", 0.95, (), (budget(1.0, 2.0),))
    assert captions(bare, checked=[own])[0].endswith("Points: minima of the budgets; open: held out.")
    assert captions(valleys, checked=[own])[0].endswith("with their 95 % intervals; open: held out.")
    other = captions(valleys, checked=[replace(own, level=0.9)])[0]
    assert other.endswith("with their 95 % intervals; open: held out, with 90 %.")
    assert "open" not in captions(valleys, checked=[HeldOut("2", 0.9, (), (budget(1.0, None),))])[0]


def test_the_captions_of_residuals_and_held_out_runs(law):
    (residuals,) = figures._residuals(law, None)
    assert residuals.caption == (
        "What the parametric law leaves unexplained, in per cent of the predicted loss. Shaded: twice the root mean "
        "square of the fitted runs."
    )
    check = HeldOut("3", 0.9, (held_out_run("a", 2.1, 2.0),))
    (residuals,) = figures._residuals(law, check)
    assert residuals.caption.endswith("fitted runs. Open: held-out runs.")
    start = "Losses (left) and errors (right) of runs that no fit saw."
    assert figures._held_out(check).caption == f"{start} Bars: the 90 % interval of one new run at that N and D."
    assert figures._held_out(HeldOut("3", 0.9, (held_out_run("a", 2.1, 2.0, math.nan),))).caption == start


def test_the_sentences_between_the_tables(valleys):
    end = "; rows in italics lie beyond the fitted compute: extrapolations."
    assert sections._allocation([valleys]) == f"N*, D* and D*/N* with their intervals{end}"
    assert sections._allocation([replace(valleys, samples=None)]) == f"N*, D* and D*/N*{end}"
    drawn = [sketch.DrawnFigure("loss", "Loss", "", "")]
    assert sections._files(drawn).endswith("its data as CSV with the ids of the runs).")
    assert sections._files([]) == "Beside this page: table.csv (every run), fits.json (every fitted number)."
    assert sections._no_answer(runs(loss_nats=[2.0] * 9 + [None])) == (
        "This table cannot answer the question: of its 10 runs 9 have a measured loss with N, D and C, and no fit "
        "through "
        "them fixes an allocation."
    )


def test_an_allocation_beyond_what_its_own_fit_saw_is_in_italics(table, valleys, law):
    html = tables.allocation(table, [replace(valleys, largest_flops=1e12), law], at=[1e12, 1e13, 1e14])
    rows = [line for line in html.splitlines() if line.startswith("<tr")]
    assert ['class="beyond"' in row.replace("'", '"') for row in rows] == [False, False, False, True, True, True]
    assert [row.rsplit("<td>", 1)[1].split("<")[0] for row in rows] == ["–", "–", "–", "10", "10", "100"]


def test_the_optimum_is_stated_with_its_intervals_by_every_fit():
    assert brief([Line("2", resamples=0), Line()], runs()) == [
        "optimum at C = 10¹² FLOPs, Approach 3: N* = 1.00k (900 to 1.10k), D* = 20.0k (18.0k to 22.0k), "
        "D*/N* = 30 (25 to 40) (95 % intervals)",
        "optimum at C = 10¹² FLOPs, Approach 2: N* = 1.00k, D* = 20.0k, D*/N* = 30",
    ]
    assert brief([], runs()) == []


def test_what_was_predicted_stands_beside_what_was_measured():
    losses = HeldOut("3", 0.9, (held_out_run("a", 2.1, 2.0), held_out_run("b", 3.0, 3.0)))
    sizes = HeldOut("2", 0.9, (), (budget(1000.0, 1250.0), budget(1.0, None)))
    first, second, third = brief([], runs(), [losses, sizes])
    assert first.startswith("prediction, Approach 3: 2 held-out losses measured 2.38 % from predicted on average; ")
    assert "N* = 1.00k (" in second and "; measured 1.25k (" in second
    assert "no minimum was measured" in third
