"""What makes an answer of Approach 3 doubtful is named: rows, designs, single runs, conventions."""

import numpy as np
import pandas as pd
import pytest
from helpers.isoflop import isoflop_table, named

from lmscale.core.errors import UserError
from lmscale.study import fits
from lmscale.study.fits.uncertainty.simulate import simulate
from lmscale.study.laws import CHINCHILLA_REFIT


@pytest.mark.long
def test_a_line_of_constant_ratio_cannot_be_identified() -> None:
    params = np.geomspace(6.6e6, 124e6, 8)
    points = [(n, 20 * n, float("nan")) for n in params]
    table = simulate(CHINCHILLA_REFIT, points, 0.003, np.random.default_rng(0))
    fit = fits.loss_law(table, resamples=0)
    assert "D = 20 N" in named(fit)["cannot be identified"]
    assert "cannot be identified" not in named(fits.loss_law(isoflop_table(0.003), resamples=0, check=False))


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(UserError, match="4 runs at 4 distinct points cannot fix the 5 parameters"):
        fits.loss_law(isoflop_table().iloc[:4], resamples=0)


def test_bad_losses_are_dropped_by_name() -> None:
    table = isoflop_table(0.003)
    table.loc[3, "loss_nats"] = np.nan
    table.loc[5, "loss_nats"] = -1.0
    fit = fits.loss_law(table, resamples=0, check=False)
    assert {(d.run, d.reason) for d in fit.dropped} == {
        ("simulated 3", "loss_nats is missing"),
        ("simulated 5", "loss_nats is not positive"),
    }
    assert "simulated 3" in named(fit)["cells missing"]
    with pytest.raises(UserError, match="no run is left"):
        fits.loss_law(table.assign(loss_nats=np.nan))


def test_a_sweeps_table_says_what_became_of_a_run() -> None:
    table = isoflop_table(0.003).assign(state="finished", reason=None)
    table.loc[3, ["loss_nats", "state", "reason"]] = [np.nan, "diverged", "the loss became NaN at step 7"]
    fit = fits.loss_law(table, resamples=0, check=False)
    assert fit.dropped[0].reason == "loss_nats is missing: diverged, the loss became NaN at step 7"
    assert "simulated 3" in named(fit)["cells missing"]


def test_doubtful_tables_are_named() -> None:
    table = pd.concat([isoflop_table(0.003), isoflop_table(0.003).iloc[:2]], ignore_index=True)
    table["flop_count"] = ["kaplan", *["standard"] * (len(table) - 1)]
    table["epochs"] = [9.0, *[1.0] * (len(table) - 1)]
    table["warmup_fraction"] = [0.01, 0.5, *[0.01] * (len(table) - 2)]
    sentences = named(fits.loss_law(table, resamples=0, check=False))
    assert {"duplicate rows", "mixed conventions", "repeated data", "long warmup"} <= set(sentences)
    assert "simulated 0" in sentences["repeated data"]


def test_repeated_data_is_no_doubt_of_a_law_that_takes_unique_tokens() -> None:
    table = isoflop_table(0.003)
    table["unique_tokens"] = table["tokens"] / np.where(np.arange(len(table)) % 2, 9, 1)
    assert "repeated data" in named(fits.loss_law(table, resamples=0, check=False))
    assert "repeated data" not in named(fits.loss_law(table, law="data-constrained", resamples=0, check=False))


def test_points_inside_a_decaying_schedule_are_named() -> None:
    table = isoflop_table(0.003).assign(fraction_of_schedule=[0.5, *[1.0] * 20])
    assert "1 of 21" in named(fits.loss_law(table, resamples=0, check=False))["unfinished schedules"]
    constant = named(fits.loss_law(table.assign(schedule="constant"), resamples=0, check=False))
    assert "unfinished schedules" not in constant


def test_an_influential_run_is_named() -> None:
    table = isoflop_table(0.001)
    table.loc[0, "loss_nats"] *= 1.2
    fit = fits.loss_law(table, loss="squared", resamples=0)
    assert "simulated 0" in named(fit)["influence"]


def test_counting_conventions_are_spread() -> None:
    table = isoflop_table(0.001)
    table["params_non_embedding"] = table["params"] * (table["params"] / table["params"].max()) ** 0.2
    table["flops_kaplan"] = 6 * table["params_non_embedding"] * table["tokens"]
    sentence = named(fits.loss_law(table, resamples=0))["counting conventions"]
    assert "N = params_non_embedding" in sentence and "C = flops_kaplan" in sentence
