"""Approach 2 in its parts, against formulas written anew: one run's noise, minima, their bias, and budgets."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import Akima1DInterpolator

from lmscale.study.fits.approaches import isoflop_minima
from lmscale.study.fits.approaches.isoflop_minima import ValleyMinimum, power_law, valley_minimum
from lmscale.study.fits.approaches.isoflop_valleys import IsoFlopValley
from lmscale.study.fits.runs import usable
from lmscale.study.fits.uncertainty import isoflop_bias, isoflop_noise
from lmscale.study.fits.uncertainty.isoflop_bias import InterpolationGaps, NoiselessValleys
from lmscale.study.fits.uncertainty.simulate import isoflop_design, simulate
from lmscale.study.laws import HOFFMANN_2022, Chinchilla, ComputeModel

WOBBLE = 0.01 * np.array([1.0, -2, 0.5, 1.5, -1, 0.3, -0.7, 2, -1.1, 0.4, 0.9, -0.6])
LAW = Chinchilla(1.69, 406.4, 410.7, 0.34, 0.28)
BUDGETS = (1e17, 3e17, 1e18, 3e18)


def valley(x: Any, loss: Any, flops: float = 1e18) -> IsoFlopValley:
    """A valley by ln N - ln 1e7 and loss."""
    return IsoFlopValley(flops, np.log(1e7) + np.asarray(x, float), np.asarray(loss, float), ("run",) * len(x))


def bowl(sizes: int) -> IsoFlopValley:
    """One run of each of `sizes` sizes half a step apart, off a parabola by `WOBBLE`."""
    x = 0.5 * np.arange(sizes)
    return valley(x, 3 + 0.1 * (x - x.mean()) ** 2 + WOBBLE[:sizes])


def sweep(noise: float = 0.0, law: Chinchilla = LAW, factor: float = 4.0, sizes: int = 7) -> pd.DataFrame:
    return simulate(law, isoflop_design(law, BUDGETS, sizes, factor), noise, np.random.default_rng(0))


def contrasts(one: IsoFlopValley) -> np.ndarray:
    """Third differences of equally spaced losses over the norm of (1, 3, 3, 1)."""
    return np.diff(one.loss_n, n=3) / 20**0.5


def about_a_parabola(one: IsoFlopValley) -> np.ndarray:
    return one.loss_n - np.polyval(np.polyfit(one.log_params_n, one.loss_n, 2), one.log_params_n)


@pytest.mark.parametrize(("pairs", "source"), [(3, "equal runs"), (2, "third differences")])
def test_three_degrees_of_freedom_of_equal_runs_tell_the_noise(pairs: int, source: str) -> None:
    """Each pair 0.02 apart leaves 2 x 0.01^2 and one degree of freedom; of two valleys, the sums add up."""
    single = bowl(8)
    twice = valley(np.repeat([0.0, 1, 2][:pairs], 2), np.tile([2.99, 3.01], pairs))
    noise = isoflop_noise.noise([twice, single] if pairs == 2 else [twice, valley([0, 1, 2], [3, 2, 3])])
    assert noise.source.startswith(source)
    if pairs == 3:
        assert (noise.sd, noise.freedom) == (pytest.approx((6 * 0.01**2 / 3) ** 0.5), 3)
        assert noise.source == "equal runs, 3 degrees of freedom"
    two = [valley(twice.log_params_n - np.log(1e7), [2.98, 3.02] * pairs), twice]
    assert isoflop_noise.noise(two).sd == pytest.approx((0.01**2 + 0.02**2) ** 0.5)


@pytest.mark.parametrize(("sizes", "count", "freedom"), [((8,), 5, 2.0), ((8, 8), 10, 3.7)])
def test_five_third_differences_tell_the_noise_by_their_median(
    sizes: tuple[int, ...], count: int, freedom: float
) -> None:
    valleys = [bowl(number) for number in sizes]
    noise = isoflop_noise.noise(valleys)
    sd = np.median(np.abs(np.concatenate([contrasts(one) for one in valleys]))) / 0.6745
    assert (noise.sd, noise.freedom) == (pytest.approx(sd), pytest.approx(freedom))
    assert noise.source == f"third differences of neighbouring sizes, {count} of them, by their median"


def test_four_third_differences_leave_it_to_the_parabolas() -> None:
    """The sums of squares and of n - 3 degrees of freedom of all budgets with four sizes or more."""
    valleys = [bowl(7), bowl(4), bowl(3)]
    noise = isoflop_noise.noise([valleys[0]])
    assert (noise.sd, noise.freedom) == (pytest.approx(np.linalg.norm(about_a_parabola(valleys[0])) / 2), 4)
    squares = sum(float(np.sum(about_a_parabola(one) ** 2)) for one in valleys)
    assert isoflop_noise.about_parabolas(valleys) == (pytest.approx((squares / 5) ** 0.5), 5)
    unknown = isoflop_noise.noise([bowl(3)])
    assert (unknown.sd, unknown.freedom) == (0.0, None) and "unknown" in unknown.source


def test_what_a_parabola_misses_of_the_law_is_no_noise() -> None:
    """The scatter of the law's own asymmetry is subtracted where that leaves less."""
    seen = bowl(8)
    skew = 0.05 * (seen.log_params_n - seen.log_params_n.mean()) ** 3
    skewed = valley(seen.log_params_n - np.log(1e7), seen.loss_n + skew)
    law = valley(seen.log_params_n - np.log(1e7), 3 + skew)
    alone = np.linalg.norm(about_a_parabola(seen)) / 5**0.5
    assert isoflop_noise.parabola_noise([skewed]).sd > 1.2 * alone
    noise = isoflop_noise.parabola_noise([skewed], [law])
    assert (noise.sd, noise.freedom) == (pytest.approx(alone), 5)
    assert isoflop_noise.parabola_noise([seen], [law]).sd == pytest.approx(alone)
    assert isoflop_noise.parabola_noise([bowl(4)]).freedom == 1


def test_parabolas_give_way_at_three_times_the_noise() -> None:
    scatter, _ = isoflop_noise.about_parabolas([bowl(8)])
    assert isoflop_noise.choose([bowl(8)], scatter / 2.99)[0] == "parabola"
    method, why = isoflop_noise.choose([bowl(8)], scatter / 3.01)
    assert method == "akima" and "3.0 times one run's noise" in why and f"by {scatter:.4f} nats" in why
    assert isoflop_noise.choose([bowl(8)], 0.0)[0] == isoflop_noise.choose([bowl(3)], 1e-9)[0] == "parabola"


class Draws:
    """A generator whose standard normal numbers are these."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values, float)

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.values.reshape(shape)


def lowest(one: IsoFlopValley, method: str = "parabola", draws: Any = None, window: float | None = None) -> Any:
    """`valley_minimum`, with one column of `draws` (n, r) in nats per draw."""
    values = np.zeros((len(one.loss_n), 1)) if draws is None else np.asarray(draws, float)
    noise_r = np.ones(values.shape[1]) if draws is not None else np.zeros(1)
    return valley_minimum(one, method, noise_r=noise_r, rng=Draws(values), window=window)  # type: ignore[arg-type]


SKEWED = valley([0, 0.4, 1, 1.5, 2.6], [3.4, 3.1, 3.0, 3.02, 3.3])
"""Sizes at unequal distances, lowest away from their middle."""


def vertex(x: np.ndarray, loss: np.ndarray) -> tuple[float, float]:
    curve, tilt, level = np.polyfit(x, loss, 2)
    return -tilt / (2 * curve), level - tilt**2 / (4 * curve)


def test_a_parabolas_minimum_is_its_vertex() -> None:
    x = SKEWED.log_params_n - np.log(1e7)
    at, loss = vertex(x, SKEWED.loss_n)
    minimum = lowest(SKEWED)
    assert (minimum.params, minimum.loss_nats) == (pytest.approx(1e7 * np.exp(at)), pytest.approx(loss))
    assert abs(at - x.mean()) > 0.1
    shift = 0.05 * x[:, None] * np.array([1.0, 2.0, -1.0])
    drawn = lowest(SKEWED, draws=shift)
    expected = [vertex(x, SKEWED.loss_n + column) for column in shift.T]
    assert drawn.params == minimum.params  # the data's own, not the middle of the draws
    assert drawn.log_params_r - np.log(1e7) == pytest.approx([one for one, _ in expected])
    assert drawn.loss_r == pytest.approx([one for _, one in expected])
    assert drawn.log_params_sd == pytest.approx(np.std([one for one, _ in expected]))


def test_a_window_takes_the_sizes_within_its_factor_of_the_lowest_and_at_least_three() -> None:
    x, loss = np.arange(7.0), np.array([4.5, 3.5, 3.1, 3.0, 3.05, 3.3, 3.9])
    for window, inside in ((np.exp(2), slice(1, 6)), (np.exp(1.5), slice(2, 5)), (1.0, slice(2, 5)), (1e9, slice(7))):
        at, _ = vertex(x[inside], loss[inside])
        assert lowest(valley(x, loss), window=window).params == pytest.approx(1e7 * np.exp(at))
    seeds = valley([0, 1, 1, 1, 2, 3], [3.5, 3.0, 3.01, 2.99, 3.2, 3.9])  # three runs in the window, of one size
    at, _ = vertex(np.array([0, 1, 1, 1, 2.0]), seeds.loss_n[:5])
    assert lowest(seeds, window=1.5).params == pytest.approx(1e7 * np.exp(at))


@pytest.mark.parametrize(("third", "depth"), [(2.5, 0.225), (3.0, 1 / 3)])
def test_a_minimum_far_below_every_run_is_no_minimum(third: float, depth: float) -> None:
    """The parabola through (0, 1), (1, 0), (x, 0) is lowest (x - 1)^2 / 4x below both; a quarter is too deep."""
    minimum = lowest(valley([0, 1, third], [4, 3, 3]))
    if depth <= 0.25:
        assert minimum.loss_nats == pytest.approx(3 - depth)
    else:
        assert minimum == f"overshoot: the interpolated minimum lies {depth:.3g} nats below every run"


def test_a_valley_is_flat_only_by_rounding() -> None:
    assert lowest(valley([0, 1, 2], [3 + 1e-6, 3, 3 + 1e-6])).loss_nats == pytest.approx(3)
    assert lowest(valley([0, 1, 2], [3 + 1e-9, 3, 3 + 1e-9])) == "flat: every size has the same loss"
    assert lowest(valley([0, 1], [3, 4])) == "2 model sizes; a minimum needs at least 3"


@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_a_minimum_at_an_end_counts_where_sizes_bracket_it(end: str) -> None:
    x = np.arange(5.0)
    beyond, inside = 3 + 0.1 * (x - 0.4) ** 2, np.array([3.004, 3.169, 3.009, 3.049, 3.289])
    flip = slice(None, None, -1 if end == "largest" else 1)
    expected = f"edge: lowest at the {end} size, with the parabola's minimum beyond the next: nothing brackets it"
    assert 0 < vertex(x, beyond)[0] < 1 < vertex(x, inside)[0]
    assert lowest(valley(x, beyond[flip])) == expected
    assert lowest(valley(x, inside[flip])).params == pytest.approx(1e7 * np.exp(vertex(x, inside[flip])[0]))
    falling = np.array([2.0, 2.1, 2.4, 2.9, 3.6])
    assert lowest(valley(x, falling[flip])).startswith("out of range: the parabola's minimum")
    assert lowest(valley(x, falling[flip]), "akima").startswith("edge: the interpolated curve is lowest at its")


@pytest.mark.parametrize("usable_draws", [5, 4])
def test_half_of_the_draws_must_have_a_minimum(usable_draws: int) -> None:
    """Some of ten draws tilt the parabola by 0.05 and -0.05 by turns, the others bend it downward."""
    x = np.arange(5.0)
    draws = np.stack([0.05 * (-1) ** k * x if k < usable_draws else -((x - 2) ** 2) for k in range(10)], axis=1)
    minimum = lowest(valley(x, 3 + 0.1 * (x - 2) ** 2), draws=draws)
    if usable_draws < 5:
        assert minimum == "unstable: only 4 of 10 noise draws have a minimum inside the sizes"
        return
    centres = 2 - 0.25 * (-1.0) ** np.arange(5)
    assert minimum.log_params_r - np.log(1e7) == pytest.approx(centres)
    assert minimum.log_params_sd == pytest.approx(2 * centres.std())  # twice, as half of the draws are lost


def test_akimas_minimum_is_scipys_of_the_logarithm() -> None:
    x = SKEWED.log_params_n
    grid = np.linspace(x[0], x[-1], 25 * 4)
    spacing = grid[1] - grid[0]

    def by_scipy(loss: np.ndarray) -> tuple[float, float]:
        curve = Akima1DInterpolator(x, np.log(loss))(grid)
        return grid[curve.argmin()], np.exp(curve.min())

    minimum = lowest(SKEWED, "akima")
    at, loss = by_scipy(SKEWED.loss_n)
    assert (np.log(minimum.params), minimum.loss_nats) == (pytest.approx(at), pytest.approx(loss))
    assert minimum.log_params_sd == pytest.approx(0.33 * 25 * spacing)  # a third of the spacing of sizes, at least
    shift = 0.2 * (x - x[0])[:, None] * np.array([1.0, 0.5, -0.5, -0.9, -0.4])
    drawn = lowest(SKEWED, "akima", draws=shift)
    ends = np.array([by_scipy(SKEWED.loss_n + column)[0] for column in shift.T])
    assert drawn.log_params_r == pytest.approx(ends) and np.median(ends) != at
    assert np.log(drawn.params) == pytest.approx(np.median(ends))


def test_a_draw_below_zero_has_no_minimum_by_akima() -> None:
    draws = np.zeros((5, 4))
    draws[2, 0] = -4.0
    minimum = lowest(SKEWED, "akima", draws=draws)
    assert len(minimum.loss_r) == 3 and np.isfinite(minimum.loss_r).all()


def test_akima_takes_the_mean_slope_where_neither_side_changes() -> None:
    """Slopes 1, 1, 3, 3: nothing changes beyond the kink, so its slope is their mean (Akima 1970, step 2)."""
    slopes = isoflop_minima.akima_slopes(np.arange(5.0), np.array([0.0, 1, 2, 5, 8])[:, None])[:, 0]
    assert slopes == pytest.approx([1, 1, 2, 3, 3])


def minima(log_params: Any, sd: Any, draws: Any) -> tuple[np.ndarray, list[ValleyMinimum]]:
    """Minima at budgets a factor e apart."""
    flops = 1e18 * np.exp(np.arange(len(log_params)))
    losses = 2 + np.exp(-0.3 * np.arange(len(log_params)))
    rows = zip(flops, log_params, losses, sd, draws)
    return flops, [
        ValleyMinimum(c, np.exp(n), loss, 7, np.asarray(d), np.full(len(d), loss), s) for c, n, loss, s, d in rows
    ]


def test_the_line_of_minima_is_weighted_in_the_draws_too() -> None:
    """Draws are those that all budgets have; of three minima, two known ten times better."""
    log_params, sd = np.array([18.0, 18.6, 19.0]), np.array([1.0, 0.1, 0.1])
    rng = np.random.default_rng(0)
    draws = [n + 0.1 * rng.standard_normal(count) for n, count in zip(log_params, (5, 3, 4))]
    line = power_law(*minima(log_params, sd, draws), draws=5, between=False)
    a, shift = np.polyfit([0, 1, 2], log_params, 1, w=1 / sd)
    assert line.a == pytest.approx(a) and line.G * 1e18**line.a == pytest.approx(np.exp(shift))
    assert line.objective == pytest.approx(float(np.sum(((log_params - shift - a * np.arange(3)) / sd) ** 2)))
    assert line.samples is not None
    drawn = np.stack([one[:3] for one in draws])
    assert line.samples["a"] == pytest.approx(np.polyfit([0, 1, 2], drawn, 1, w=1 / sd)[0])
    assert power_law(*minima(log_params[:2], [0.1, 0.1], draws[:2]), draws=3).unexplained_sd == 0


def test_three_minima_have_scatter_of_their_own() -> None:
    """tau^2 = chi^2 / 1 - sd^2: the residuals of 0, 0.3, 0 about their line are 0.1 (-1, 2, -1), squares 0.06."""
    line = power_law(*minima([18, 18.3, 18], [0.01] * 3, [[18] * 2, [18.3] * 2, [18] * 2]), draws=2)
    assert line.unexplained_sd == pytest.approx((0.06 - 0.01**2) ** 0.5)


def gaps_of(log_params: Any, known: Any) -> InterpolationGaps:
    values = np.asarray(log_params, float)
    return InterpolationGaps(1e18 * np.exp(np.arange(len(values))), values, 2 * values, np.array(known), "a law")


def test_every_second_draw_is_less_the_gap() -> None:
    _, rows = minima([18.0, 19.0], [0.1] * 2, [18 + 0.01 * np.arange(5), [19.0] * 4])
    one, other = gaps_of([0.3, -0.2], [True] * 2).in_half_the_draws(rows)
    assert one.log_params_r == pytest.approx([18.0, 17.71, 18.02, 17.73, 18.04])
    assert one.loss_r - rows[0].loss_r == pytest.approx([0, -0.6, 0, -0.6, 0])
    assert other.log_params_r == pytest.approx([19, 19.2, 19, 19.2])
    assert one.params == rows[0].params and one.log_params_sd == 0.1


def test_gaps_move_the_line_as_they_weigh_in_it() -> None:
    gaps, weights = gaps_of([0.1, 9.0, 0.2, 0.4], [True, False, True, True]), np.array([4.0, 1.0, 1.0, 9.0])
    bias = gaps.along(weights, in_draws=True)
    assert bias is not None and bias.in_draws and bias.law == "a law"
    x = np.log(1e18) + np.array([0, 2, 3])
    a, shift = np.polyfit(x, [0.1, 0.2, 0.4], 1, w=np.sqrt([4, 1, 9]))
    assert (bias.a, bias.log_G) == (pytest.approx(a), pytest.approx(shift, rel=1e-6))
    assert bias.log_params == pytest.approx(0.7 / 3)
    two = gaps_of([0.1, 0.3], [True, True]).along(np.ones(2), in_draws=False)
    assert two is not None and two.a == pytest.approx(0.2) and not two.in_draws
    assert gaps_of([0.1, 0.3], [True, False]).along(np.ones(2), in_draws=True) is None


@pytest.mark.parametrize("window", [None, 6.0])
def test_the_gap_is_that_of_the_same_sizes_on_the_law(window: float | None) -> None:
    """Under a compute model that is not 6 N D: losses at the tokens that it leaves, minima along it."""
    compute = ComputeModel(5.0, 1.02, 1.0)
    runs = usable(sweep(factor=16.0), ("params",))
    params = LAW.optimum(1e18, compute).params * np.geomspace(1 / 16, 16, 7)
    exact = LAW.loss(params, compute.tokens(1e18, params))
    one = NoiselessValleys(LAW, "this law", [IsoFlopValley(1e18, np.log(params), exact, ("run",) * 7)])
    minimum = ValleyMinimum(1e18, 1e7, 3.0, 7, np.zeros(1), np.zeros(1), 0.1)
    gaps = isoflop_bias.gaps(one, [minimum], method="parabola", window=window, compute=compute)
    near = np.abs(np.arange(7) - exact.argmin()) * np.log(16) / 3 <= np.log(window or 1e9) + 1e-9
    at, loss = vertex(np.log(params[near]), exact[near])
    truth = LAW.optimum(1e18, compute)
    assert gaps.log_params == pytest.approx([at - np.log(truth.params)], abs=1e-9) and gaps.known.all()
    assert gaps.loss_nats == pytest.approx([loss - truth.loss_nats], abs=1e-9)
    nowhere = NoiselessValleys(LAW, "", [IsoFlopValley(1e18, np.log(params), -exact, ("run",) * 7)])
    lost = isoflop_bias.gaps(nowhere, [minimum], method="parabola", window=None, compute=compute)
    assert not lost.known.any() and lost.log_params.tolist() == lost.loss_nats.tolist() == [0.0]
    seen = isoflop_noise_valleys(runs)
    noiseless = isoflop_bias.noiseless_valleys(runs, seen, compute)
    assert noiseless.whose == "Approach 3's law of this table"
    sizes = np.exp(seen[0].log_params_n)
    assert noiseless.valleys[0].loss_n == pytest.approx(LAW.loss(sizes, compute.tokens(1e17, sizes)), rel=1e-5)


def isoflop_noise_valleys(runs: Any) -> list[IsoFlopValley]:
    from lmscale.study.fits.approaches.isoflop_valleys import valleys_of

    return valleys_of(runs, runs.column("flops_budget"))


def test_a_law_that_the_table_does_not_identify_is_hoffmanns() -> None:
    table = sweep().assign(tokens=lambda rows: 20 * rows["params"])
    table["loss_nats"] = LAW.loss(table["params"], table["tokens"])
    for rows in (table, sweep().iloc[:3]):
        known, whose = isoflop_bias._known_law(usable(rows, ("params",)))
        assert known is HOFFMANN_2022 and whose == "Hoffmann's published law"


def test_sizes_within_two_per_cent_are_one_whatever_the_order() -> None:
    table = pd.concat([sweep(), sweep().assign(params=lambda rows: rows["params"] * 1.015)], ignore_index=True)
    one = isoflop_noise_valleys(usable(table.sample(frac=1, random_state=0), ("params",)))[0]
    assert (len(one.sizes), len(one.loss_n)) == (7, 14)
    assert (np.diff(one.log_params_n) >= 0).all()
    assert len(valley([0, 0.05, 0.1, 0.15], [3, 2.9, 2.95, 3]).sizes) == 4
