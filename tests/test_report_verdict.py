"""The verdict of a report: what was predicted, against what was measured."""

import math
from types import SimpleNamespace

from helpers.report_fits import Line, budget, held_out_run, runs

from lmscale.study.fits.predict.held_out import HeldOut
from lmscale.study.report import tables
from lmscale.study.report.brief import brief
from lmscale.study.report.verdict import verdict


def fit_of(*names):
    """What the verdict reads of Approach 3: the runs that it was fitted to."""
    return SimpleNamespace(approach="3", residuals={"run": list(names)}, status=(), states_optimum=False)


def test_the_verdict_on_runs():
    check = HeldOut("3", 0.9, (held_out_run("a", 2.1, 2.0), held_out_run("b", 3.0, 3.03), held_out_run("c", 2.0, 2.0)))
    assert verdict([fit_of("x")], [check]) == [
        "Loss: Approach 3, fitted without them, predicted the final losses of 3 held-out runs with a mean "
        "absolute error of 1.92 %, a bias of -1.25 % and a largest error of 4.76 % (measured minus predicted: a "
        "positive one was predicted too low); 2 of 3 measured losses lie inside the 90 % interval "
        "of "
        "one new run."
    ]
    assert verdict([fit_of("x")], [HeldOut("3", 0.9, check.runs[1:2])]) == [
        "Loss: Approach 3, fitted without them, predicted the final loss of 1 held-out run with an error of +1.00 % "
        "(measured minus predicted: a positive one was predicted too low); "
        "1 of 1 measured losses lie inside the 90 % interval of one new run."
    ]


def test_a_fit_that_saw_the_runs_says_so():
    check = HeldOut("3", 0.95, (held_out_run("a", 2.1, 2.0), held_out_run("b", 3.0, 3.0)))
    (sentence,) = verdict([fit_of("b", "x")], [check])
    assert "Approach 3, fitted to 1 of them, predicted the final losses of 2 held-out runs with a mean" in sentence


def test_without_resamples_no_loss_lies_inside_or_outside():
    check = HeldOut("3", 0.95, (held_out_run("a", 2.1, 2.0, math.nan),))
    assert verdict([fit_of()], [check])[0].endswith("; without resamples it states no interval.")
    assert ">no</td>" not in tables.held_out([check], runs()) and "nan" not in tables.held_out([check], runs())


def test_errors_have_the_sign_that_their_heading_states():
    html = tables.held_out([HeldOut("3", 0.9, (held_out_run("a", 2.1, 2.0),))], runs())
    assert ">error<span>meas. − pred., %</span>" in html and ">-4.76</td>" in html and "<span>90 %</span>" in html


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


def test_what_was_predicted_stands_beside_what_was_measured():
    losses = HeldOut("3", 0.9, (held_out_run("a", 2.1, 2.0), held_out_run("b", 3.0, 3.0)))
    sizes = HeldOut("2", 0.9, (), (budget(1000.0, 1250.0), budget(1.0, None)))
    first, second, third = brief([], runs(), [losses, sizes])
    assert first.startswith("prediction, Approach 3: 2 held-out losses measured 2.38 % from predicted on average; ")
    assert "N* = 1.00k (" in second and "; measured 1.25k (" in second
    assert "no minimum was measured" in third
