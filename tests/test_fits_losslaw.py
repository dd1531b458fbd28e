"""Approach 3: the exact optimum, published intervals, recovery, and what its text and its JSON state."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.isoflop import BUDGETS, isoflop_table, named

from lmscale.core.errors import UserError
from lmscale.study import fits
from lmscale.study.fits.results.common import Dropped, dropped_lines
from lmscale.study.fits.results.loss_law import LossLaw
from lmscale.study.fits.solvers import chinchilla_vertex
from lmscale.study.fits.solvers.chinchilla import solve_many
from lmscale.study.fits.solvers.chinchilla_points import ChinchillaPoints
from lmscale.study.fits.uncertainty.bootstrap import resample_counts
from lmscale.study.fits.uncertainty.simulate import isoflop_design, simulate
from lmscale.study.laws import BESIROGLU_2024, CHINCHILLA_REFIT, SIX_ND, Chinchilla, Law
from lmscale.study.tables import read_table


@pytest.fixture(scope="module")
def chinchilla() -> pd.DataFrame:
    return read_table("chinchilla")


@pytest.fixture(scope="module")
def law(chinchilla: pd.DataFrame) -> LossLaw:
    return fits.loss_law(chinchilla, resamples=1000, seed=0, at=fits.PUBLISHED_AT)


@pytest.mark.long
def test_exact_optimum_of_the_published_runs(law: LossLaw) -> None:
    assert law.objective == pytest.approx(0.0010182740178006008, rel=1e-12)
    assert law.law.values() == pytest.approx(CHINCHILLA_REFIT.values(), rel=1e-8)
    assert law.exponents()["params"] == pytest.approx(0.513900, abs=1e-6)
    assert "24 of 24" in named(law)["starts"]


def test_optimum_with_the_five_outliers(chinchilla: pd.DataFrame) -> None:
    fit = fits.loss_law(read_table("chinchilla", where="used_in_fit >= 0"), resamples=0, check=False)
    assert fit.n_runs == 245
    assert fit.objective == pytest.approx(0.0018260105230693334, rel=1e-12)


def test_least_absolute_deviations_are_besiroglus_printed_constants(chinchilla: pd.DataFrame) -> None:
    fit = fits.loss_law(chinchilla, loss="lad", resamples=0, check=False)
    printed = {"A": (482.01, 0.01), "B": (2085.43, 0.01), "alpha": (0.3478, 5e-5), "beta": (0.3658, 6e-5)}
    for name, (value, within) in printed.items():
        assert getattr(fit.law, name) == pytest.approx(value, abs=within)
    assert pytest.approx(1.81686, abs=5e-6) == fit.law.E
    assert fit.objective == pytest.approx(1.12949, abs=5e-6)
    assert BESIROGLU_2024.values() == pytest.approx(fit.law.values(), rel=2e-6)


@pytest.mark.long
@pytest.mark.parametrize("residual", ["log", "raw"])
def test_least_absolute_deviations_of_many_resamples_are_minima(chinchilla: pd.DataFrame, residual: str) -> None:
    """Each goes through five runs, and no small step in any direction is better."""
    data = [chinchilla[name].to_numpy() for name in ("params", "tokens", "loss_nats")]
    points = ChinchillaPoints.of(*data, loss="lad", log_residual=residual == "log")
    weights = resample_counts(np.random.default_rng(0), len(chinchilla), 64)
    ends = solve_many(points, weights)
    assert ends.converged_b.mean() > 0.95
    lowest = chinchilla_vertex.height(points, weights, ends.theta_pb)
    rng = np.random.default_rng(1)
    for size in (1e-5, 1e-4, 1e-3):
        moved = ends.theta_pb[:, None] + size * rng.standard_normal((5, 40, 1))
        for step in moved.transpose(1, 0, 2):
            assert (chinchilla_vertex.height(points, weights, step) > lowest * (1 - 1e-7)).all()
    near = np.sort(np.abs(chinchilla_vertex.residual(points, ends.theta_pb)) + (weights == 0), axis=0)
    assert np.median(near[4]) < 1e-7 < np.median(near[5])


def test_bootstrap_of_the_published_resamples(chinchilla: pd.DataFrame) -> None:
    """The resamples that Besiroglu et al. drew (legacy generator, seed 42), the first 1000 of 4000."""
    legacy = np.random.RandomState(42)
    drawn = [np.bincount(legacy.choice(240, size=240, replace=True), minlength=240) for _ in range(1000)]
    data = (chinchilla[name].to_numpy() for name in ("params", "tokens", "loss_nats"))
    points = ChinchillaPoints.of(*data)
    ends = solve_many(points, np.stack(drawn, axis=1).astype(float))
    assert ends.converged_b.all()
    values = points.named(ends.theta_pb)
    # Standard errors of the whole 4000 (the data's README) within what a quarter of them lets expect.
    assert values.std(axis=1, ddof=1) == pytest.approx([0.0256570, 124.4936, 1293.1691, 0.0153975, 0.0205942], rel=0.08)
    assert np.percentile(values[3], [2.5, 97.5]) == pytest.approx([0.316823, 0.373283], abs=0.003)


def test_tokens_per_parameter_table(law: LossLaw) -> None:
    want = {
        1e18: (25.91, 21.1, 34.9),
        1e20: (22.80, 19.7, 26.5),
        1e22: (20.06, 11.9, 30.5),
        5.76e23: (17.92, 7.6, 35.9),
        1e26: (15.53, 4.3, 42.3),
    }
    for row in law.allocations(list(want)):
        ratio, low, high = want[row["flops"]]
        assert row["tokens_per_param"] == pytest.approx(ratio, abs=0.005)
        assert row["intervals"]["0.95"]["tokens_per_param"] == pytest.approx((low, high), rel=0.1)


@pytest.mark.long
def test_a_law_without_an_optimum_says_so() -> None:
    """Loss that larger models make no better, fitted by a form whose optimum is searched: no allocation, no crash."""
    table = isoflop_table(0.002)

    class Searched(Chinchilla):
        """Chinchilla's law without its closed form."""

        optimum = Law.optimum

    fixed = {"E": 2.0, "A": 1e-280, "B": 2000.0, "alpha": 0.5}
    fit = fits.loss_law(table, Searched, fixed=fixed, resamples=0)
    assert fit.allocations() == []
    assert "no optimum" in named(fit)


def test_row_order_does_not_matter(chinchilla: pd.DataFrame) -> None:
    shuffled = chinchilla.sample(frac=1, random_state=1)
    one, other = (fits.loss_law(t, resamples=50, check=False).to_json(samples=True) for t in (chinchilla, shuffled))
    assert one == {**other, "dropped": one["dropped"]}


@pytest.mark.parametrize("loss", ["huber", "lad", "squared"])
@pytest.mark.parametrize("residual", ["log", "raw"])
def test_noiseless_laws_are_recovered(loss: str, residual: str) -> None:
    truth = Chinchilla(1.5, 60.0, 900.0, 0.28, 0.41)
    table = simulate(truth, isoflop_design(truth, BUDGETS), 0.0, np.random.default_rng(0))
    fit = fits.loss_law(table, loss=loss, residual=residual, resamples=0, check=False)
    assert fit.law.values() == pytest.approx(truth.values(), rel=1e-6)


def test_many_left_out_runs_are_counted() -> None:
    dropped = [Dropped(f"run {index}", "odd") for index in range(9)]
    first_eight = ", ".join(f"run {index}" for index in range(8))
    assert dropped_lines(dropped) == [f"  9 left out (odd): {first_eight} and 1 more"]
    assert dropped_lines(dropped[:8]) == [f"  8 left out (odd): {first_eight}"]


def test_a_new_run_scatters_more_than_the_law(law: LossLaw) -> None:
    prediction = law.predict(params=1e9, tokens=2e10)
    assert (
        prediction.interval[0]
        < prediction.law_interval[0]
        < prediction.loss_nats
        < prediction.law_interval[1]
        < prediction.interval[1]
    )
    assert law.predict(params=1e9, tokens=2e10) == prediction
    with pytest.raises(UserError, match="takes params, tokens"):
        law.predict(params=1e9)


@pytest.mark.parametrize(("fixed", "unknowns"), [((), 5), (("E", "beta"), 3)])
@pytest.mark.parametrize("residual", ["log", "raw"])
def test_a_new_runs_scatter_is_that_of_the_residuals_per_degree_of_freedom(
    residual: str, fixed: tuple[str, ...], unknowns: int
) -> None:
    """Eight runs, half of them 0.1 below the law, half on it, and a law that all resamples agree on."""
    law = Chinchilla(2.0, 400.0, 1000.0, 0.3, 0.3)
    samples = Chinchilla(*(np.full(100, value) for value in law.values().values()))
    residuals = {"residual": np.array([0.1, 0.0] * 4)}
    fit = LossLaw(law, samples, "huber", 1e-3, residual, 0.0, residuals, fixed=fixed)
    prediction = fit.predict(params=1e9, tokens=2e10)
    below = 0.1 * (8 / (8 - unknowns)) ** 0.5
    loss = 2.0 + 400.0 / 1e9**0.3 + 1000.0 / 2e10**0.3
    lowest = loss * np.exp(-below) if residual == "log" else loss - below
    assert prediction.law_interval == pytest.approx((loss, loss), rel=1e-12)
    assert prediction.interval == pytest.approx((lowest, loss), rel=1e-12)


def three_resamples(residual: str = "log") -> LossLaw:
    """A fit of four runs with E fixed; its resamples have A = 300, 400 and 500 and share the rest."""
    law = Chinchilla(2.0, 400.0, 1000.0, 0.3, 0.3)
    columns = [np.full(3, value) for value in law.values().values()]
    samples = Chinchilla(columns[0], np.array([300.0, 400.0, 500.0]), *columns[2:])
    residuals = {"residual": np.array([0.1, -0.1, 0.1, -0.1])}
    return LossLaw(law, samples, "huber", 1e-3, residual, 0.125, residuals, fixed=("E",), at=(6e20,))


@pytest.mark.parametrize(("residual", "quantity"), [("log", "ln L"), ("raw", "L")])
def test_the_text_states_objective_errors_and_what_was_fixed(residual: str, quantity: str) -> None:
    """The standard error of 300, 400 and 500 is 100; the middle 80 % of them reach from 320 to 480."""
    lines = [line.strip() for line in str(three_resamples(residual)).splitlines()]
    assert lines[0] == "Approach 3: L = E + A/N^alpha + B/D^beta through 4 runs"
    assert lines[1] == f"sum of Huber (delta = 0.001) on {quantity}: 0.125; rms residual 0.1000"
    assert lines[2].split() == ["E", "=", "2", "(fixed)"]
    words = "A = 400 s.e. 100 80 % [320.00, 480.00] 95 % [305.00, 495.00]"
    assert " ".join(lines[3].split()) == words
    assert " ".join(lines[7].split()).startswith("a (N* ~ C^a) = 0.5 s.e.")


def test_the_numbers_on_disk_are_those_of_the_text() -> None:
    stated = three_resamples().to_json()
    assert stated["standard_errors"]["A"] == pytest.approx(100) and stated["standard_errors"]["a"] == 0
    assert stated["intervals"]["0.8"]["A"] == pytest.approx([320, 480])
    assert stated["intervals"]["0.95"]["A"] == pytest.approx([305, 495])
    (optimum,) = stated["allocations"]
    params = (0.4 * 1e20**0.3) ** (1 / 0.6)  # A/N^alpha = B/D^beta where alpha = beta, and N D = 1e20
    assert optimum["params"] == pytest.approx(params) and optimum["tokens"] == pytest.approx(1e20 / params)
    assert (stated["resamples"], stated["n_runs"], stated["fixed"]) == (3, 4, ["E"])


def test_a_fit_without_resamples_predicts_without_an_interval() -> None:
    fit = replace(three_resamples(), samples=None)
    prediction = fit.predict(params=1e9, tokens=2e10)
    assert fit.resamples == 0
    assert prediction.loss_nats == pytest.approx(2 + 400 / 1e9**0.3 + 1000 / 2e10**0.3)
    assert np.isnan([*prediction.interval, *prediction.law_interval]).all()
    assert fit.to_json()["intervals"] == {"0.8": {}, "0.95": {}}


def test_intervals_of_any_quantity(law: LossLaw) -> None:
    by_name, by_function = law.interval("alpha"), law.interval(lambda fit: fit.law.alpha)
    assert by_name == by_function
    looped = law.interval(lambda fit: float(fit.optimum(1e21).params))  # float() of an array: one by one
    assert looped == pytest.approx(law.interval(lambda fit: fit.optimum(1e21).params))
    assert law.interval("alpha", 0.8)[0] > by_name[0]
    with pytest.raises(UserError, match="no quantity 'gamma'"):
        law.interval("gamma")


def test_json_and_back(law: LossLaw) -> None:
    text = json.dumps(law.to_json(samples=True), allow_nan=False)
    again = LossLaw.from_json(json.loads(text))
    assert again.to_json(samples=True) == law.to_json(samples=True)
    assert again.interval("a") == law.interval("a")
    assert str(again) == str(law)
    bare = LossLaw.from_json(law.to_json())
    assert bare.optimum(1e21) == law.optimum(1e21)
    with pytest.raises(UserError, match="no resamples"):
        bare.interval("a")


def test_the_text_reads_like_a_result(law: LossLaw) -> None:
    text = str(law)
    for part in (
        "L = E + A/N^alpha + B/D^beta through 240 runs",
        "a (N* ~ C^a)",
        "C = 6 N D",
        "5 left out",
        "extrapolation",
    ):
        assert part in text


def test_checks_that_fit_again(law: LossLaw) -> None:
    sentences = named(law)
    assert "row " in sentences["influence"]
    assert "misses them by" in sentences["largest budget left out"]
    assert "0.5126 by lad" in sentences["loss function"]
    assert sentences["delta"].startswith("a = 0.5139 at delta = 0.001")


def test_exact_flops_become_a_named_compute_model() -> None:
    table = isoflop_table()
    table["flops"] = 21.0 * table["params"] ** 0.94 * table["tokens"]
    fit = fits.loss_law(table, resamples=0, check=False)
    assert (fit.compute.k, fit.compute.p) == pytest.approx((21.0, 0.94), rel=1e-9)
    at = fit.optimum(1e19)
    searched = CHINCHILLA_REFIT._search(1e19, fit.compute)
    assert at.params == pytest.approx(searched.params, rel=1e-4)
    assert "regressed" in str(fit)
    assert fits.loss_law(isoflop_table(), resamples=0, check=False).compute == SIX_ND


def test_trunks_are_drawn_whole() -> None:
    table = isoflop_table(0.003)
    alone = fits.loss_law(table, resamples=200, check=False)
    table["trunk"] = table["params"].rank(method="dense").astype(int) // 3
    fit = fits.loss_law(table, resamples=200, check=False)
    assert any("whole trunks" in note for note in fit.notes)
    assert fit.interval("a") != alone.interval("a")
    assert fits.loss_law(table, resamples=20, clusters="run", strata="budget", check=False).resamples == 20
    with pytest.raises(UserError, match="no column 'trnk'"):
        fits.loss_law(table, clusters="trnk")


def test_fixed_parameters_stay() -> None:
    fit = fits.loss_law(isoflop_table(0.002), fixed={"E": CHINCHILLA_REFIT.E}, resamples=40, check=False)
    assert fit.law.E == CHINCHILLA_REFIT.E
    assert "(fixed)" in str(fit)
    free = fits.loss_law(isoflop_table(0.002), resamples=40, check=False)
    assert fit.objective > free.objective
    with pytest.raises(UserError, match="no parameter 'e'"):
        fits.loss_law(isoflop_table(), fixed={"e": 1.0})


def test_unknown_options_are_named() -> None:
    with pytest.raises(UserError, match="did you mean 'huber'"):
        fits.loss_law(isoflop_table(), loss="hubber")
    with pytest.raises(UserError, match="residual='linear'"):
        fits.loss_law(isoflop_table(), residual="linear")
    with pytest.raises(UserError, match="must be positive"):
        fits.loss_law(isoflop_table(), delta=0.0)
    with pytest.raises(UserError, match="no approach is called '4'"):
        fits.fit(isoflop_table(), ["4"])
