"""Laws whose parameters lie along bent valleys are searched in unknowns of their own."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from lmscale.study.fits.solvers import derivatives, general
from lmscale.study.fits.solvers.minimise import minimise, minimise_many
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.laws import FARSEER_2025, Distillation, Farseer, Parameter

TRUTH = Distillation(c0=2.4, c1=1e6, d1=2.9, f1=0.1, A=3000.0, B=26000.0, alpha=0.35, beta=0.424, gamma=0.75)
"""Much like the fit to the published runs."""


@dataclass(frozen=True)
class NarrowRange(Distillation):
    """Distillation whose d1 must stay below the best one."""

    NAME: ClassVar[str] = "narrow-range"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = tuple(
        Parameter("d1", 0.5, 0.9, (0.8,)) if one.name == "d1" else one for one in Distillation.PARAMETERS
    )


def problem(form: type[Distillation] = Distillation, noise: float = 0.003, **changes: Any) -> Problem:
    """Students of five sizes, four token counts and four teachers."""
    grid = np.meshgrid(np.geomspace(1e8, 8e9, 5), np.geomspace(2e9, 2e11, 4), [1.8, 2.1, 2.5, 3.0])
    inputs = tuple(axis.ravel() for axis in grid)
    scatter = np.exp(noise * np.random.default_rng(0).standard_normal(len(inputs[0])))
    return Problem(form, inputs, TRUTH.loss(*inputs) * scatter, **changes)


def truth_p() -> np.ndarray:
    return np.array(list(TRUTH.values().values()))


def test_the_unknowns_of_the_search_stand_for_the_same_law() -> None:
    straight = problem()
    assert straight.straightened and not problem(plain=True).straightened
    assert not problem(fixed={"f1": 0.1}).straightened  # a constraint is one of the parameters themselves
    theta = derivatives.to_theta(straight, truth_p()[:, None])
    assert np.concatenate(derivatives.to_values(straight, theta)) == pytest.approx(truth_p(), rel=1e-12)
    assert np.exp(theta[2, 0]) == pytest.approx(2.9 / (1e6 * 0.1) ** 0.1)
    exact, step = derivatives.derivatives(straight, theta)[:, :, 0], 1e-6
    for k, row in enumerate(exact):
        ahead, behind = (derivatives.residuals(straight, theta + s * np.eye(9)[:, [k]])[:, 0] for s in (step, -step))
        assert row == pytest.approx((ahead - behind) / (2 * step), rel=1e-5, abs=1e-8)
    assert derivatives.jacobian(straight, truth_p()) == pytest.approx(
        derivatives.jacobian(problem(plain=True), truth_p())
    )


@pytest.mark.long
def test_in_a_straight_valley_resamples_settle_near_the_fit() -> None:
    """More than in the parameters themselves, and none ends higher."""
    straight, plain = problem(noise=0.01), problem(noise=0.01, plain=True)
    every = np.ones((straight.runs, 1))
    values_p = general.many(straight, every, truth_p())[0][:, 0]
    weights = np.random.default_rng(1).multinomial(straight.runs, every[:, 0] / straight.runs, size=12).T.astype(float)
    _, value, good = general._near(straight, weights, derivatives.to_theta(straight, values_p[:, None]))
    _, bent_value, bent_good = general._near(plain, weights, derivatives.to_theta(plain, values_p[:, None]))
    assert good.sum() >= 10 and good.sum() > bent_good.sum()
    assert (value <= bent_value * (1 + 1e-7)).all()


@pytest.mark.long
def test_parameters_stay_in_their_ranges_where_other_unknowns_are_searched() -> None:
    narrow = problem(NarrowRange, loss="squared")
    every = np.ones((narrow.runs, 1))
    best = general.best(narrow, every[:, 0])
    others, _ = general.many(narrow, every, truth_p())
    for values_p in (best.values_p, others[:, 0]):
        assert narrow.within_bounds(values_p[:, None])[0]
        assert values_p[2] == pytest.approx(0.9)


def farseer_runs(noise: float, **changes: Any) -> Problem:
    """A ladder of six sizes and six token counts under Farseer's own constants."""
    grid = np.meshgrid(np.geomspace(2e8, 6.4e9, 6), np.geomspace(2e9, 2e11, 6))
    inputs = tuple(axis.ravel() for axis in grid)
    scatter = np.exp(noise * np.random.default_rng(0).standard_normal(len(inputs[0])))
    return Problem(Farseer, inputs, FARSEER_2025.loss(*inputs) * scatter, **changes)


def test_functions_of_size_are_searched_by_value_and_slope() -> None:
    straight = farseer_runs(0.0)
    values_p = np.array(list(FARSEER_2025.values().values()))
    theta = derivatives.to_theta(straight, values_p[:, None])
    assert np.concatenate(derivatives.to_values(straight, theta)) == pytest.approx(values_p, rel=1e-9)
    assert np.abs(derivatives.residuals(straight, theta)).max() < 1e-12
    exact, step = derivatives.derivatives(straight, theta)[:, :, 0], 1e-6
    for k, row in enumerate(exact):
        ahead, behind = (derivatives.residuals(straight, theta + s * np.eye(9)[:, [k]])[:, 0] for s in (step, -step))
        assert row == pytest.approx((ahead - behind) / (2 * step), rel=1e-4, abs=1e-8)


@pytest.mark.long
def test_resamples_of_nine_parameters_settle_near_the_fit() -> None:
    straight, plain = farseer_runs(0.003), farseer_runs(0.003, plain=True)
    every = np.ones((straight.runs, 1))
    values_p = general.many(straight, every, np.array(list(FARSEER_2025.values().values())))[0][:, 0]
    weights = np.random.default_rng(1).multinomial(straight.runs, every[:, 0] / straight.runs, size=8).T.astype(float)
    _, value, good = general._near(straight, weights, derivatives.to_theta(straight, values_p[:, None]))
    _, bent_value, bent_good = general._near(plain, weights, derivatives.to_theta(plain, values_p[:, None]))
    assert good.sum() > bent_good.sum()
    assert (value <= bent_value * (1 + 1e-7)).all()


@pytest.mark.long
def test_resamples_settle_where_a_function_of_size_is_nearly_a_logarithm() -> None:
    """Exponents end at their least then, and what is multiplied by powers of size grows as their inverses do."""
    problem = farseer_runs(0.003)
    best = minimise(problem)
    weights = np.random.default_rng(1).multinomial(problem.runs, np.ones(problem.runs) / problem.runs, 16).T
    values_pb, converged = minimise_many(problem, weights.astype(float), best.values_p)
    limited = [Farseer(*values_p).at_bounds() for values_p in values_pb.T]
    assert {("a",), ("b",)} < set(limited) <= {(), ("a",), ("b",)}
    assert converged.all()
