"""Two bootstraps: what each draws, when each is taken, and what a fit says of it. Coverage: test_fits_coverage.py."""

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study import fits
from lmscale.study.fits.results.loss_law import LossLaw
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.fits.uncertainty import bootstrap
from lmscale.study.fits.uncertainty.bootstrap import exponential_weights, resample_counts, share_inside
from lmscale.study.fits.uncertainty.simulate import grid_design, isoflop_design, simulate
from lmscale.study.laws import CHINCHILLA_REFIT, Chinchilla
from lmscale.study.tables import read_table

BUDGETS = (1e17, 1e18, 1e19)


def sweep(noise: float = 0.01, sizes: int = 7) -> pd.DataFrame:
    points = isoflop_design(CHINCHILLA_REFIT, BUDGETS, sizes)
    return simulate(CHINCHILLA_REFIT, points, noise, np.random.default_rng(0))


def named(fit: LossLaw) -> dict[str, str]:
    return {status.name: status.sentence for status in fit.status}


def test_strata_keep_their_size_and_clusters_stay_together() -> None:
    labels = ["a"] * 3 + ["b"] * 5
    counts = resample_counts(np.random.default_rng(0), 8, 50, strata=labels)
    assert (counts[:3].sum(axis=0) == 3).all()
    clustered = resample_counts(np.random.default_rng(0), 8, 50, clusters=labels)
    assert (clustered[0] == clustered[2]).all()
    assert set(clustered.sum(axis=0)) <= {6, 8, 10}


def test_exponential_weights_have_mean_and_variance_one() -> None:
    weights = exponential_weights(np.random.default_rng(0), 40, 20000)
    assert weights.sum(axis=0) == pytest.approx(40)
    assert weights.min() > 0
    assert weights.mean(axis=1) == pytest.approx(1, abs=0.04)
    assert weights.var(axis=1) == pytest.approx(39 / 41, abs=0.08)  # of a Dirichlet draw: (n - 1) / (n + 1)
    labels = ["a"] * 3 + ["b"] * 5
    assert exponential_weights(np.random.default_rng(0), 8, 9, strata=labels)[:3].sum(axis=0) == pytest.approx(3)
    together = exponential_weights(np.random.default_rng(0), 8, 9, clusters=labels)
    assert (together[0] == together[2]).all()
    assert (together[0] != together[3]).all()


@pytest.mark.parametrize(
    ("loss", "noise", "taken"),
    [("huber", 0.01, "weights"), ("huber", 0.0003, "runs"), ("lad", 0.01, "weights"), ("squared", 0.01, "runs")],
)
def test_few_runs_near_absolute_deviations_are_weighted(loss: str, noise: float, taken: str) -> None:
    fit = fits.loss_law(sweep(noise), loss=loss, resamples=20, check=False)
    assert fit.bootstrap == taken
    assert LossLaw.from_json(fit.to_json()).bootstrap == taken
    if taken == "weights":
        assert "exponential weight" in named(fit)["kind of bootstrap"]


@pytest.mark.parametrize(
    ("loss", "fixed", "share"),
    [
        ("huber", {}, (7 - 5) / (11 - 5)),
        ("huber", {"E": 1.8, "A": 400.0}, (7 - 3) / (11 - 3)),
        ("lad", {}, 0.0),
        ("squared", {}, 1.0),
    ],
)
def test_residuals_that_the_law_has_used_up_do_not_count_as_inside_delta(
    loss: str, fixed: dict[str, float], share: float
) -> None:
    """Seven of 11 residuals lie within delta, 4 on its edge; a law goes through as many runs as it has unknowns."""
    params, tokens = np.full(11, 1e8), np.full(11, 2e9)
    residuals = np.array([0.25] * 4 + [-0.125] * 3 + [0.5, -0.5, 1.0, -1.0])
    law = Chinchilla(2.0, 1e-6, 1e-6, 5.0, 5.0)  # exactly 2 nats in float64, so that the residuals are as written
    problem = Problem(Chinchilla, (params, tokens), 2.0 - residuals, loss, delta=0.25, residual="raw", fixed=fixed)
    assert share_inside(problem, np.array(list(law.values().values()))) == pytest.approx(share)


def test_a_small_table_is_one_of_few_clusters_not_of_few_runs() -> None:
    """105 runs of 35 trunks are 35 independent ones; below 100 of those the runs are weighted."""
    table = sweep(sizes=35).assign(cell=[f"cell {index // 3}" for index in range(105)])
    alone, together = (fits.loss_law(table, resamples=5, clusters=clusters, check=False) for clusters in (None, "cell"))
    assert alone.bootstrap == "runs" and "kind of bootstrap" not in named(alone)
    assert together.bootstrap == "weights"
    assert "fewer than 100 independent runs" in named(together)["kind of bootstrap"]


@pytest.mark.parametrize(("runs", "bootstrap"), [(99, "weights"), (100, "runs")])
def test_from_a_hundred_runs_on_they_are_drawn_whole(runs: int, bootstrap: str) -> None:
    assert fits.loss_law(sweep(sizes=34)[:runs], resamples=5, check=False).bootstrap == bootstrap


def test_one_cluster_is_no_bootstrap_and_two_are() -> None:
    table = sweep().assign(one="same", two=["same", *["other"] * 20])
    with pytest.raises(UserError, match="all runs have one value of 'one'"):
        fits.loss_law(table, resamples=5, clusters="one", check=False)
    assert fits.loss_law(table, resamples=5, clusters="two", check=False).resamples == 5


@pytest.mark.parametrize(("cells", "small"), [(10, True), (11, False)])
def test_a_table_of_two_clusters_per_parameter_is_small(cells: int, small: bool) -> None:
    table = sweep().assign(cell=[f"cell {index % cells}" for index in range(21)])
    sentences = named(fits.loss_law(table, resamples=5, clusters="cell", check=False))
    assert ("small table" in sentences) == small
    if small:
        assert "10 independent runs for 5 parameters" in sentences["small table"]


@pytest.mark.parametrize(
    ("bootstrap", "shared", "grouped"),
    [("runs", 0.0, True), ("weights", 0.0, True), ("noise", 0.0, False), ("noise", 0.5, True)],
)
def test_a_fit_states_the_groups_of_its_bootstrap(bootstrap: str, shared: float, grouped: bool) -> None:
    how = {"noise_nats": 0.01, "shared_noise": shared} if bootstrap == "noise" else {"strata": "budget"}
    table = sweep().assign(cell=[f"cell {index // 3}" for index in range(21)])
    fit = fits.loss_law(table, resamples=20, bootstrap=bootstrap, clusters="cell", check=False, **how)
    again = LossLaw.from_json(fit.to_json())
    assert again.clusters == fit.clusters == "cell" * grouped
    assert again.strata == fit.strata == "budget" * (bootstrap != "noise")
    assert fits.loss_law(table, resamples=0, clusters="cell", check=False).clusters == ""


def test_many_runs_are_drawn_whole_as_published() -> None:
    fit = fits.loss_law(read_table("chinchilla"), resamples=10, check=False)
    assert fit.bootstrap == "runs"
    assert "kind of bootstrap" not in named(fit)


@pytest.mark.long
def test_the_two_agree_for_many_runs() -> None:
    table = read_table("chinchilla")
    runs, weights = (fits.loss_law(table, resamples=1000, bootstrap=b, check=False) for b in ("runs", "weights"))
    for name in ("E", "alpha", "beta", "a"):
        (low, high), (other_low, other_high) = runs.interval(name), weights.interval(name)
        assert (other_high - other_low) / (high - low) == pytest.approx(1, abs=0.12)


def test_weights_are_narrower_for_few_runs() -> None:
    runs, weights = (fits.loss_law(sweep(), resamples=400, bootstrap=b, check=False) for b in ("runs", "weights"))
    widths = [np.subtract(*fit.interval("alpha")[::-1]) for fit in (runs, weights)]
    assert widths[1] < 0.95 * widths[0]


def test_small_tables_are_named() -> None:
    points = grid_design(np.geomspace(1e7, 1e8, 3), np.geomspace(1e9, 1e10, 2))
    table = simulate(CHINCHILLA_REFIT, points, 0.001, np.random.default_rng(0))
    sentences = named(fits.loss_law(table, resamples=50, bootstrap="runs", check=False))
    assert "fewer than 5 distinct points" in sentences["thin resamples"]
    assert "6 independent runs for 5 parameters" in sentences["small table"]
    few = named(fits.loss_law(sweep(sizes=5), loss="squared", resamples=20, check=False))
    assert "too wide" in few["kind of bootstrap"]
    assert "small table" not in few


def test_runs_without_a_trunk_are_on_their_own() -> None:
    table = sweep()
    alone = fits.loss_law(table, resamples=50, check=False)
    table["trunk"] = [None] * len(table)
    assert fits.loss_law(table, resamples=50, check=False).interval("a") == alone.interval("a")
    table["trunk"] = ["one", "one", *[None] * (len(table) - 2)]
    fit = fits.loss_law(table, resamples=50, check=False)
    assert any("whole trunks" in note for note in fit.notes)
    assert fit.interval("a") != alone.interval("a")


def test_unknown_bootstraps_are_named() -> None:
    with pytest.raises(UserError, match="did you mean 'weights'"):
        fits.loss_law(sweep(), bootstrap="weigths")


def six_runs(noise: float = 0.003) -> pd.DataFrame:
    """A 3 x 2 grid: one run more than the law has parameters, so that most resamples fix no law."""
    points = grid_design([1e7, 3e7, 1e8], [1e8, 1e9])
    return simulate(CHINCHILLA_REFIT, points, noise, np.random.default_rng(0))


@pytest.mark.parametrize("bootstrap", ["runs", "weights"])
def test_no_interval_is_stated_where_few_resamples_converge(bootstrap: str) -> None:
    fit = fits.loss_law(six_runs(), resamples=100, check=False, bootstrap=bootstrap)
    status = next(one for one in fit.status if one.name == "no intervals")
    assert status.severity == "warning" and "of 100 resamples converged, fewer than 80%" in status.sentence
    assert fit.samples is None and fit.resamples == 0
    assert fit.to_json()["intervals"] == {"0.8": {}, "0.95": {}}
    assert "%" not in "".join(line for line in str(fit).splitlines() if " E = " in line)
    with pytest.raises(UserError, match=r"this fit has no resamples: .* fewer than 80%"):
        fit.interval("a")


def test_resamples_that_rounding_stops_at_their_minimum_have_converged() -> None:
    """Losses with a noise of .001 nats leave objectives near 1e-6, whose last fall no line search can see."""
    table = simulate(CHINCHILLA_REFIT, isoflop_design(CHINCHILLA_REFIT, (1e17, 1e18, 1e19)), 0.003,
                     np.random.default_rng(1))  # fmt: skip
    fit = fits.loss_law(table, resamples=200, check=False, bootstrap="noise", noise_nats=0.001)
    (sentence,) = (one.sentence for one in fit.status if one.name == "bootstrap")
    assert int(sentence.split()[0]) >= 196


def test_no_interval_of_approach_1_where_few_resamples_have_an_envelope() -> None:
    """Two in three resamples of three runs of two sizes hold both sizes."""
    table = pd.DataFrame({"params": [1e7, 1e7, 1e8], "tokens": [1e9, 4e9, 2e9], "flops": [6e16, 2.4e17, 1.2e18],
                          "loss_nats": [4.0, 3.7, 3.3]})  # fmt: skip
    fit = fits.frontier(table, resamples=200, check=False)
    assert fit.samples is None
    assert "have an envelope of two sizes, fewer than 80%" in {s.name: s for s in fit.status}["no intervals"].sentence


def test_no_interval_of_approach_2_without_a_noise() -> None:
    """Three sizes per budget leave no degree of freedom: the draws would all be one, and the interval a point."""
    design = isoflop_design(CHINCHILLA_REFIT, (1e17, 1e18, 1e19), sizes=3)
    table = simulate(CHINCHILLA_REFIT, design, 0.003, np.random.default_rng(1))
    fit = fits.isoflop(table, valley="parabola", resamples=100)
    assert fit.resamples == 0 and "0 nats" in {s.name: s for s in fit.status}["no intervals"].sentence
    assert fits.isoflop(table, valley="parabola", resamples=100, noise_nats=0.003).resamples == 100


def test_resamples_drawn_in_parts_are_those_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fits.loss_law(sweep(), resamples=50, bootstrap="runs", check=False)
    monkeypatch.setattr(bootstrap, "PART", 21 * 8)
    parts = fits.loss_law(sweep(), resamples=50, bootstrap="runs", check=False)
    assert whole.samples is not None and parts.samples is not None
    for name, values in whole.samples.values().items():
        assert parts.samples.values()[name] == pytest.approx(values, rel=1e-9)
