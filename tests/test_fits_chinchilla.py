"""The objective of Chinchilla's form: its derivatives, and many seeds or weightings computed together."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.isoflop import isoflop_table

from lmscale.study.fits.solvers.chinchilla_objective import evaluate, evaluate_at_one, objective, summands_at_one
from lmscale.study.fits.solvers.chinchilla_points import ChinchillaPoints


@pytest.mark.parametrize("log_residual", [True, False])
@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_gradient_and_hessian_are_exact(log_residual: bool, loss: str) -> None:
    table = isoflop_table(0.01)
    data = [table[name].to_numpy() for name in ("params", "tokens", "loss_nats")]
    points = ChinchillaPoints.of(*data, log_residual=log_residual, loss=loss, delta=0.02)
    weights, mix = np.ones((len(table), 1)), np.zeros(1)
    theta = points.theta(np.array([[1.9], [400.0], [2000.0], [0.34], [0.36]]))

    def at(moved: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        objective, gradient, matrix = evaluate(points, weights, moved, mix)
        return objective[0], gradient[:, 0], matrix[:, :, 0]

    _, gradient, hessian = at(theta)
    for k in range(5):
        step = 1e-6 * (np.arange(5) == k)[:, None]
        ahead, behind = at(theta + step), at(theta - step)
        assert gradient[k] == pytest.approx((ahead[0] - behind[0]) / 2e-6, rel=1e-5, abs=1e-8)
        assert hessian[k] == pytest.approx((ahead[1] - behind[1]) / 2e-6, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("log_residual", [True, False])
@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_seeds_and_weightings_computed_together_have_the_objective_of_the_runs(log_residual: bool, loss: str) -> None:
    """Sixty seeds of 21 points: by cells of equal N and D, and of many weightings at one law by products."""
    rng = np.random.default_rng(0)
    table = pd.concat([isoflop_table(0.01)] * 60).sort_values(["params", "tokens"])
    data = (table["params"].to_numpy(), table["tokens"].to_numpy(), rng.permutation(table["loss_nats"].to_numpy()))
    points = ChinchillaPoints.of(*data, log_residual=log_residual, loss=loss, delta=0.02)
    assert points.cells is not None and len(points.cells.first_m) == 21
    plain, weights = replace(points, cells=None), rng.integers(0, 3, (len(table), 4)).astype(float)
    theta = points.theta(np.array([[1.9, 1.7], [400.0, 300.0], [2000.0, 900.0], [0.34, 0.3], [0.36, 0.3]]))
    for mix in (0.0, 0.5):
        given = weights[:, :2], theta, np.full(2, mix)
        for one, other in zip(evaluate(points, *given), evaluate(plain, *given)):
            assert one == pytest.approx(other, rel=1e-9, abs=1e-9)
    assert objective(points, weights[:, :2], theta) == pytest.approx(objective(plain, weights[:, :2], theta), rel=1e-12)
    at_one = evaluate(plain, weights, np.repeat(theta[:, :1], 4, axis=1), np.zeros(4))
    for one, other in zip(evaluate_at_one(summands_at_one(points, theta[:, 0]), weights), at_one):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-9)
