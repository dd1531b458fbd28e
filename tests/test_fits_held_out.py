"""Held-out runs: no fit sees them, their errors and intervals, and the minima of their own budget."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.isoflop import BUDGETS, isoflop_table

from lmscale.study import fits
from lmscale.study.fits.predict.held_out import HeldOut, HeldOutBudget, HeldOutRun
from lmscale.study.fits.results.common import Prediction


def test_held_out_rows_do_not_enter() -> None:
    table = isoflop_table(0.003)
    table["held_out"] = table["flops_budget"] == max(BUDGETS)
    spoiled = table.assign(loss_nats=np.where(table["held_out"], 99.0, table["loss_nats"]))
    one, other = (fits.loss_law(t, resamples=20, check=False) for t in (table, spoiled))
    assert one.law == other.law
    assert len(one.dropped) == 7
    assert "held out" in one.dropped[0].reason


def test_held_out_check_of_a_true_law_and_of_a_wrong_one() -> None:
    table = isoflop_table(0.003)
    table["held_out"] = table["flops_budget"] == max(BUDGETS)
    fit = fits.loss_law(table, resamples=300, check=False)
    right = fits.held_out_check(fit, table)
    assert right.coverage >= 6 / 7
    assert max(abs(run.error) for run in right.runs) < 0.02
    wrong = fits.held_out_check(fit, table.assign(loss_nats=1.3 * table["loss_nats"]))
    assert wrong.coverage == 0
    assert "OUTSIDE" in str(wrong)
    json.dumps(right.to_json(), allow_nan=False)


def test_the_share_of_losses_inside_their_interval() -> None:
    """Four runs are predicted at 2 nats, between 1.9 and 2.5: two lie on the edges, one inside and one below."""
    prediction = Prediction({"params": 1e9}, 2.0, (1.95, 2.05), (1.9, 2.5), 0.95)
    losses = {"a": 1.9, "b": 2.5, "c": 2.0, "d": 1.6}
    check = HeldOut("3", 0.95, tuple(HeldOutRun(run, prediction, loss) for run, loss in losses.items()))
    assert [run.inside for run in check.runs] == [True, True, True, False]
    assert check.coverage == check.to_json()["coverage"] == 0.75
    heading, *rows = str(check).splitlines()
    assert "3 of 4 measured losses lie inside the 95 % interval of one new run; mean absolute error 12.50 %" in heading
    assert "bias +0.00 %, largest 25.00 %" in heading  # 2.5 / 2, measured over predicted
    assert rows[3] == "  d: params 1e+09: predicted 2.0000 [1.9000, 2.5000], measured 1.6000 (-20.00 %)  OUTSIDE"
    assert [row.endswith("OUTSIDE") for row in rows] == [False, False, False, True]
    assert np.isnan(HeldOut("3", 0.95).coverage)


@pytest.mark.parametrize(
    ("own", "agree", "phrase"),
    [
        ((8e8, 9e8), True, "1.000e+09 [8.000e+08, 9.000e+08] (-20.0 %): the intervals overlap"),
        ((7e8, 7e8), True, "the intervals overlap"),
        ((9e8, 9.5e8), True, "the intervals overlap"),
        ((9.1e8, 9.5e8), False, "the intervals DO NOT overlap"),
        ((6e8, 6.9e8), False, "the intervals DO NOT overlap"),
    ],
)
def test_two_minima_agree_where_their_intervals_meet(own: tuple[float, float], agree: bool, phrase: str) -> None:
    budget = HeldOutBudget(1e19, 8e8, (7e8, 9e8), 1e9, own, 2.0, 2.0)
    assert budget.agree == agree
    assert phrase in str(HeldOut("2", 0.95, budgets=(budget,)))
    alone = replace(budget, measured_params=None, reason="flat")
    assert alone.agree is None and "its own runs give no minimum (flat)" in str(HeldOut("2", 0.95, budgets=(alone,)))
