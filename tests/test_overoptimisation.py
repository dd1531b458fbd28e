"""The experiment on over-optimisation: gold reward and proxy that are jointly Gaussian, where all is known exactly."""

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from lmscale.core.best_of_n import kl_bound_nats

RHO = 0.6
EXPERIMENT = Path(__file__).resolve().parents[1] / "experiments" / "overoptimisation_cpu.py"


@pytest.fixture(scope="module")
def experiment() -> dict[str, Any]:
    return runpy.run_path(str(EXPERIMENT))


def mean_of_the_largest(n: int) -> float:
    """The mean of the largest of n standard normal numbers."""
    return float(quad(lambda x: x * n * norm.pdf(x) * norm.cdf(x) ** (n - 1), -12, 12)[0])


def test_a_gaussian_policy_that_is_tilted_by_its_proxy_gains_in_proportion_to_d(experiment: dict[str, Any]) -> None:
    """exp(t proxy) moves the mean of the proxy by t at a KL of t^2 / 2, and that of the gold reward by rho t: alpha is
    rho sqrt(2), and nothing is ever over-optimised. The questions' own noise makes the interval, and moves no mean."""
    tilts, rng = np.array([0.05, 0.2, 0.5, 1.0, 2.0, 3.0]), np.random.default_rng(0)
    noise = rng.normal(size=(len(tilts), 12))
    noise -= noise.mean(axis=1, keepdims=True)
    for form in experiment["FORMS"].values():
        fit = experiment["fitted"](tilts**2 / 2, RHO * tilts[:, None] + 0.1 * noise, form, 20)
        assert fit.law.alpha == pytest.approx(RHO * math.sqrt(2), abs=1e-5)
        assert fit.law.beta == pytest.approx(0, abs=1e-5)
        low, high = fit.interval("beta")
        assert low < 0 < high < 0.1


@pytest.mark.long
def test_the_best_of_n_gaussian_answers(experiment: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    proxy = rng.normal(size=(150, 64))
    gold = 2 + RHO * proxy + math.sqrt(1 - RHO**2) * rng.normal(size=proxy.shape)
    sizes = [2, 4, 8]
    kl, gains, proxies = experiment["best_of"](sizes, proxy, gold)
    exact = np.array([mean_of_the_largest(n) for n in sizes])
    np.testing.assert_allclose(proxies.mean(axis=1), exact, atol=0.06)
    np.testing.assert_allclose(gains.mean(axis=1), RHO * exact, atol=0.1)
    np.testing.assert_allclose(kl, kl_bound_nats(np.array(sizes)), rtol=0.05)
