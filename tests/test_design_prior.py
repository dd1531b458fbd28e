"""A plan's precision under the laws that its prior allows: what the prior assumes, and what its own doubt adds."""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from lmscale.commands.plan.prior import fitted_prior, prior_of
from lmscale.core.files import write_json
from lmscale.study import fits
from lmscale.study.design import Prior, Runs, Verdict, fisher, information, normal_draws, published_prior, spread
from lmscale.study.design.prior import COVARIANCES, OF_THE_CHINCHILLA_RUNS, noise_draws
from lmscale.study.fits.uncertainty.simulate import isoflop_design, simulate
from lmscale.study.laws import CHINCHILLA_REFIT, Chinchilla, Law
from lmscale.study.tables import read_table

TARGET = 1e21
COVARIANCE = np.array(OF_THE_CHINCHILLA_RUNS)


def runs() -> Runs:
    """Three budgets of seven sizes about their optima."""
    budgets = np.geomspace(1e17, 1e19, 3)
    params = np.concatenate([CHINCHILLA_REFIT.optimum(c).params * np.geomspace(0.25, 4, 7) for c in budgets])
    return Runs(params, np.repeat(budgets, 7) / (6 * params))


def verdict(prior: Prior, design: Runs | None = None) -> Verdict:
    design = runs() if design is None else design
    largest = float((6 * design.params_n * design.tokens_n).max())
    return Verdict(information(prior, design), TARGET, "--target", (), largest, "")


def with_draws(draws: Law) -> Prior:
    return dataclasses.replace(published_prior(), draws=draws)


def one_law(law: Law, index: int) -> Law:
    return type(law)(*[float(value[index]) for value in law.values().values()])


def test_the_published_covariance_is_that_of_resamples_of_the_published_runs() -> None:
    table = read_table("chinchilla")
    samples = fits.loss_law(table, resamples=800, bootstrap="runs", seed=7, check=False).samples
    assert samples is not None
    drawn = np.stack([samples.E, np.log(samples.A), np.log(samples.B), samples.alpha, samples.beta])  # type: ignore[attr-defined]
    assert np.sqrt(np.diag(COVARIANCE)) == pytest.approx(drawn.std(axis=1), rel=0.1)
    correlation = COVARIANCE / np.sqrt(np.outer(np.diag(COVARIANCE), np.diag(COVARIANCE)))
    assert np.corrcoef(drawn) == pytest.approx(correlation, abs=0.1)
    assert np.corrcoef(drawn)[1, 3] == pytest.approx(correlation[1, 3], abs=0.002)


def test_draws_of_a_prior_spread_as_its_covariance_says_and_are_the_same_every_time() -> None:
    many = normal_draws(CHINCHILLA_REFIT, COVARIANCE, draws=4000)
    ratio = many.optimum(1e22).tokens_per_param
    low, high = np.percentile(ratio, [2.5, 97.5])
    assert 10.5 < low < 13.5 and 29.5 < high < 34  # resamples of the published runs give 11.9 and 31.0
    one, other = (published_prior().draws for _ in range(2))
    assert one is not None and other is not None
    assert all((value == other.values()[name]).all() for name, value in one.values().items())


def test_draws_stay_in_the_range_of_the_law() -> None:
    near_zero = Chinchilla(0.001, 20.0, 60.0, 0.12, 0.14)
    drawn = normal_draws(near_zero, COVARIANCE, draws=100)
    assert (np.asarray(drawn.values()["E"]) >= Chinchilla.PARAMETERS[0].low).all()


def test_a_point_prior_and_draws_of_nothing_but_its_law_agree() -> None:
    point = verdict(Prior())
    assert point.factor == point.factor_at_prior
    assert "how far they are off is not known" in point.sentence()
    same = verdict(with_draws(normal_draws(CHINCHILLA_REFIT, np.zeros((5, 5)))))
    assert same.factor == pytest.approx(point.factor, rel=1e-9) == same.factor_at_prior


def test_a_wider_prior_widens_the_verdict_and_not_that_of_its_law_alone() -> None:
    narrow, wide = (verdict(with_draws(normal_draws(CHINCHILLA_REFIT, scale * COVARIANCE))) for scale in (1.0, 9.0))
    assert narrow.factor_at_prior == wide.factor_at_prior
    assert narrow.factor is not None and wide.factor is not None and narrow.factor_at_prior is not None
    assert narrow.factor_at_prior < narrow.factor < wide.factor
    louder = dataclasses.replace(published_prior(), noises_r=noise_draws(0.01, 4))
    assert verdict(louder).factor > narrow.factor  # type: ignore[operator]


def test_the_sentence_says_both_figures_and_what_the_smaller_one_assumes() -> None:
    one = verdict(published_prior())
    sentence = one.sentence()
    match = re.search(
        r"within ([\d.]+) % \(95 %; ([\d.]+) % if the law chinchilla-refit and its noise of 0.01", sentence
    )
    assert match, sentence
    assert one.factor is not None and one.factor_at_prior is not None
    assert float(match[1]) == pytest.approx(100 * (one.factor - 1), rel=0.06)
    assert float(match[2]) == pytest.approx(100 * (one.factor_at_prior - 1), rel=0.06)


def test_every_draw_by_brute_force() -> None:
    """Derivatives by differences of plain formulas, and the inverse of a five by five matrix, draw by draw."""
    prior = with_draws(normal_draws(CHINCHILLA_REFIT, COVARIANCE, draws=6))
    design = runs()
    known = information(prior, design)
    sds = spread.sds(known, known.log_ratio(TARGET))
    x, y = np.log(design.params_n), np.log(design.tokens_n)

    def loss(theta: np.ndarray) -> np.ndarray:
        return np.asarray(theta[0] + np.exp(theta[1] - theta[3] * x) + np.exp(theta[2] - theta[4] * y))

    def log_ratio(theta: np.ndarray) -> np.ndarray:
        _, log_a, log_b, alpha, beta = theta
        params = (np.log(alpha) + log_a - np.log(beta) - log_b + beta * math.log(TARGET / 6)) / (alpha + beta)
        return np.asarray(math.log(TARGET / 6) - 2 * params)

    assert prior.draws is not None
    for index, sd in enumerate(sds):
        law = one_law(prior.draws, index)
        theta = np.array([law.E, math.log(law.A), math.log(law.B), law.alpha, law.beta])  # type: ignore[attr-defined]
        steps = 1e-5 * np.eye(5)
        slopes = np.stack([(loss(theta + step) - loss(theta - step)) / 2e-5 for step in steps], axis=1)
        slope = np.array([(log_ratio(theta + step) - log_ratio(theta - step)) / 2e-5 for step in steps])
        covariance = 0.01**2 * np.linalg.inv(slopes.T @ slopes)
        assert sd == pytest.approx(math.sqrt(slope @ covariance @ slope), rel=1e-4)


def test_draws_at_once_equal_one_by_one_with_trunks_a_ceiling_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = dataclasses.replace(with_draws(normal_draws(CHINCHILLA_REFIT, COVARIANCE, draws=5)), shared=0.5)
    design = dataclasses.replace(runs(), clusters_n=[str(n // 3) for n in range(21)], most_nats=3.0)
    known = information(prior, design)
    monkeypatch.setattr(spread, "TOGETHER", 2 * len(design))
    assert prior.draws is not None
    alone = []
    for index in range(5):
        one = information(dataclasses.replace(prior, law=one_law(prior.draws, index), draws=None), design)
        alone.append(one.sd(one.log_ratio(TARGET)))
    assert spread.sds(known, known.log_ratio(TARGET)) == pytest.approx(alone, rel=1e-8)


def test_losses_above_ln_v_say_less_than_the_law_claims() -> None:
    low = dataclasses.replace(runs(), most_nats=2.0)
    loss = CHINCHILLA_REFIT.loss(low.params_n, low.tokens_n)
    assert (loss > 2.0).all()
    full, less = fisher.jacobian(CHINCHILLA_REFIT, low), fisher.possible_slopes(CHINCHILLA_REFIT, low)
    assert less == pytest.approx(full * 2.0 / loss[:, None])
    assert fisher.possible_slopes(CHINCHILLA_REFIT, runs()) == pytest.approx(full)


def test_a_prior_that_predicts_impossible_losses_gives_no_headline() -> None:
    tiny = runs()
    tiny = dataclasses.replace(
        tiny, params_n=tiny.params_n / 1e4, tokens_n=tiny.tokens_n / 1e4, most_nats=math.log(256)
    )
    sentence = verdict(published_prior(), tiny).sentence()
    assert "chinchilla-refit cannot say how well it fixes D/N" in sentence and "pins down" not in sentence
    assert "no model loses more than ln V = 5.55" in sentence and "--prior FITS.json" in sentence
    far = dataclasses.replace(published_prior(), smallest_flops=1e24)
    assert "fitted from 1e+24 FLOPs on, the plan ends at 1e+19" in verdict(far).sentence()


@pytest.fixture(scope="module")
def own_fit() -> fits.LossLaw:
    table = simulate(
        CHINCHILLA_REFIT, isoflop_design(CHINCHILLA_REFIT, (1e15, 3e15, 1e16)), 0.01, np.random.default_rng(2)
    )
    return fits.loss_law(table, loss="squared", resamples=300, check=False)


def test_a_fit_is_a_prior_with_its_own_doubt_and_its_own_noise(own_fit: fits.LossLaw, tmp_path: Path) -> None:
    plain, sampled = tmp_path / "plain.json", tmp_path / "sampled.json"
    write_json(plain, {"table": "t", "fits": [own_fit.to_json()]})
    write_json(sampled, {"table": "t", "fits": [own_fit.to_json(samples=True)]})
    residuals = np.asarray(own_fit.residuals["predicted"]) - np.asarray(own_fit.residuals["measured"])
    noise = math.sqrt((residuals**2).sum() / (own_fit.n_runs - 5))
    wide = verdict(published_prior())
    for path in (plain, sampled):
        prior = prior_of(str(path), "chinchilla", None, 0.0)
        assert prior.noise_nats == pytest.approx(noise) and prior.noises_r is not None
        one = verdict(prior)
        # 21 small runs leave more doubt of the law than 240 large ones.
        assert one.factor is not None and one.factor_at_prior is not None and wide.factor is not None
        assert one.factor - 1 > 1.5 * (one.factor_at_prior - 1)
        assert f"if the law {path} and its noise of {noise:.3g} nats were exactly right" in one.sentence()
    assert prior_of(str(plain), "chinchilla", 0.05, 0.0).noises_r is None
    assert prior_of(str(plain), "chinchilla", 0.05, 0.0).noise_nats == 0.05


def test_a_fit_whose_runs_lie_on_a_line_has_no_draws(own_fit: fits.LossLaw) -> None:
    rows = dict(own_fit.residuals)
    rows["tokens"] = 20 * np.asarray(rows["params"])
    prior = fitted_prior(dataclasses.replace(own_fit, residuals=rows, samples=None), "own", None, 0.0)
    assert prior.draws is None and "how far they are off is not known" in verdict(prior).sentence()


def test_every_covariance_belongs_to_a_published_law_and_goes_into_the_json() -> None:
    for name in COVARIANCES:
        assert published_prior(name).draws is not None
    assert published_prior("hoffmann-2022").draws is None
    value = verdict(published_prior()).to_json()
    assert value["prior"]["draws"] == 200 and json.dumps(value)
    assert value["upper_sd_log_tokens_per_param"] > value["sd_log_tokens_per_param"]
