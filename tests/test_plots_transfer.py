"""The optimum of a row of learning rates, and the figures that compare parametrizations."""

import math

import numpy as np
import pytest

from lmscale.study import plots
from lmscale.study.plots.transfer import BestRate, best_rate

RATES = [2.0**power for power in range(-9, -1)]
BEST = 2**-5.3


def parabola(noise: float = 0.0, seed: int = 0) -> list[float]:
    noises = noise * np.random.default_rng(seed).standard_normal(len(RATES))
    return [2.0 + 0.1 * math.log(rate / BEST) ** 2 + more for rate, more in zip(RATES, noises)]


def test_the_vertex_of_a_parabola_is_found() -> None:
    best = best_rate(RATES, parabola())
    assert (best.rate, best.loss_nats) == (pytest.approx(BEST, rel=1e-9), min(parabola()))
    assert best.log_rate_stderr == pytest.approx(0, abs=1e-6) and not best.edge


def test_its_standard_error_is_the_scatter_of_repeated_sweeps() -> None:
    sweeps = [best_rate(RATES, parabola(0.005, seed)) for seed in range(400)]
    errors = [math.log(best.rate / BEST) for best in sweeps]
    stderrs = [best.log_rate_stderr for best in sweeps if best.log_rate_stderr is not None]
    assert len(stderrs) == 400 and abs(np.mean(errors)) < 0.005
    assert math.sqrt(np.mean(np.square(stderrs))) == pytest.approx(np.std(errors), rel=0.15)


def test_a_lowest_loss_at_an_edge_is_flagged() -> None:
    """A rate that diverged was tried: the best has one on either side."""
    for losses, edge in ((range(8), True), (range(8)[::-1], True), ([*range(8)[:0:-1], math.inf], False)):
        best = best_rate(RATES, [float(loss) for loss in losses])
        finite = [(loss, rate) for rate, loss in zip(RATES, losses) if math.isfinite(loss)]
        assert best == BestRate(pytest.approx(min(finite)[1]), None, min(finite)[0], edge=edge)
        assert ("at the edge of the rates" in str(best)) == edge


def test_runs_that_diverged_are_left_out() -> None:
    losses = [*parabola()[:6], math.inf, math.inf]
    assert best_rate(RATES, losses).rate == pytest.approx(BEST)


def test_three_points_leave_nothing_to_judge_the_error_by() -> None:
    assert best_rate(RATES[2:5], parabola()[2:5]).log_rate_stderr is None


def test_the_figures_show_every_size_once() -> None:
    with plots.style():
        _, (left, right) = plots.canvas(8, 4, panels=2)
        losses = {64: parabola(), 128: [*parabola()[:-1], math.inf]}
        plots.rate_sweep(
            left, {size: (RATES, values) for size, values in losses.items()}, {64: best_rate(RATES, losses[64])}
        )
        change = np.array([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0]])
        plots.coordinates(right, [64, 128, 256], {"mup": change / change, "standard": change}, "width")
    assert {text.get_text() for text in left.texts} == {"64", "128"}
    diamonds = [line for line in left.lines if line.get_marker() == "D"]
    assert [line.get_xydata()[0] == pytest.approx((BEST, min(losses[64]))) for line in diamonds] == [True]
    assert sorted(len(line.get_xdata()) for line in left.lines if line not in diamonds) == [7, 8]
    assert {text.get_text() for text in right.texts} == {"+1.00", "+0.00"}
