"""Approach 1 in its parts, against envelopes found by hand: bins, hulls, brackets, and the line through the points."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study import fits
from lmscale.study.fits.approaches.envelope_curves import Curves, bracketed, by_bins, by_hull
from lmscale.study.fits.results.frontier import Frontier
from lmscale.study.fits.solvers.power_law import loss_through
from lmscale.study.laws import CHINCHILLA_REFIT


def curves_of(**runs: tuple[float, list[float], list[float]]) -> Curves:
    """Curves by name: ln N, ln C and losses."""
    sizes, flops, losses = zip(*runs.values())
    return Curves(tuple(runs), np.array(sizes), tuple(map(np.array, flops)), tuple(map(np.array, losses)))


LADDER = curves_of(
    a=(0.0, [0.0, 4.0], [5.0, 3.0]),
    b=(1.0, [3.0, 8.0], [4.0, 2.5]),
    c=(2.0, [6.6], [2.2]),
)


def test_each_bin_has_the_lowest_curve_and_a_point_is_lower_than_all_cheaper_ones() -> None:
    """A run of one row counts in the nearest bin; column 1 is a resample without the run a."""
    envelope = by_bins(LADDER, np.arange(11.0), np.array([[1, 0], [2, 1], [1, 1]]))
    inf = math.inf
    assert envelope.loss[:, 0] == pytest.approx([5, 4.5, 4, 3.5, 3, 3.4, 3.1, 2.2, 2.5, inf, inf])
    assert envelope.on[:, 0].tolist() == [True] * 5 + [False, False, True] + [False] * 3
    assert envelope.run[envelope.on[:, 0], 0].tolist() == [0, 0, 0, 0, 0, 2]
    assert envelope.loss[:, 1] == pytest.approx([inf] * 3 + [4, 3.7, 3.4, 3.1, 2.2, 2.5, inf, inf])
    assert envelope.on[:, 1].tolist() == [False] * 3 + [True] * 5 + [False] * 3
    assert envelope.sizes(LADDER) == 2


def test_a_hull_is_convex_in_the_logarithm_of_the_loss() -> None:
    """2.9 between 4 and 2 is above their geometric mean, 2.83, though below their mean; what rises is off."""
    hull = by_hull(
        curves_of(a=(0.0, [0.0, 1.0, 2.0], [4.0, 2.9, 2.0]), b=(1.0, [0.5, 3.0, 4.0], [3.9, 1.6, 1.7])),
        np.array([[1, 0, 1], [1, 1, 0]]),
    )
    corners = [
        list(zip(hull.log_flops[on, k].tolist(), hull.loss[on, k].tolist(), hull.run[on, k].tolist()))
        for k, on in enumerate(hull.on.T)
    ]
    assert corners == [[(0, 4, 0), (2, 2, 0), (3, 1.6, 1)], [(0.5, 3.9, 1), (3, 1.6, 1)], [(0, 4, 0), (2, 2, 0)]]


def test_a_size_is_bracketed_by_sizes_a_factor_two_away_that_were_run_near_its_compute() -> None:
    curves = curves_of(
        small=(0.0, [0.0, 4.0], [3.0, 2.0]), middle=(1.5, [0.0, 9.0], [3.0, 2.0]), large=(3.0, [2.0, 9.0], [3.0, 2.0])
    )
    edge, near = math.log(2), math.log(1.3)
    for x, low, high in (
        (3.0, 0.0, 3.0),
        (4 + 0.99 * near, 0.0, 3.0),
        (4 + 1.01 * near, 1.5, 3.0),
        (2 - 0.99 * near, 0.0, 3.0),
        (2 - 1.01 * near, 0.0, 1.5),
    ):
        sizes = np.array([low + 1.01 * edge, low + 0.99 * edge, high - 1.01 * edge, high - 0.99 * edge])
        inside = bracketed(curves, np.full((4, 1), x), sizes[:, None])[:, 0].tolist()
        assert inside == [low + 1.01 * edge <= high - edge, False, high - 1.01 * edge >= low + edge, False], x


def table(smallest: float = 3e6, largest: float = 3e9) -> pd.DataFrame:
    """Training curves at a constant rate, from 1e17 to 1e20 FLOPs, of the refitted law."""
    rows = [
        {"run": f"n{k}", "params": n, "tokens": d, "flops": 6 * n * d, "loss_nats": CHINCHILLA_REFIT.loss(n, d)}
        for k, n in enumerate(np.geomspace(smallest, largest, 24))
        for d in np.geomspace(1e7, 1e12, 60)
    ]
    return pd.DataFrame(rows).assign(schedule="constant").query("1e17 <= flops <= 1e20").reset_index(drop=True)


@pytest.fixture(scope="module", params=["bins", "hull"])
def fit(request: Any) -> Frontier:
    return fits.frontier(table(6e7, 1e9), envelope=request.param, resamples=60)


def test_the_line_goes_through_the_points_that_sizes_bracket(fit: Frontier) -> None:
    points = pd.DataFrame([vars(point) for point in fit.frontier])
    used = points[points["in_line"]]
    assert 3 <= len(used) < len(points)
    x, y = np.log(used["flops"]), np.log(used["params"])
    a, shift = np.polyfit(x, y, 1)
    assert (fit.a, math.log(fit.G)) == (pytest.approx(a), pytest.approx(shift))
    assert fit.objective == pytest.approx(float(np.sum((y - shift - a * x) ** 2)))
    E, A, gamma = loss_through(used["flops"].to_numpy(), used["loss_nats"].to_numpy()[:, None])
    assert fit.loss_curve == pytest.approx((E[0], A[0], gamma[0]))
    assert points["tokens"].to_numpy() == pytest.approx((points["flops"] / 6 / points["params"]).to_numpy(), rel=1e-3)
    assert (fit.n_runs, fit.at) == (24, (1e18, 1e19, 1e20))
    assert fit.largest_flops == pytest.approx(table(6e7, 1e9)["flops"].max())


def test_resamples_take_the_line_of_their_own_envelope_between_the_same_budgets(fit: Frontier) -> None:
    """Whole runs are drawn: the spread of a is that of losing sizes, and its middle that of the fit."""
    assert fit.samples is not None
    assert len(fit.samples["a"]) == 60
    assert np.median(fit.samples["a"]) == pytest.approx(fit.a, abs=0.02)
    at = 1e19
    drawn = fit.samples["G"] * at ** fit.samples["a"]
    assert np.median(drawn) == pytest.approx(fit.G * at**fit.a, rel=0.1)
    assert "bootstrap" not in {status.name for status in fit.status}


def test_budgets_are_the_powers_of_ten_inside_the_range_and_the_next() -> None:
    rows = table()
    assert fits.frontier(rows[rows["flops"] > 1.5e17], resamples=0).at == (1e18, 1e19, 1e20)
    assert fits.frontier(rows[rows["flops"] < 7e18], resamples=0).at == (1e18, 1e19)


def test_budgets_beyond_the_largest_run_are_named() -> None:
    for at, beyond in ((1e19, False), (1e23, True)):
        fit = fits.frontier(table(6e7, 1e9), resamples=0, at=at)
        (status,) = (status for status in fit.status if status.name == "extrapolation")
        assert ("every stated budget lies within" in status.sentence) != beyond


def points(*rows: tuple[float, float, float]) -> pd.DataFrame:
    """Runs of one row each: params, flops, loss."""
    table = pd.DataFrame(rows, columns=["params", "flops", "loss_nats"])
    return table.assign(run=[f"run {k}" for k in range(len(rows))], tokens=table["flops"] / 6 / table["params"])


def test_three_points_of_two_sizes_over_a_range_of_compute_make_a_line() -> None:
    three = points((1e7, 1e17, 4.0), (2e7, 1e18, 3.5), (2e7, 1e19, 3.0))
    assert len(fits.frontier(three, resamples=0, check=False).frontier) == 3
    for rows, count in ((three.iloc[:2], "2 points of 2 model sizes"), (three.assign(params=1e7), "of 1 model size ")):
        rows = rows.assign(tokens=rows["flops"] / 6 / rows["params"])  # noqa: PLW2901
        with pytest.raises(UserError, match=count):
            fits.frontier(rows, resamples=0)
    wide = three.assign(flops=[1e17, 1.1e17, 1.2e17]).assign(tokens=lambda rows: rows["flops"] / 6 / rows["params"])
    assert len(fits.frontier(wide, resamples=0, check=False).frontier) == 3
    narrow = wide.assign(flops=[1e17, 1.04e17, 1.09e17]).assign(tokens=lambda t: t["flops"] / 6 / t["params"])
    with pytest.raises(UserError, match="all rows lie near 1e"):
        fits.frontier(narrow, resamples=0)


def test_a_run_is_of_one_size_up_to_rounding() -> None:
    rows = table()
    rows["params"] *= np.where(np.arange(len(rows)) % 2, 1.004, 1.0)
    assert fits.frontier(rows, resamples=0).n_runs == 24
    two = rows.assign(params=rows["params"] * np.where(np.arange(len(rows)) % 2, 1.1, 1.0))
    two["tokens"] = two["flops"] / 6 / two["params"]
    with pytest.raises(UserError, match="several model sizes"):
        fits.frontier(two, resamples=0)
