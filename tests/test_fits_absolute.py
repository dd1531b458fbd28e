"""Least absolute deviations of any law, by linear programs."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.optimize import linprog

from lmscale import read_table
from lmscale.study.fits.solvers import absolute
from lmscale.study.fits.solvers.chinchilla_points import LAD_DELTA
from lmscale.study.fits.solvers.derivatives import derivatives, residuals, to_theta, to_values
from lmscale.study.fits.solvers.general import near_by_programs
from lmscale.study.fits.solvers.minimise import minimise, minimise_many, minimise_near
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.laws import CHINCHILLA_REFIT, Chinchilla, Law, Parameter


@dataclass(frozen=True)
class Constant(Law):
    """L = E: its least absolute deviations are the weighted median."""

    E: Any
    NAME: ClassVar[str] = "constant"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("E", 1e-2, 1e3, (1, 10), log=False),)
    INPUTS: ClassVar[tuple[Any, ...]] = ("params",)

    def loss(self, params: Any) -> Any:
        return self.E + 0 * params


LOSSES = np.array([3.0, 9.0, 2.5, 4.0, 2.0])


def of_constant(losses: np.ndarray) -> Problem:
    return Problem(Constant, (np.ones(len(losses)),), losses, loss="lad", residual="raw")


@pytest.mark.parametrize(
    ("weights", "median"), [((1, 1, 1, 1, 1), 3.0), ((1, 5, 1, 1, 1), 9.0), ((1, 1, 3, 1, 1), 2.5)]
)
@pytest.mark.parametrize("start", [0.5, 3.0, 700.0])
def test_the_weighted_median(weights: tuple[int, ...], median: float, start: float) -> None:
    end = absolute.descend(of_constant(LOSSES), np.array([start]), np.array(weights, dtype=float))
    assert end.converged
    assert end.theta_q == pytest.approx([median], abs=1e-9)
    assert end.value == pytest.approx(np.array(weights) @ np.abs(LOSSES - median))


def of_published_runs() -> Problem:
    runs = read_table("chinchilla")
    inputs = tuple(runs[name].to_numpy(float) for name in ("params", "tokens"))
    return Problem(Chinchilla, inputs, runs["loss"].to_numpy(float), loss="lad")


def test_chinchillas_own_solver_ends_at_the_same_corner() -> None:
    problem = of_published_runs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(absolute, "MOST_RUNS", 0)
        own = minimise(problem)
    end = absolute.descend(problem, to_theta(problem, 1.1 * own.values_p[:, None])[:, 0], np.ones(problem.runs))
    values_p = np.concatenate(to_values(problem, end.theta_q[:, None]))
    assert end.converged
    assert values_p == pytest.approx(own.values_p, rel=1e-5)
    assert end.value <= own.objective
    residuals = np.abs(problem.residuals(values_p))
    assert (residuals < 1e-10).sum() == 5, "as many corners as unknowns"


@pytest.mark.long
def test_the_search_of_other_laws_ends_in_the_corner() -> None:
    """With a bound that does not bind, Chinchilla's form is any law."""
    problem = of_published_runs().using(bounds={"E": (1.0, 2.0)})
    minimum = minimise(problem)
    assert minimum.objective == pytest.approx(1.1294946536, rel=1e-10)
    assert minimum.gradient <= absolute.GAIN * minimum.objective
    near_p = minimise_near(problem, 1.05 * minimum.values_p)
    assert near_p == pytest.approx(minimum.values_p, rel=1e-6)


def test_a_search_that_has_not_converged_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = of_published_runs().using(bounds={"E": (1.0, 2.0)})
    monkeypatch.setattr(absolute, "MAX_STEPS", 2)
    assert near_by_programs(problem, np.array([1.5, 100.0, 5000.0, 0.3, 0.4])) is None


def test_many_runs_are_left_to_newtons_method() -> None:
    assert absolute.serves(of_constant(np.ones(absolute.MOST_RUNS)))
    assert not absolute.serves(of_constant(np.ones(absolute.MOST_RUNS + 1)))
    assert not absolute.serves(of_constant(LOSSES).using(loss="huber"))


def test_bounds_hold() -> None:
    problem = of_constant(LOSSES).using(bounds={"E": (3.5, 5.0)})
    assert absolute.descend(problem, np.array([4.5]), np.ones(5)).theta_q == pytest.approx([3.5])


@pytest.mark.parametrize("seed", range(12))
def test_the_best_step_is_that_of_a_linear_program(seed: int) -> None:
    """Within a box that may begin at the end of a range, also of runs that coincide or have no residual."""
    rng = np.random.default_rng(seed)
    size, runs = int(rng.integers(1, 10)), int(rng.integers(12, 150))
    slopes = rng.standard_normal((size, runs)) * np.exp(3 * rng.standard_normal((size, 1)))
    residual, weights = rng.standard_normal(runs), rng.exponential(size=runs)
    slopes[:, 1], residual[1], residual[2:5], weights[5:8] = slopes[:, 0], residual[0], 0.0, 0.0
    reach = (1.0, 1e-2, 1e-4, 10.0)[seed % 4]
    least, most = np.full(size, -reach), np.full(size, reach)
    least[0] = -reach * (seed % 3 > 0)
    most[-1] = reach * (seed % 5 > 0)
    check_step(residual, slopes, weights, least, most)


@pytest.mark.parametrize("seed", range(12))
def test_the_best_step_is_found_where_many_rows_vanish_at_once(seed: int) -> None:
    """Slopes and losses in whole numbers, or repeated runs: exchanges of such rows could go round for ever."""
    rng = np.random.default_rng(seed)
    size, runs = int(rng.integers(1, 12)), 60
    slopes, residual = rng.integers(-2, 3, (size, runs)).astype(float), rng.integers(-2, 3, runs).astype(float)
    if seed % 2:
        slopes = np.repeat(rng.standard_normal((size, runs // 4)), 4, axis=1)
    reach = np.full(size, (1.0, 0.01, 10.0)[seed % 3])
    check_step(residual, slopes, np.ones(runs), -reach, reach)


def check_step(
    residual: np.ndarray, slopes: np.ndarray, weights: np.ndarray, least: np.ndarray, most: np.ndarray
) -> None:
    """Assert that the best step is within its box and as good as the one of a linear program."""
    step, ended = absolute.best_step(residual, slopes, weights, least, most)
    assert ended and (step >= least).all() and (step <= most).all()
    lowest = least_sum(residual, slopes, weights, least, most)
    assert weights @ np.abs(residual + step @ slopes) == pytest.approx(lowest, rel=1e-9)


def least_sum(
    residual: np.ndarray, slopes: np.ndarray, weights: np.ndarray, least: np.ndarray, most: np.ndarray
) -> float:
    """The least sum_i w_i |r_i + slopes step| of steps within a box, by a general solver of linear programs."""
    runs = len(residual)
    program = linprog(
        np.concatenate([np.zeros(len(slopes)), weights, weights]),
        A_eq=np.hstack([slopes.T, -np.eye(runs), np.eye(runs)]),
        b_eq=-residual,
        bounds=[*zip(least, most), *[(0, None)] * (2 * runs)],
    )
    return float(program.fun)


def test_repeated_runs_with_rounded_losses_end_in_the_lowest_corner() -> None:
    """From three sides: a search that goes round in circles ends up to 1 % above it, and says that it has converged."""
    params, tokens = (
        np.repeat(each.ravel(), 3) for each in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5))
    )
    noise = np.random.default_rng(7).standard_normal(len(params))
    losses = np.round(CHINCHILLA_REFIT.loss(params, tokens) * np.exp(0.01 * noise), 2)
    problem = Problem(Chinchilla, (params, tokens), losses, loss="lad")
    truth = np.array(list(CHINCHILLA_REFIT.values().values()))
    ends = [
        absolute.descend(problem, to_theta(problem, (factor * truth)[:, None])[:, 0], np.ones(problem.runs))
        for factor in (0.97, 1.0, 1.05)
    ]
    assert all(end.converged for end in ends)
    assert [end.value for end in ends] == pytest.approx([0.502280166023] * 3, rel=1e-9)


def test_a_program_that_is_cut_short_is_not_called_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = of_published_runs()
    theta = to_theta(problem, np.array(list(CHINCHILLA_REFIT.values().values()))[:, None])[:, 0]
    monkeypatch.setattr(absolute, "EXCHANGES", 0)
    end = absolute.descend(problem, theta, np.ones(problem.runs))
    assert end.gain == np.inf and not end.converged


@pytest.mark.parametrize("residual", ["log", "raw"])
@pytest.mark.parametrize("scatter", [0.0, 0.01])
def test_resamples_of_repeated_runs_with_rounded_losses_end_in_corners(scatter: float, residual: str) -> None:
    """A linear program of the law's slopes at each end gains no more than the narrow Huber loss may leave."""
    params, tokens = (
        np.repeat(each.ravel(), 3) for each in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5))
    )
    rng = np.random.default_rng(7)
    losses = CHINCHILLA_REFIT.loss(params, tokens) * np.exp(scatter * rng.standard_normal(len(params)))
    problem = Problem(Chinchilla, (params, tokens), np.round(losses, 2), loss="lad", residual=residual)
    weights = np.stack([np.bincount(drawn, minlength=75) for drawn in rng.integers(0, 75, (16, 75))], axis=1)
    values, converged = minimise_many(problem, weights.astype(float))
    assert converged.all()
    theta = to_theta(problem, values)
    heights, slopes = residuals(problem, theta), derivatives(problem, theta)
    for b, weight in enumerate(weights.T):
        lowest = least_sum(heights[:, b], slopes[:, :, b], weight, np.full(5, -0.01), np.full(5, 0.01))
        assert weight @ np.abs(heights[:, b]) - lowest < LAD_DELTA / 2 * weight.sum()
