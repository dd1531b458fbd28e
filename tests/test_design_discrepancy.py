"""Designs for a law that may be wrong: information with a discrepancy, and runs that are chosen against it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.plans import output_of, screen

from lmscale.cli import parse
from lmscale.commands.plan.arguments import PlanArgs
from lmscale.commands.plan.prior import prior_of
from lmscale.commands.plan.verb import main
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.study import fits
from lmscale.study.design import Candidates, Discrepancy, Prior, Runs, improve, information, jacobian
from lmscale.study.design.fisher import extended_slopes, fisher
from lmscale.study.design.spread import sds
from lmscale.study.fits.results.artefact import save
from lmscale.study.fits.uncertainty import discrepancy
from lmscale.study.fits.uncertainty.discrepancy import posterior
from lmscale.study.laws import CHINCHILLA_REFIT, Law
from lmscale.study.laws.discrepancy import coordinates, kernel

LAW = CHINCHILLA_REFIT
WRONG = Prior(LAW, "wrong", 0.01, discrepancy=Discrepancy(0.02, 3.0))


def crossed(sizes: int, ratios: int, largest: float = 1e9) -> Runs:
    params_n, ratio_n = (
        axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, largest, sizes), np.geomspace(3, 300, ratios))
    )
    return Runs(params_n, params_n * ratio_n)


def copies(law: Law, shape: tuple[int, ...]) -> Law:
    """The law with parameters of this shape."""
    values: dict[str, Any] = {name: np.full(shape, value) for name, value in law.values().items()}
    return type(law)(**values)


def covariance(a: Runs, b: Runs, prior: Prior = WRONG) -> np.ndarray:
    """The covariance of the discrepancies of the losses at two sets of runs (n, m), in nats squared."""
    assert prior.discrepancy is not None
    (x, y), law = (one.inputs(prior.law) for one in (a, b)), prior.law
    near = kernel(coordinates(law, x, x), coordinates(law, x, y), prior.discrepancy.length)
    return prior.discrepancy.size**2 * np.outer(law.loss(*x), law.loss(*y)) * near


def test_before_any_run_there_are_slopes_of_the_law_alone() -> None:
    for prior in (WRONG, replace(WRONG, discrepancy=None)):
        (slopes_nq,) = extended_slopes(prior, Runs())
        assert slopes_nq.shape == (0, len(LAW.PARAMETERS))


def test_a_belief_may_have_a_noise_and_a_discrepancy_of_its_own() -> None:
    runs, pool = crossed(3, 3, 1e8), crossed(6, 4, 1e10)
    candidates = Candidates.of({"params": pool.params_n, "tokens": pool.tokens_n}, 6 * pool.params_n * pool.tokens_n)
    target = Runs(np.array([1e11]), np.array([2e12]))
    exact = replace(WRONG, discrepancy=None)

    def chosen(prior: Prior, others: Sequence[Law | Prior]) -> list[int]:
        return [*improve(prior, runs, candidates, target, spend=1e22, most=6, others=others).indices]

    assert chosen(exact, [exact]) == chosen(exact, [LAW]) == chosen(exact, [])
    assert chosen(exact, [WRONG] * 50)[:4] == chosen(WRONG, [])[:4] != chosen(exact, [])[:4]


def test_information_counts_the_discrepancy_as_noise_that_neighbours_share() -> None:
    runs = crossed(5, 4)
    slopes = jacobian(LAW, runs)
    sigma = covariance(runs, runs) + WRONG.noise_nats**2 * np.eye(len(runs))
    known = slopes.T @ np.linalg.solve(sigma, slopes)
    assert fisher(WRONG, runs) == pytest.approx(known, rel=1e-3)
    louder = covariance(runs, runs) + (2 * WRONG.noise_nats) ** 2 * np.eye(len(runs))
    several = copies(LAW, (2, 1))
    both = fisher(replace(WRONG, law=several), runs, np.array([1.0, 2.0]))
    assert both[0] == pytest.approx(known, rel=1e-3)
    assert both[1] / 4 == pytest.approx(slopes.T @ np.linalg.solve(louder, slopes), rel=1e-3)


def test_the_predicted_error_of_a_loss_is_that_of_universal_kriging() -> None:
    """Rasmussen and Williams 2006, eq. 2.42, with the law's slopes as basis functions."""
    runs, target = crossed(5, 4), Runs(np.array([5e9, 1e10]), np.array([1e11, 1e12]))
    sigma, cross = covariance(runs, runs) + WRONG.noise_nats**2 * np.eye(len(runs)), covariance(runs, target)
    slopes, ahead = jacobian(LAW, runs), jacobian(LAW, target)
    rest = ahead - (np.linalg.solve(sigma, cross)).T @ slopes
    variance = np.diag(
        covariance(target, target) - cross.T @ np.linalg.solve(sigma, cross)
        + rest @ np.linalg.solve(slopes.T @ np.linalg.solve(sigma, slopes), rest.T)
    )  # fmt: skip
    sd = information(WRONG, runs).sd(target)
    assert sd == pytest.approx(np.sqrt(variance.mean()), rel=1e-3)
    exact = information(replace(WRONG, discrepancy=None), runs).sd(target)
    hardly = information(replace(WRONG, discrepancy=Discrepancy(1e-8)), runs).sd(target)
    assert sd is not None and exact is not None and sd > 1.5 * exact and hardly == pytest.approx(exact, rel=1e-6)


def test_every_law_of_a_prior_is_judged_with_its_discrepancy_and_noise() -> None:
    prior = replace(WRONG, draws=copies(LAW, (2,)), noises_r=np.array([0.01, 0.03]))
    runs = crossed(5, 4)
    first, second = sds(information(prior, runs), information(prior, runs).quantity("alpha"))
    for sd, noise in ((first, 0.01), (second, 0.03)):
        assert sd == pytest.approx(information(replace(WRONG, noise_nats=noise), runs).sd("alpha"), rel=1e-6)


def test_a_law_that_may_be_wrong_is_measured_near_its_target() -> None:
    runs, pool, target = crossed(4, 4, 1e8), crossed(15, 7), Runs(np.array([5e9]), np.array([1e11]))
    cost = 6 * pool.params_n * pool.tokens_n
    candidates = Candidates(pool.params_n, pool.tokens_n, cost)
    spend = 6 * 1e9 * 3e10
    exact, wrong = (
        improve(prior, runs, candidates, target, spend=spend, most=20)
        for prior in (replace(WRONG, discrepancy=None), WRONG)
    )
    assert wrong.sd_before is not None and wrong.sd_after is not None and wrong.sd_after < 0.9 * wrong.sd_before
    everything = information(WRONG, Runs(
        np.append(runs.params_n, exact.chosen.params_m), np.append(runs.tokens_n, exact.chosen.tokens_m)
    )).sd(target)  # fmt: skip
    assert everything is not None and wrong.sd_after < 0.95 * everything
    assert np.median(wrong.chosen.params_m) > 3 * np.median(exact.chosen.params_m)


def test_the_loss_at_an_optimum_changes_by_its_run_alone() -> None:
    known = information(Prior(), crossed(5, 4))
    by_function = known.sd(lambda law: law.optimum(1e22).loss_nats)
    assert known.sd(known.at_optimum(1e22)) == pytest.approx(by_function, rel=1e-6)


@pytest.mark.parametrize(("size", "length"), [(0.0, 6.0), (-1.0, 6.0), (np.nan, 6.0), (0.1, 0.0)])
def test_no_discrepancy_is_nothing_or_less(size: float, length: float) -> None:
    with pytest.raises(UserError, match=r"of a discrepancy is .*: give a number above 0, or no discrepancy"):
        Discrepancy(size, length)


def test_a_known_noise_and_start_enter_the_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prior mean of the parameters, and a scatter known from elsewhere where the residuals are too few to tell."""
    monkeypatch.setattr(discrepancy, "SIZES", np.array([1.0]))
    z, there = np.array([[0.0], [1.0], [2.0]]), np.array([[3.0]])
    slopes, far = (np.column_stack([np.ones(len(at)), at]) for at in (z, there))
    prior, centre, residual = np.array([1.0, 2.0]), np.array([0.5, -0.3]), np.array([0.01, -0.02, 0.01])
    found = posterior(
        residual, slopes, z, far, there, prior_q=prior, spread=1.0, noise=0.02, median=0.05, lengths=(3.0,),
        centre_q=centre,
    )  # fmt: skip
    near = 0.05**2 * kernel(z, z, 3.0) + (slopes * prior**2) @ slopes.T + 0.02**2 * np.eye(3)
    cross = 0.05**2 * kernel(there, z, 3.0) + (far * prior**2) @ slopes.T
    mean = far @ centre + cross @ np.linalg.solve(near, residual - slopes @ centre)
    assert found.mean_m == pytest.approx(mean, rel=1e-3, abs=1e-6) and found.size == 0.05


def test_a_scatter_known_from_elsewhere_counts_where_residuals_are_few() -> None:
    z = np.arange(12.0)[:, None]
    slopes, prior = np.column_stack([np.ones(12), z]), np.array([1.0, 1.0])
    blind, told = (
        posterior(np.zeros(12), slopes, z, slopes, z, prior_q=prior, spread=1.0, usual_noise=usual)
        for usual in ((0.0, 0.0), (0.02, 200.0))
    )
    assert blind.noise < 1e-5 and told.noise == pytest.approx(0.02, rel=0.05)


def test_the_scatter_is_judged_about_a_first_estimate_of_the_misfit() -> None:
    z = np.linspace(0, 20, 40)[:, None]
    misfit, slopes = 0.5 * np.sin(z[:, 0] / 4), np.ones((40, 1))
    residual = misfit + 1e-3 * np.random.default_rng(0).standard_normal(40)
    alone, about = (
        posterior(residual, slopes, z, slopes, z, prior_q=np.ones(1), spread=1.0, smooth_n=smooth)
        for smooth in (0.0, misfit)
    )
    assert 5e-4 < about.noise < 2e-3 and alone.noise > 0.05


def fitted(truth: Callable[[np.ndarray], np.ndarray], scale: float = 1.0, residual: str = "log") -> fits.LossLaw:
    """The fit of Chinchilla's form to losses that are `truth` of this form's, with a scatter of .1 %."""
    runs = crossed(6, 6)
    loss = scale * truth(LAW.loss(runs.params_n, runs.tokens_n))
    loss *= np.exp(1e-3 * np.random.default_rng(0).standard_normal(len(loss)))
    table = pd.DataFrame({"params": runs.params_n, "tokens": runs.tokens_n, "loss_nats": loss})
    return fits.loss_law(table, residual=residual, resamples=0, check=False)


def size(fit: fits.LossLaw) -> float:
    allowed = fit.allowed_discrepancy()
    assert allowed is not None
    return allowed.size


def test_a_fit_allows_the_discrepancy_that_its_runs_cannot_rule_out() -> None:
    """Less where they follow the form than where they do not, and as much in other units and of other residuals."""
    right, wrong = (fitted(truth) for truth in (lambda loss: loss, lambda loss: loss + 0.1 * (loss - 3) ** 2))
    assert 2 * size(right) < size(wrong)
    assert size(fitted(lambda loss: loss, 3.0)) == pytest.approx(size(right), rel=1e-3)
    assert size(fitted(lambda loss: loss, residual="raw")) == pytest.approx(size(right), rel=0.3)
    assert replace(right, residuals={}).allowed_discrepancy() is None


def test_a_plan_takes_the_discrepancy_of_its_fit_where_it_is_told(tmp_path: Path) -> None:
    fit = fitted(lambda loss: loss)
    write_json(tmp_path / "fits.json", {"table": "t", "fits": [fit.to_json()]})
    save([fit], tmp_path / "fits.slaw", "t")
    for path in (tmp_path / "fits.json", tmp_path / "fits.slaw"):
        assert prior_of(str(path), "chinchilla", None, 0.0).discrepancy is None
        assert prior_of(str(path), "chinchilla", None, 0.0, 0.02).discrepancy == Discrepancy(0.02)
        told = prior_of(str(path), "chinchilla", None, 0.0, parse("plan", ["--discrepancy", "fit"]).discrepancy)
        assert told.discrepancy is not None and told.discrepancy.size == pytest.approx(size(fit), rel=1e-9)
    assert parse("plan", ["--discrepancy", "0.03"]).discrepancy == 0.03
    with pytest.raises(UserError, match=r"published law 'chinchilla-refit': give --prior FITS.json, or a number"):
        prior_of(None, "chinchilla", None, 0.0, "fit")


@pytest.mark.long
def test_a_plan_says_how_wrong_its_law_may_be(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text(
        "from lmscale import recipes\nfrom lmscale.core.config import ModelConfig\nfrom lmscale.study.sweep import *\n"
        "BASE = ModelConfig(width=16, layers=1, heads=1, context=32)\n"
        "FAMILY = recipes.Family(width_multiple=8, aspect_ratio=32, head_width=8, base=BASE)\n"
        "POINTS = grid(params=[2e4, 4e4, 8e4], tokens=[4e5, 16e5, 64e5])\n"
        "SWEEP = Sweep('one', POINTS, recipes.step_law(FAMILY, validation_tokens=4096))\n"
    )
    shown = []
    for size in (None, 0.03):
        asked = PlanArgs(
            path, runs=tmp_path, improve=True, spend=5e13, most=3, quantity="loss", target=1e15, discrepancy=size
        )
        main(asked, console := screen(300))
        shown.append(output_of(console))
    assert "that may be wrong by 3.00% of the loss" in shown[1] and "may be wrong" not in shown[0]
    assert "if that law is right" in shown[0] and "if that law is right" not in shown[1]
    narrowed = [next(line for line in text.splitlines() if "standard deviation" in line) for text in shown]
    assert narrowed[0] != narrowed[1]
    with pytest.raises(UserError, match="the size of a discrepancy is 0: give a number above 0"):
        main(PlanArgs(path, runs=tmp_path, discrepancy=0), screen())
