"""Chinchilla's form where the data push its irreducible loss to 0: E rests on its bound, and the rest is exact."""

from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd
import pytest
from helpers.isoflop import BUDGETS, isoflop_table, named

from lmscale.study import fits
from lmscale.study.fits.solvers import general
from lmscale.study.fits.solvers.minimise import minimise, minimise_many
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.fits.uncertainty.simulate import isoflop_design, simulate
from lmscale.study.laws import CHINCHILLA_REFIT, Chinchilla

LOW = Chinchilla.PARAMETERS[0].low
RUNS = 36


def table(level: float, noise: float = 1e-3) -> pd.DataFrame:
    """Runs of a law with the constant `level`, which a table may have and a law of this form may not."""
    params, tokens = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e7, 1e10, 6)))
    law = Chinchilla(level, 20.0, 60.0, 0.12, 0.14)
    loss = law.loss(params, tokens) * np.exp(noise * np.random.default_rng(0).standard_normal(RUNS))
    return pd.DataFrame({"run": [f"r{n}" for n in range(RUNS)], "params": params, "tokens": tokens, "loss_nats": loss})


def problem(level: float, loss: str = "huber", **fixed: float) -> Problem:
    runs = table(level)
    return Problem(
        Chinchilla,
        (runs["params"].to_numpy(), runs["tokens"].to_numpy()),
        runs["loss_nats"].to_numpy(),
        loss,
        fixed=fixed or None,
    )


def weights(resamples: int) -> np.ndarray:
    return np.random.default_rng(1).exponential(size=(RUNS, resamples))


@pytest.mark.long
@pytest.mark.parametrize("loss", ["huber", "lad", "squared"])
def test_at_the_bound_the_other_four_are_those_of_the_law_without_a_constant(loss: str) -> None:
    best = minimise(problem(-0.3, loss))
    reduced = general.best(problem(-0.3, loss, E=LOW), np.ones(RUNS))
    assert best.values_p[0] == pytest.approx(LOW, rel=1e-12)
    assert best.values_p == pytest.approx(reduced.values_p, rel=1e-6)
    assert best.objective <= reduced.objective * (1 + 1e-9) and best.agreeing > 1


def test_every_resample_at_the_bound_is_a_minimum() -> None:
    around = minimise(problem(-0.3)).values_p
    values, converged = minimise_many(problem(-0.3), weights(60), around)
    reduced, _ = general.many(problem(-0.3, E=LOW), weights(60), around)
    assert converged.all() and values == pytest.approx(reduced, rel=1e-5)


@pytest.mark.long
def test_resamples_leave_the_bound_and_come_to_it_as_their_runs_say() -> None:
    """From the law at the bound too, where the objective hardly changes with ln E."""
    runs, many = problem(-0.05), weights(200)
    around = general.best(problem(-0.05, E=LOW), np.ones(RUNS)).values_p
    values, converged = minimise_many(runs, many, around)
    resting = values[0] <= LOW * (1 + 1e-9)
    assert converged.all() and 10 < resting.sum() < 190
    free, _ = general.many(runs, many[:, :40], None)
    for index in range(40):
        ours, other = (runs.objective(minima[:, index], many[:, index]) for minima in (values, free))
        assert ours <= other * (1 + 1e-7)


def test_a_fit_at_the_bound_says_so_and_has_intervals_of_the_rest() -> None:
    fit = fits.loss_law(table(-0.3), resamples=200, check=False)
    statuses = {status.name: status for status in fit.status}
    assert fit.at_bounds == ("E",) and "at its bound" in str(fit)
    assert statuses["at a bound"].severity == "warning" and "200 of 200" in statuses["bootstrap"].sentence
    assert "outside its range" not in statuses and np.isnan(fit.interval("E")).all()
    low, high = fit.interval("a")
    assert low < float(fit.exponents()["params"]) < high and high - low < 0.05


def test_a_parameter_at_its_bound_has_no_interval() -> None:
    plain = fits.loss_law(isoflop_table(0.003), resamples=60, check=False)
    fit = replace(plain, law=replace(cast(Chinchilla, plain.law), E=1e-6))
    assert fit.at_bounds == ("E",) and fit.law.at_bounds() == ("E",)
    value = fit.to_json()
    assert value["at_bounds"] == ["E"]
    assert "E" not in value["intervals"]["0.95"] and "E" not in value["standard_errors"]
    assert "alpha" in value["intervals"]["0.95"]
    assert np.isnan(fit.interval("E")).all() and np.isfinite(fit.interval("alpha")).all()
    (line,) = (line for line in str(fit).splitlines() if line.strip().startswith("E ="))
    assert line.endswith("at its bound")


def test_losses_without_an_asymptote_leave_a_partial_answer() -> None:
    """Losses that fall faster than any law with E > 0 push E to the end of its range, in every resample."""
    law = replace(CHINCHILLA_REFIT, E=1e-6)
    table = simulate(law, isoflop_design(law, BUDGETS), 0.003, np.random.default_rng(3))
    fit = fits.loss_law(table.assign(loss_nats=table["loss_nats"] - 0.15), resamples=60, check=False)
    assert fit.law.at_bounds() == ("E",)
    assert "identified" not in named(fit) and "E rests on the end" in named(fit)["partial answer"]
    assert "60 of 60 resamples converged" in named(fit)["bootstrap"] and np.isnan(fit.interval("E")).all()


def test_a_parameter_that_is_held_at_the_end_of_its_range_is_fixed_and_not_at_a_bound() -> None:
    table = simulate(CHINCHILLA_REFIT, isoflop_design(CHINCHILLA_REFIT, (1e17, 1e18, 1e19)), 0.003,
                     np.random.default_rng(3))  # fmt: skip
    fit = fits.loss_law(table, fixed={"E": 1e-6}, resamples=0, check=False)
    assert fit.at_bounds == () and "partial answer" not in named(fit)
