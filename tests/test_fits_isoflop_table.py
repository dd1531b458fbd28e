"""Approach 2 of a table: which rows form budgets, which noise is drawn, and what a fit counts and states of them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study import fits
from lmscale.study.fits.uncertainty.simulate import isoflop_design, simulate
from lmscale.study.laws import Chinchilla

LAW = Chinchilla(1.69, 406.4, 410.7, 0.34, 0.28)
BUDGETS = (1e17, 3e17, 1e18, 3e18)


def sweep(noise: float = 0.0, sizes: int = 7) -> pd.DataFrame:
    return simulate(LAW, isoflop_design(LAW, BUDGETS, sizes, 4.0), noise, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "source"),
    [
        ({"valley": "parabola"}, "scatter about the parabolas"),
        ({"valley": "parabola", "window": 3.0}, "third differences"),
        ({"valley": "akima"}, "third differences"),
    ],
    ids=str,
)
def test_parabolas_over_all_sizes_take_the_noise_from_their_scatter(options: dict[str, Any], source: str) -> None:
    assert fits.isoflop(sweep(0.003), resamples=20, check=False, **options).noise_source.startswith(source)


def test_noise_that_comes_out_as_none_makes_no_interval() -> None:
    table = sweep(sizes=3)
    fit = fits.isoflop(table, resamples=50, check=False)
    assert fit.samples is None and fit.noise_nats == 0
    assert "no intervals" in {status.name for status in fit.status}
    assert np.isnan([point.log_params_sd for point in fit.minima]).all()
    assert all(not point.intervals for point in fit.minima)
    stated = fits.isoflop(table, resamples=50, noise_nats=1e-3, check=False)
    assert stated.samples is not None and all(point.log_params_sd > 0 for point in stated.minima)


def test_tokens_of_a_minimum_are_those_of_its_drawn_sizes() -> None:
    """C = 6 N D: the interval of D mirrors that of N, and that of D / N its square."""
    (point, *_) = fits.isoflop(sweep(0.003), resamples=200, check=False).minima
    for level in ("0.8", "0.95"):
        low, high = point.intervals[level]["params"]
        assert point.intervals[level]["tokens"] == pytest.approx((1e17 / 6 / high, 1e17 / 6 / low), rel=1e-3)
        ratio = point.intervals[level]["tokens_per_param"]
        assert ratio == pytest.approx((1e17 / 6 / high**2, 1e17 / 6 / low**2), rel=1e-3)


def test_a_fit_counts_the_runs_of_the_budgets_it_used() -> None:
    table = sweep()
    table.loc[table["flops_budget"] == 3e18, "loss_nats"] = 3.0  # flat
    table.loc[0, "loss_nats"] = np.nan
    fit = fits.isoflop(table, resamples=0, noise_nats=1e-3, check=False)
    assert (fit.n_runs, fit.largest_flops) == (20, 1e18)
    assert {item.run for item in fit.dropped} == {"simulated 0", "budget 3e+18"}


def test_a_budget_that_is_no_positive_number_is_none() -> None:
    table = sweep()
    table.loc[4, "flops_budget"], table.loc[5, "flops_budget"] = 0.0, -1e17
    dropped = fits.isoflop(table, resamples=0).dropped
    assert [(item.run, item.reason) for item in dropped] == [(f"simulated {i}", "no compute budget") for i in (4, 5)]


def clouds(sizes: int, lone: int) -> pd.DataFrame:
    """Two budgets of so many sizes by their FLOPs alone, and runs of a FLOPs of their own."""
    table = simulate(LAW, isoflop_design(LAW, (1e17, 1e18), sizes, 4.0), 0.0, np.random.default_rng(0))
    more = pd.DataFrame(
        {"run": f"lone {k}", "params": 1e8, "tokens": 1e9 * 1.5**k, "flops": 6e17 * 1.5**k, "loss_nats": 3.0}
        for k in range(lone)
    )
    return pd.concat([table, more], ignore_index=True).drop(columns="flops_budget", errors="ignore")


def test_budgets_are_read_from_flops_where_half_of_the_rows_share_them() -> None:
    fit = fits.isoflop(clouds(3, 6), resamples=0, check=False)
    assert len(fit.minima) == 2 and any("agree within 1 %" in note for note in fit.notes)
    for table in (clouds(3, 7), clouds(2, 0), clouds(5, 0).iloc[:5]):
        with pytest.raises(UserError, match="no column flops_budget above 0"):
            fits.isoflop(table, resamples=0)
