"""The best of several learning rates of a cell enters a fit, and a rate that diverged brackets it."""

import numpy as np
import pandas as pd
import pytest
from helpers.isoflop import isoflop_table, sentences

from lmscale.core.errors import UserError
from lmscale.study import fits
from lmscale.study.fits.runs import usable


def with_rates(best: float = 2e-3) -> pd.DataFrame:
    """Every cell at three learning rates; its first cell is best at the smallest."""
    table = pd.concat(
        [
            isoflop_table(0.0).assign(
                run=lambda t, r=rate: t["run"] + f" at {r}",
                peak_lr=rate,
                loss_nats=lambda t, r=rate: t["loss_nats"] * (1 + abs(np.log(r / best)) / 10),
            )
            for rate in (1e-3, 2e-3, 4e-3)
        ],
        ignore_index=True,
    )
    table.loc[0, "loss_nats"] *= 0.8
    return table


def test_learning_rates_are_all_kept_and_flagged_when_asked_for() -> None:
    runs = usable(with_rates(), rates="all")
    assert len(runs) == 63
    assert not runs.dropped
    assert "42 of 63 runs" in sentences(runs)["several learning rates"]
    assert "in 1 of 21 cells" in sentences(runs)["learning rate on the edge"]
    assert "`rates='inside'` leaves them out" in sentences(runs)["learning rate on the edge"]


def test_the_best_learning_rate_of_each_cell() -> None:
    runs = usable(with_rates(), rates="best")
    assert len(runs) == 21
    assert len(runs.dropped) == 42
    assert {d.reason for d in runs.dropped} == {
        "not at the best learning rate of its cell, 0.001",
        "not at the best learning rate of its cell, 0.002",
    }
    assert "and are left out" in sentences(runs)["several learning rates"]
    fit = fits.loss_law(with_rates(), rates="best", resamples=0, check=False)
    assert fit.rates == fit.to_json()["rates"] == "best"


def test_cells_whose_best_learning_rate_is_on_the_edge_are_left_out() -> None:
    runs = usable(with_rates())
    assert len(runs) == 20
    assert "in 1 of 21 cells" in sentences(runs)["learning rate on the edge"]
    assert "they are left out" in sentences(runs)["learning rate on the edge"]
    edge = [d for d in runs.dropped if "on the edge" in d.reason]
    assert {d.run for d in edge} == {"simulated 0 at 0.001", "simulated 0 at 0.002", "simulated 0 at 0.004"}
    assert runs.column("peak_lr").tolist() == [2e-3] * 20
    assert len(usable(with_rates(best=1e-3), rates="best")) == 21
    with pytest.raises(UserError, match=r"no run is left to fit.*`rates='best'` keeps it"):
        usable(with_rates(best=1e-3))


def test_two_rates_cannot_bracket_the_best() -> None:
    runs = usable(with_rates().query("peak_lr < 3e-3"))
    assert len(runs) == 21
    assert "21 of 21 cells were run at two" in sentences(runs)["two learning rates"]


def test_seeds_of_one_learning_rate_are_one_rate() -> None:
    table = pd.concat([with_rates().assign(seed=seed) for seed in range(2)], ignore_index=True)
    table.loc[63 + 21 + 5, "loss_nats"] *= 1.001
    assert len(usable(table, rates="best")) == 42


def diverged_above(rate: float) -> pd.DataFrame:
    """Every cell at three rates, best at the second; the runs above `rate` diverged and have no loss."""
    table = with_rates().iloc[1:]  # without the odd first row
    lost = table["peak_lr"] > rate
    return table.assign(state=np.where(lost, "diverged", "finished"), loss_nats=table["loss_nats"].mask(lost))


def test_a_diverged_rate_brackets_the_best_one() -> None:
    runs = usable(diverged_above(3e-3))
    assert len(runs) == 21
    assert "learning rate on the edge" not in sentences(runs)
    assert "21 more diverged, whose rates count as tried" in sentences(runs)["several learning rates"]
    assert "cells missing" not in sentences(runs)
    table = diverged_above(3e-3)
    whole = fits.loss_law(with_rates().iloc[1:], resamples=0, check=False)
    assert fits.loss_law(table, resamples=0, check=False).law == whole.law


def test_a_cell_of_one_rate_below_two_diverged_ones_is_on_the_edge() -> None:
    with pytest.raises(UserError, match="on the edge of those tried"):
        usable(diverged_above(1e-3))


def test_an_infinite_loss_is_a_rate_that_diverged_and_a_missing_one_is_not() -> None:
    table = diverged_above(3e-3).drop(columns="state")
    assert len(usable(table.fillna({"loss_nats": np.inf}))) == 21
    with pytest.raises(UserError, match="loss_nats is missing"):
        usable(table[table["peak_lr"] > 3e-3])
    assert "two learning rates" in sentences(usable(table))
