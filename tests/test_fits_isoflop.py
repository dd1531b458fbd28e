"""Approaches 1 and 2: minima against known ones, what is rejected, published exponents where the tables are at hand."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import Akima1DInterpolator

from lmscale.core.errors import UserError
from lmscale.study import fits
from lmscale.study.fits.approaches import isoflop_minima
from lmscale.study.fits.approaches.isoflop_minima import ValleyMinimum, power_law
from lmscale.study.fits.approaches.isoflop_valleys import IsoFlopValley
from lmscale.study.fits.results.frontier import Frontier
from lmscale.study.fits.results.isoflop import IsoFlop
from lmscale.study.fits.solvers.power_law import loss_through
from lmscale.study.fits.uncertainty.simulate import grid_design, isoflop_design, simulate
from lmscale.study.laws import CHINCHILLA_REFIT, Chinchilla
from lmscale.study.tables import read_table

SHARED = Path(os.environ.get("SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data" / "scaling"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the published tables are not at hand")

BUDGETS = (1e17, 3e17, 1e18, 3e18)
SYMMETRIC = Chinchilla(1.8, 400.0, 400.0, 0.35, 0.35)


def sweep(
    noise: float = 0.0, law: Chinchilla = SYMMETRIC, factor: float = 4.0, sizes: int = 7, seed: int = 0
) -> pd.DataFrame:
    return simulate(law, isoflop_design(law, BUDGETS, sizes, factor), noise, np.random.default_rng(seed))


def named(fit: IsoFlop | Frontier) -> dict[str, str]:
    return {status.name: status.sentence for status in fit.status}


@pytest.mark.parametrize("method", ["parabola", "akima"])
def test_symmetric_valleys_are_found_exactly(method: str) -> None:
    fit = fits.isoflop(sweep(), valley=method, resamples=0, noise_nats=0.001)
    assert fit.a == pytest.approx(0.5, abs=3e-3)  # Akima's minimum is one of a grid's points
    for point in fit.minima:
        truth = SYMMETRIC.optimum(point.flops)
        assert point.params == pytest.approx(truth.params, rel=0.02)
        assert point.loss_nats == pytest.approx(truth.loss_nats, rel=1e-3)
    assert fit.optimum(1e18).tokens * fit.optimum(1e18).params * 6 == pytest.approx(1e18)


def test_the_parabolas_bias_is_stated() -> None:
    law = Chinchilla(1.69, 406.4, 410.7, 0.34, 0.28)
    fit = fits.isoflop(sweep(0.0, law, factor=16.0), valley="parabola", resamples=0, noise_nats=1e-3)
    gap = np.mean([m.params / law.optimum(m.flops).params - 1 for m in fit.minima])
    assert gap > 0.02  # wide valleys pull it to the flatter side, to larger models
    percent = float(named(fit)["bias of the interpolation"].split("N* off by ")[1].split()[0])
    assert percent == pytest.approx(100 * gap, abs=0.2)  # in percent


def test_intervals_include_the_parabolas_bias() -> None:
    law = Chinchilla(1.69, 406.4, 410.7, 0.465, 0.155)
    fit, alone = (
        fits.isoflop(sweep(0.0002, law, factor=16.0), valley="parabola", resamples=400, noise_nats=given)
        for given in (None, 1e-3)
    )
    at, truth = max(BUDGETS), float(law.optimum(max(BUDGETS)).params)
    assert abs(fit.optimum(at).params / truth - 1) > 0.05
    assert fit.bias is not None
    assert fit.bias.in_draws
    less = fit.G * np.exp(-fit.bias.log_G) * at ** (fit.a - fit.bias.a)
    assert less == pytest.approx(truth, rel=0.01)
    low, high = fit.interval(lambda one: one.optimum(at).params)
    assert low <= truth <= high
    assert low <= fit.optimum(at).params <= high
    (row,) = (m for m in fit.minima if m.flops == at)
    low, high = row.intervals["0.95"]["params"]
    assert low * 0.97 <= truth < 0.97 * row.params < high
    # A noise that is given is taken at its word, as published intervals are.
    low, high = alone.interval(lambda one: one.optimum(at).params)
    assert not low <= truth <= high
    assert "do not include it" in named(alone)["bias of the interpolation"]


def test_parabolas_give_way_where_they_miss_the_runs() -> None:
    law = Chinchilla(1.69, 406.4, 410.7, 0.34, 0.28)
    assert fits.isoflop(sweep(0.002, law, factor=3.0), resamples=50).method == "parabola"
    wide = fits.isoflop(sweep(0.0005, law, factor=60.0, sizes=13), resamples=50)
    assert wide.method == "akima"
    assert "too wide" in named(wide)["method"]


def test_intervals_narrow_with_the_noise_and_cover_the_truth() -> None:
    loud, quiet = (
        fits.isoflop(sweep(s, seed=3), resamples=400, noise_nats=s * 3, valley="parabola", check=False)
        for s in (0.004, 0.0004)
    )
    low, high = loud.interval("a")
    assert low < 0.5 < high
    assert high - low > 5 * (quiet.interval("a")[1] - quiet.interval("a")[0])
    assert (
        loud.minima[0].intervals["0.95"]["params"][0]
        < loud.minima[0].params
        < loud.minima[0].intervals["0.95"]["params"][1]
    )


def test_noise_comes_from_repeated_runs_where_there_are_some() -> None:
    table = pd.concat([sweep(0.003, seed=seed) for seed in range(4)])
    fit = fits.isoflop(table, resamples=20, check=False)
    assert "equal runs" in fit.noise_source
    assert fit.noise_nats == pytest.approx(0.003 * table["loss_nats"].mean(), rel=0.2)
    single = fits.isoflop(sweep(0.003), resamples=20, check=False)
    assert "about the parabolas" in single.noise_source
    assert single.noise_nats == pytest.approx(0.003 * table["loss_nats"].mean(), rel=0.4)
    akima = fits.isoflop(sweep(0.003), valley="akima", resamples=20, check=False)
    assert "third differences" in akima.noise_source


def test_bad_valleys_are_left_out_by_name() -> None:
    table = sweep()
    x = np.log(table["params"])
    first, second, third = sorted(table["flops_budget"].unique())[:3]
    one, two = (table["flops_budget"] == flops for flops in (first, second))
    table.loc[one, "loss_nats"] = 4 - 0.1 * (x - x[one].mean())[one] ** 2  # opens downward
    table.loc[two, "loss_nats"] = 4 + 0.1 * (x - x[two].max() - 1)[two] ** 2  # falls throughout
    extra = pd.concat([table, sweep().query(f"flops_budget == {third}").assign(flops_budget=9e18)], ignore_index=True)
    extra = extra.drop(extra.index[extra["flops_budget"] == third][2:])  # two sizes
    fit = fits.isoflop(extra, valley="parabola", resamples=0, noise_nats=1e-3)
    reasons = {d.run: d.reason for d in fit.dropped}
    assert reasons[f"budget {first:.4g}"].startswith("non-convex")
    assert reasons[f"budget {second:.4g}"].startswith(("out of range", "edge"))
    assert reasons[f"budget {third:.4g}"].startswith("2 model sizes")
    assert "3 of 5 budgets" in named(fit)["minima rejected"]
    with pytest.raises(UserError, match="at least two compute budgets and found 1"):
        fits.isoflop(extra[extra["flops_budget"] < 5e18], valley="parabola", resamples=0)


def test_a_budget_that_noise_washes_out_is_named() -> None:
    table = sweep(factor=1.2)
    with pytest.raises(UserError, match="unstable: only"):
        fits.isoflop(table, valley="parabola", noise_nats=0.5, resamples=200)


def test_runs_above_a_cheaper_one_are_not_on_the_envelope() -> None:
    table = curves(CHINCHILLA_REFIT)
    clean = fits.frontier(table, resamples=0)
    late = (table["flops"] > 1e19) & (table["flops"] < 5e19)
    bumpy = fits.frontier(
        table.assign(loss_nats=table["loss_nats"].where(~late, table["loss_nats"] * 1.3)), resamples=0
    )
    assert not [point for point in bumpy.frontier if 1.1e19 < point.flops < 4.5e19]
    assert [point for point in clean.frontier if 1.1e19 < point.flops < 4.5e19]


def test_one_budget_and_no_budget_are_refused() -> None:
    with pytest.raises(UserError, match="at least two compute budgets"):
        fits.isoflop(sweep().query("flops_budget == 1e17"))
    lonely = sweep().drop_duplicates("flops_budget")
    with pytest.raises(UserError, match=r"found 0 \(4 budgets, 1e\+17 to 3e\+18 FLOPs: 1 model size; a minimum needs"):
        fits.isoflop(lonely)
    table = simulate(SYMMETRIC, grid_design([1e7, 2e7, 4e7], [1e9, 2e9, 4.1e9]), 0.0, np.random.default_rng(0))
    with pytest.raises(UserError, match="no column flops_budget"):
        fits.isoflop(table)


def test_rows_without_a_budget_are_dropped_by_name() -> None:
    table = sweep()
    table.loc[4, "flops_budget"] = np.nan
    assert [(d.run, d.reason) for d in fits.isoflop(table, resamples=0).dropped] == [
        ("simulated 4", "no compute budget")
    ]


def test_held_out_budget_is_extrapolated_and_checked() -> None:
    table = sweep(0.001)
    table["held_out"] = table["flops_budget"] == max(BUDGETS)
    fit = fits.isoflop(table, resamples=200)
    assert len(fit.minima) == 3
    checked = fits.held_out_check(fit, table)
    assert len(checked.budgets) == 1
    assert checked.budgets[0].agree
    assert checked.budgets[0].predicted_params == pytest.approx(checked.budgets[0].measured_params, rel=0.1)
    assert "overlap" in str(checked)


def four_minima(sd: float) -> tuple[np.ndarray, list[ValleyMinimum]]:
    """N* = 1e8 (C/1e18)^0.5 at four budgets, a factor e apart, and 0.1 off in ln N by turns, so that no line is nearer.

    All draws of a minimum are alike.
    """
    step = np.arange(4.0)
    log_params = np.log(1e8) + 0.5 * step + 0.1 * np.array([1, -1, -1, 1])
    losses = 2 + np.exp(-0.3 * step)
    minima = [
        ValleyMinimum(c, float(np.exp(n)), float(loss), 7, np.full(4000, n), np.full(4000, loss), sd)
        for c, n, loss in zip(1e18 * np.exp(step), log_params, losses)
    ]
    return 1e18 * np.exp(step), minima


def test_scatter_about_the_line_of_minima_is_per_degree_of_freedom() -> None:
    """Squares of 4 x 0.1^2 over 4 - 2 degrees of freedom; what a noise of 0.05 leaves unexplained is tau."""
    flops, minima = four_minima(sd=0.05)
    line = power_law(flops, minima, draws=4000)
    assert (line.a, line.unweighted) == (pytest.approx(0.5), pytest.approx(0.5))
    assert line.G * 1e18**line.a == pytest.approx(1e8)
    assert line.residual_sd == pytest.approx(0.02**0.5)
    assert line.expected_sd == pytest.approx(0.05)
    assert line.unexplained_sd == pytest.approx((0.02 - 0.05**2) ** 0.5)
    assert line.weights == pytest.approx([1 / 0.02] * 4)
    assert line.objective == pytest.approx(2)  # chi^2, as large as its degrees of freedom
    assert line.samples is not None
    assert line.samples["a"].std() == pytest.approx(line.unexplained_sd / 5**0.5, rel=0.05)  # 5 = sum of (x - mean)^2


@pytest.mark.parametrize(("sd", "between", "chi2"), [(0.05, False, 16.0), (0.2, True, 1.0)])
def test_minima_have_no_scatter_of_their_own_unasked_or_where_noise_explains_it(
    sd: float, between: bool, chi2: float
) -> None:
    line = power_law(*four_minima(sd), draws=4000, between=between)
    assert line.unexplained_sd == 0 and line.objective == pytest.approx(chi2)
    assert line.samples is not None and line.samples["a"].std() == pytest.approx(0, abs=1e-12)


def test_akima_slopes_are_scipys() -> None:
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.uniform(0, 5, 9)), rng.standard_normal((9, 4))
    want = Akima1DInterpolator(x, y)(x, nu=1)
    assert isoflop_minima.akima_slopes(x, y) == pytest.approx(want, abs=1e-10)


def test_sizes_that_nearly_coincide_are_one() -> None:
    valley = IsoFlopValley(1e18, np.log([1e7, 1.001e7, 2e7, 4e7]), np.array([3.0, 3.2, 2.8, 3.0]), tuple("abcd"))
    assert len(valley.sizes) == 3
    assert valley.by_size(valley.loss_n[:, None])[:, 0] == pytest.approx([3.1, 2.8, 3.0])


def test_the_loss_along_the_minima_is_recovered() -> None:
    flops = np.geomspace(1e18, 1e22, 6)
    level, scale, gamma = loss_through(flops, (1.7 + 1.5 * (flops / 1e18) ** -0.16)[:, None])
    assert (level[0], scale[0], gamma[0]) == pytest.approx((1.7, 1.5, 0.16), rel=0.03)


@pytest.mark.parametrize("of", ["isoflop", "frontier"])
def test_json_and_back(of: str) -> None:
    fit = getattr(fits, of)(sweep(0.002), resamples=30, seed=3)
    again = type(fit).from_json(json.loads(json.dumps(fit.to_json(samples=True), allow_nan=False)))
    assert again.to_json(samples=True) == fit.to_json(samples=True)
    assert str(again) == str(fit)
    assert again.seed == fit.seed == 3
    with pytest.raises(UserError, match="no quantity 'alpha'"):
        fit.interval("alpha")


def curves(law: Chinchilla) -> pd.DataFrame:
    """Constant-rate training curves of 24 sizes, dense in tokens."""
    rows = [
        {
            "run": f"n{index}",
            "params": n,
            "tokens": d,
            "flops": 6 * n * d,
            "loss_nats": law.loss(n, d),
            "schedule": "constant",
        }
        for index, n in enumerate(np.geomspace(3e6, 3e9, 24))
        for d in np.geomspace(1e7, 1e12, 60)
    ]
    return pd.DataFrame(rows).query("1e17 <= flops <= 1e20")


@pytest.mark.parametrize("method", ["bins", "hull"])
def test_the_envelope_of_curves_has_the_laws_exponent(method: str) -> None:
    law = CHINCHILLA_REFIT
    fit = fits.frontier(curves(law), envelope=method, resamples=20)
    # The hull touches few of the curves, so its exponent is coarser.
    assert fit.a == pytest.approx(law.exponents()["params"], abs={"bins": 0.02, "hull": 0.05}[method])
    assert fit.optimum(1e19).params == pytest.approx(law.optimum(1e19).params, rel={"bins": 0.1, "hull": 0.3}[method])
    assert len(fit.frontier) >= 3
    assert all(later.loss_nats < earlier.loss_nats for earlier, later in zip(fit.frontier, fit.frontier[1:]))
    assert "schedules unknown" not in named(fit)
    assert "schedules unknown" in named(fits.frontier(curves(law).drop(columns="schedule"), resamples=0))


def test_an_envelope_of_one_size_is_refused() -> None:
    table = curves(CHINCHILLA_REFIT)
    with pytest.raises(UserError, match="2 sizes"):
        fits.frontier(table[table["run"] == "n3"])
    with pytest.raises(UserError, match="several model sizes"):
        fits.frontier(table.assign(run="one"))


@pytest.mark.long
def test_fit_runs_what_the_table_supports_and_says_the_rest() -> None:
    table = simulate(SYMMETRIC, grid_design([1e7, 2e7, 4e7, 8e7], [1e9, 2e9, 4.1e9]), 0.001, np.random.default_rng(0))
    results = fits.fit(table, resamples=20)
    assert [one.approach for one in results] == ["1", "3"]
    assert any(s.name == "approach 2 not fitted" for s in results[0].status)
    with pytest.raises(UserError, match="flops_budget"):
        fits.fit(table, ["2"])


PORIAN = [
    (("long", "kaplan", "kaplan"), (0.8353, 0.8235, 0.8460)),
    (("long", "kaplan", "standard"), (0.7065, 0.6915, 0.7169)),
    (("short", "kaplan", "standard"), (0.6020, 0.5914, 0.6173)),
    (("short", "chinchilla", "standard"), (0.5715, 0.5598, 0.5885)),
]


@pytest.mark.long
@needs_shared
@pytest.mark.parametrize(("setting", "published"), PORIAN)
def test_porians_chain(setting: tuple[str, str, str], published: tuple[float, float, float]) -> None:
    (warmup, decay, count), (a, low, high) = setting, published
    where = f"warmup == '{warmup}' and decay == '{decay}' and flop_count == '{count}'"
    table = read_table(SHARED / "porian2024_isoflop.csv", "budget=flops", where)
    fit = fits.isoflop(table, valley="akima", noise_nats=0.002, resamples=1000, check=False)
    assert fit.a == pytest.approx(a, abs=0.004)
    assert fit.interval("a") == pytest.approx((low, high), abs=0.006)
    assert fits.isoflop(table, resamples=200, check=False).a == pytest.approx(a, abs=0.03)


@needs_shared
def test_open_athenas_budgets_are_fitted_or_named() -> None:
    table = read_table(SHARED / "openathena_isoflops.csv", "budget=flops")
    for name, rows in table.groupby("experiment"):
        rows = rows.copy()  # noqa: PLW2901
        rows.attrs = {}
        fit = fits.isoflop(rows, resamples=100, check=False)
        left_out = {d.run for d in fit.dropped if d.run.startswith("budget")}
        assert len(fit.minima) + len(left_out) == rows["flops"].nunique(), name


@needs_shared
def test_published_chinchilla_valleys() -> None:
    """The parabola through all points of each budget, no noise weights: a in Hoffmann's [.462, .534]."""
    fit = fits.isoflop(read_table("chinchilla"), valley="parabola", resamples=0, check=False)
    assert 0.462 <= fit.a <= 0.534
    assert 0.462 <= fits.isoflop(read_table("chinchilla"), resamples=500, check=False).a <= 0.534
