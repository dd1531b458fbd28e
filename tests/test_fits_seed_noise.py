"""The bootstrap over the noise of the losses: what it draws, how wide it is, how often it covers the truth."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from lmscale.commands import fit as fit_verb
from lmscale.commands.fit import FitArgs
from lmscale.core.errors import UserError
from lmscale.study import fits
from lmscale.study.fits.results.loss_law import LossLaw
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.fits.runs import usable
from lmscale.study.fits.solvers.chinchilla_grid import grid_starts
from lmscale.study.fits.solvers.chinchilla_points import LAD_DELTA, ChinchillaPoints
from lmscale.study.fits.solvers.minimise import minimise, minimise_many
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.fits.uncertainty import seed_noise
from lmscale.study.fits.uncertainty.simulate import isoflop_design, simulate
from lmscale.study.laws import CHINCHILLA_REFIT, Chinchilla, Kaplan

POINTS = isoflop_design(CHINCHILLA_REFIT, (1e17, 1e18, 1e19))
QUANTITIES = ("E", "alpha", "beta", "a")


def sweep(noise: float = 0.003, seeds: int = 2, seed: int = 0) -> pd.DataFrame:
    """Losses scatter by `noise` nats; rows of one point are one after the other in `seed`."""
    table = simulate(CHINCHILLA_REFIT, POINTS * seeds, 0.0, np.random.default_rng(0))
    table["loss_nats"] += noise * np.random.default_rng(seed).standard_normal(len(table))
    return table.assign(seed=np.repeat(np.arange(seeds), len(POINTS)))


def width(fit: LossLaw, quantity: str) -> float:
    low, high = fit.interval(quantity)
    return high - low


def named(fit: LossLaw) -> dict[str, str]:
    return {status.name: status.sentence for status in fit.status}


def problem_of(table: pd.DataFrame, loss: str = "huber") -> Problem:
    inputs = tuple(table[name].to_numpy() for name in ("params", "tokens"))
    return Problem(Chinchilla, inputs, table["loss_nats"].to_numpy(), loss)


@pytest.mark.parametrize(("fixed", "unknowns"), [({}, 5), ({"E": CHINCHILLA_REFIT.E}, 4)])
def test_the_misfit_is_the_scatter_per_degree_of_freedom(fixed: dict[str, float], unknowns: int) -> None:
    """Losses 0.01 nats off the law throughout: a normal scatter with that median, widened by sqrt(n / (n - p)).

    Twice one run's noise is where another law is suspected.
    """
    table = simulate(CHINCHILLA_REFIT, POINTS[:8], 0.0, np.random.default_rng(0))
    table["loss_nats"] += np.tile([0.01, -0.01], 4)
    problem = dataclasses.replace(problem_of(table), fixed=fixed)
    values = np.array(list(CHINCHILLA_REFIT.values().values()))
    scatter = 0.01 / stats.norm.ppf(0.75) * (8 / (8 - unknowns)) ** 0.5
    for factor, named in ((0.99, ["misfit"]), (1.01, [])):
        noise = RunNoise(factor * scatter / 2, "given", None)
        _, statuses = seed_noise.draw(problem, values, noise, 10, seed=0)
        assert [status.name for status in statuses] == ["kind of bootstrap", *named]
        assert all(f"by {scatter:.3g} nats" in status.sentence for status in statuses if status.name == "misfit")


@pytest.mark.long
@pytest.mark.parametrize(
    ("form", "loss"),
    [*((Chinchilla, loss) for loss in ("huber", "lad", "squared")), (Kaplan, "huber"), (Kaplan, "squared")],
)
def test_problems_with_targets_of_their_own_are_each_solved(form: type, loss: str) -> None:
    """Both solvers: many targets at once end where each ends alone."""
    law = {Chinchilla: CHINCHILLA_REFIT, Kaplan: Kaplan(5e13, 2e13, 0.08, 0.1)}[form]
    one = dataclasses.replace(problem_of(sweep()), form=form, loss=loss)
    targets = law.loss(*one.inputs)[:, None] * np.exp(0.01 * np.random.default_rng(0).standard_normal((one.runs, 4)))
    values, _ = minimise_many(one.using(target_n=targets), np.ones_like(targets), np.array(list(law.values().values())))
    rounded_corners = (
        one.runs * LAD_DELTA / 2 if loss == "lad" else 0.0
    )  # most that they can cost where many are solved
    for index in range(4):
        alone = one.using(target_n=targets[:, index])
        assert alone.objective(values[:, index]) <= minimise(alone).objective * (1 + 1e-9) + rounded_corners


@pytest.mark.parametrize("log_residual", [True, False])
def test_starts_are_those_of_each_problems_own_losses(log_residual: bool) -> None:
    table = sweep()
    columns = [table[name].to_numpy() for name in ("params", "tokens")]
    losses = table["loss_nats"].to_numpy()[:, None] * np.array([1.0, 0.7, 1.4])
    points = ChinchillaPoints.of(*columns, losses, log_residual=log_residual)
    weights = np.random.default_rng(0).exponential(size=losses.shape)
    together = grid_starts(points, weights, 12, 2)
    for index in range(3):
        alone = ChinchillaPoints.of(*columns, losses[:, index], log_residual=log_residual)
        expected = grid_starts(alone, weights[:, [index]], 12, 2)[:, :, 0]
        assert together[:, :, index] == pytest.approx(expected, rel=1e-9)


def test_the_noise_is_that_of_the_seeds() -> None:
    noise = seed_noise.estimate(usable(sweep(0.004, seeds=12)), ("params", "tokens"), "loss_nats")
    assert noise.freedom == 11 * len(POINTS)
    assert noise.sd == pytest.approx(0.004, rel=3 / np.sqrt(2 * noise.freedom))
    by_hand = sweep(0.004).groupby(["params", "tokens"])["loss_nats"].var(ddof=1)
    pooled = seed_noise.estimate(usable(sweep(0.004)), ("params", "tokens"), "loss_nats")
    assert pooled.sd == pytest.approx(np.sqrt(by_hand.mean()), rel=1e-12)


def test_what_is_no_seed_is_not_taken_for_one() -> None:
    """Runs at another learning rate, or of one seed twice, tell nothing of the noise."""
    table = sweep(0.004)
    for change in ({"learning_rate": table["seed"] + 1.0}, {"seed": 0}, {"batch_tokens": table["seed"] + 1}):
        with pytest.raises(UserError, match="leave 0 degrees of freedom; 3 are needed"):
            fits.loss_law(table.assign(**change), bootstrap="noise", rates="all", resamples=5)
    few = table.iloc[: len(POINTS) + 2]
    with pytest.raises(UserError, match="leave 2 degrees of freedom"):
        fits.loss_law(few, bootstrap="noise", resamples=5)
    assert fits.loss_law(few, bootstrap="noise", noise_nats=0.004, resamples=5, check=False).resamples == 5
    same = table.assign(loss_nats=[*table["loss_nats"][: len(POINTS)]] * 2)
    with pytest.raises(UserError, match="same loss to the last digit"):
        fits.loss_law(same, bootstrap="noise", resamples=5)


@pytest.mark.long
def test_drawn_losses_have_the_noise_about_the_law() -> None:
    problem = problem_of(sweep())
    values = np.array(list(CHINCHILLA_REFIT.values().values()))
    clusters = np.repeat(np.arange(6), 7)
    targets, _ = seed_noise.draw(
        problem, values, RunNoise(0.01, "given", None), 20000, seed=0, shared=0.4, clusters_n=clusters
    )
    gap = targets - CHINCHILLA_REFIT.loss(*problem.inputs)[:, None]
    assert gap.mean(axis=1) == pytest.approx(0, abs=4e-4)
    assert gap.std(axis=1) == pytest.approx(0.01, rel=0.03)
    together = np.corrcoef(gap)
    assert together[0, 1:7] == pytest.approx(0.4, abs=0.03)
    assert together[0, 7:] == pytest.approx(0, abs=0.03)
    uncertain, _ = seed_noise.draw(problem, values, RunNoise(0.01, "seeds", 5), 20000, seed=0)
    gap = uncertain - CHINCHILLA_REFIT.loss(*problem.inputs)[:, None]
    assert gap.std() == pytest.approx(0.01 * np.sqrt(5 / 3), rel=0.05)  # Student's t of 5 degrees of freedom


@pytest.mark.long
def test_intervals_grow_with_the_noise() -> None:
    narrow, wide = (
        fits.loss_law(sweep(), bootstrap="noise", noise_nats=noise, resamples=400, check=False)
        for noise in (0.001, 0.003)
    )
    assert narrow.law == wide.law
    for name in QUANTITIES:
        assert width(wide, name) / width(narrow, name) == pytest.approx(3, rel=0.15)


@pytest.mark.long
@pytest.mark.parametrize(("loss", "within"), [("squared", 0.1), ("huber", 0.2)])
def test_it_agrees_with_the_bootstrap_of_runs_where_runs_are_many(loss: str, within: float) -> None:
    """420 runs that scatter about the law by one noise, 20 seeds a point: standard errors within 10 % by squares, 20 %
    by a Huber loss near absolute deviations, whose bootstrap over runs is itself that uncertain (`bootstrap.py`)."""
    table = sweep(0.01, seeds=20)
    by_noise, by_runs = (
        fits.loss_law(table, loss=loss, bootstrap=bootstrap, resamples=300, check=False)
        for bootstrap in ("noise", "runs")
    )
    for name in QUANTITIES:
        assert np.std(by_noise.draws(name)) / np.std(by_runs.draws(name)) == pytest.approx(1, abs=within)


@pytest.mark.long
@pytest.mark.parametrize("noise_nats", [0.01, None], ids=["given", "from seeds"])
def test_intervals_cover_the_truth(noise_nats: float | None) -> None:
    """In 50 sweeps; in 200 the same intervals covered it in 93-97 %, with the given noise or that of the seeds."""
    truth = {**CHINCHILLA_REFIT.values(), "a": CHINCHILLA_REFIT.exponents()["params"]}
    covered = []
    for seed in range(50):
        options = {"bootstrap": "noise", "noise_nats": noise_nats, "resamples": 300, "at": (), "check": False}
        fit = fits.loss_law(sweep(0.01, seed=seed), loss="squared", seed=seed, **options)
        limits = {name: fit.interval(name) for name in QUANTITIES}
        covered.append([low <= truth[name] <= high for name, (low, high) in limits.items()])
    assert np.mean(covered, axis=0) == pytest.approx(0.95 * np.ones(4), abs=0.07)  # two binomial standard errors


@pytest.mark.long
def test_noise_shared_by_a_trunk_widens_what_its_runs_say_together() -> None:
    """A whole trunk that lies high moves E; drawn run by run it would average out."""
    table = sweep(seeds=1).assign(trunk="only one")
    alone = fits.loss_law(table, bootstrap="noise", noise_nats=0.003, resamples=300, check=False)
    shared = fits.loss_law(table, bootstrap="noise", noise_nats=0.003, shared_noise=0.8, resamples=300, check=False)
    assert "`shared_noise`" in named(alone)["shared noise"]
    assert "shared noise" not in named(shared)
    assert "80% of its variance" in named(shared)["kind of bootstrap"]
    assert shared.interval("a") != alone.interval("a")
    assert width(shared, "a") < 0.7 * width(alone, "a")  # a level common to all runs leaves the exponents alone


def test_runs_that_miss_the_law_by_more_than_the_noise_have_a_status() -> None:
    sentences = named(fits.loss_law(sweep(0.01), bootstrap="noise", noise_nats=0.002, resamples=20, check=False))
    assert "times one run's noise" in sentences["misfit"]
    assert "misfit" not in named(fits.loss_law(sweep(0.01), bootstrap="noise", resamples=20, check=False))


def test_the_fit_says_which_bootstrap_made_its_intervals(tmp_path: Path) -> None:
    fit = fits.loss_law(sweep(), bootstrap="noise", resamples=20, check=False)
    value = json.loads(json.dumps(fit.to_json(samples=True), allow_nan=False))
    assert (value["bootstrap"], value["noise_freedom"], value["shared_noise"]) == ("noise", len(POINTS), 0.0)
    assert "21 points" in value["noise_source"]
    again = LossLaw.from_json(value)
    assert again.noise == fit.noise
    assert again.to_json(samples=True) == fit.to_json(samples=True)
    plain = fits.loss_law(sweep(), resamples=20, check=False).to_json()
    assert plain["noise_nats"] is None and set(plain) == set(fit.to_json())
    sweep().to_csv(tmp_path / "t.csv", index=False)
    args = FitArgs(
        str(tmp_path / "t.csv"),
        bootstrap="noise",
        noise_nats=0.004,
        resamples=20,
        check=False,
        json=tmp_path / "f.json",
    )
    fit_verb.main(args, Console())
    two, three = (f for f in json.loads((tmp_path / "f.json").read_text())["fits"] if f["approach"] in "23")
    assert two["noise_nats"] == three["noise_nats"] == 0.004
    assert (three["bootstrap"], three["noise_source"]) == ("noise", "given")


def test_noise_that_is_none_is_refused() -> None:
    table = sweep()
    for options, sentence in (
        ({"noise_nats": 0.0}, "must be positive"),
        ({"noise_nats": 50.0}, "as large as the losses"),
        ({"shared_noise": 1.5}, "a share of the variance"),
        ({"shared_noise": 0.5}, "no runs of the table share a trunk"),
        ({"strata": "budget"}, "draws no runs"),
    ):
        with pytest.raises(UserError, match=sentence):
            fits.loss_law(table, bootstrap="noise", resamples=20, **options)
    with pytest.raises(UserError, match="draws no noise"):
        fits.loss_law(table, shared_noise=0.5)


@pytest.mark.parametrize(
    "column", ["tokens", "unique_tokens", "flops_budget", "batch_tokens", "schedule", "source", "peak_lr"]
)
def test_runs_that_differ_in_more_than_the_seed_are_no_seeds(column: str) -> None:
    """Whatever the law reads: of a law of N alone, runs of other D are none of each other."""
    table = sweep(0.004)
    twin = table["seed"] == 1
    table[column] = np.where(twin, "b", "a") if column in ("schedule", "source") else np.where(twin, 2e9, 1e9)
    rows = dataclasses.replace(usable(sweep(0.004)), table=table)
    with pytest.raises(UserError, match="leave 0 degrees of freedom"):
        seed_noise.estimate(rows, ("params",), "loss_nats")
    sizes = dataclasses.replace(rows, table=sweep(0.004).assign(params=np.where(twin, 2e9, 1e9)))
    with pytest.raises(UserError, match="leave 0 degrees of freedom"):
        seed_noise.estimate(sizes, ("tokens",), "loss_nats")
    other = dataclasses.replace(rows, table=sweep(0.004).assign(annealing_sum=np.where(twin, 2.0, 1.0)))
    assert seed_noise.estimate(other, ("params", "tokens"), "loss_nats").freedom == len(POINTS)
    with pytest.raises(UserError, match="leave 0 degrees of freedom"):
        seed_noise.estimate(other, ("params", "annealing_sum"), "loss_nats")


def test_three_degrees_of_freedom_are_enough_and_rows_without_a_seed_are_runs() -> None:
    few = usable(sweep(0.004).iloc[: len(POINTS) + 3])
    noise = seed_noise.estimate(few, ("params", "tokens"), "loss_nats")
    assert (noise.freedom, noise.source) == (3, "the seeds of 3 points, 3 degrees of freedom")
    for seeds in (np.nan, np.where(np.arange(2 * len(POINTS)) < 5, np.nan, 0.0)):
        unknown = usable(sweep(0.004).assign(seed=seeds))
        assert seed_noise.estimate(unknown, ("params", "tokens"), "loss_nats").freedom == len(POINTS)
    with pytest.raises(UserError, match="must be positive"):
        seed_noise.check(float("inf"), 0.0, None, False)


def test_resamples_with_a_loss_below_zero_are_left_out_while_they_are_the_fewer() -> None:
    problem = problem_of(sweep(seeds=1).iloc[:6])
    values = np.array(list(CHINCHILLA_REFIT.values().values()))
    fitted = CHINCHILLA_REFIT.loss(*problem.inputs)
    for sd, severe in ((1.5, False), (4.0, True)):
        z = np.random.default_rng(0).standard_normal((6, 400))
        positive = (fitted[:, None] + sd * z > 0).all(axis=0)
        assert (positive.sum() < 200) == severe and positive.sum() > 30
        noise = RunNoise(sd, "given", None)
        if severe:
            with pytest.raises(UserError, match=f"{(~positive).sum()} of 400 resamples have a loss that is not posit"):
                seed_noise.draw(problem, values, noise, 400, seed=0)
            continue
        targets, statuses = seed_noise.draw(problem, values, noise, 400, seed=0)
        assert targets == pytest.approx((fitted[:, None] + sd * z)[:, positive])
        (thin,) = (status for status in statuses if status.name == "thin resamples")
        assert thin.severity == "warning" and f"{(~positive).sum()} of 400" in thin.sentence
