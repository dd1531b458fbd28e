"""Laws compared on unseen runs, recipes by their compute, and registered predictions, against formulas written anew."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study import fits, laws
from lmscale.study.fits.options import FitOptions
from lmscale.study.fits.predict import compare, preregister
from lmscale.study.fits.uncertainty.simulate import isoflop_design, simulate
from lmscale.study.laws import CHINCHILLA_REFIT

BUDGETS = (1e17, 1e18, 1e19, 1e20)


def sweep(noise: float = 0.01, seed: int = 0) -> pd.DataFrame:
    design = isoflop_design(CHINCHILLA_REFIT, BUDGETS, factor=8)
    return simulate(CHINCHILLA_REFIT, design, noise, np.random.default_rng(seed))


def gap(law: laws.Law, rows: pd.DataFrame) -> np.ndarray:
    """ln(measured / predicted), (n,) or (n, R) of a law with resamples."""
    params, tokens, losses = (rows[name].to_numpy()[:, None] for name in ("params", "tokens", "loss_nats"))
    return np.squeeze(np.log(losses / law.loss(params, tokens)))


def rms(values: Any) -> Any:
    return np.sqrt(np.mean(np.square(values), axis=0))


@pytest.mark.long
def test_a_candidates_numbers_are_those_of_its_fit() -> None:
    table = sweep()
    top = table["flops_budget"] == max(BUDGETS)
    comparison = fits.compare(table, ["chinchilla", "kaplan"], resamples=40)
    drawn = {}
    for one in comparison.candidates:
        unseen, samples = gap(one.fit.law, table[top]), one.fit.samples
        assert samples is not None
        drawn[one.law] = rms(gap(samples, table[top]))
        assert one.error == pytest.approx(rms(unseen)) and one.bias == pytest.approx(unseen.mean())
        assert one.in_sample == pytest.approx(rms(gap(one.fit.law, table[~top])))
        assert one.interval == pytest.approx(np.percentile(drawn[one.law], [2.5, 97.5]), rel=1e-6)
        (line,) = (line for line in str(comparison).splitlines() if line.split()[0] == one.law)
        assert line.split()[1] == f"{100 * one.error:.2f}%" and f"{100 * one.bias:+.2f}%" in line
    best = drawn[comparison.candidates[0].law]
    for one in comparison.candidates[1:]:
        assert one.beaten == pytest.approx(np.mean(drawn[one.law] > best), abs=1e-9)
    assert comparison.candidates[0].beaten == 0


@pytest.mark.long
def test_the_order_is_that_of_unseen_runs_and_not_of_the_fitted_ones() -> None:
    ranked = fits.compare(sweep(seed=3), ["chinchilla", "kaplan", "outer-exponent"], resamples=0)
    errors, in_sample = ([getattr(one, name) for one in ranked.candidates] for name in ("error", "in_sample"))
    assert errors == sorted(errors) and in_sample != sorted(in_sample)
    assert all(one.interval == pytest.approx((one.error, one.error)) for one in ranked.candidates)


def test_every_law_is_fitted_as_its_form_has_it() -> None:
    """What holds for one law alone, a fixed E or a residual, is no part of a comparison; 200 resamples unless given."""
    table = sweep()
    plain = fits.compare(table, ["chinchilla"])
    assert plain.candidates[0].fit.resamples == 200
    options = FitOptions(fixed={"E": 1.0}, residual="raw", resamples=0)
    other = fits.compare(table, ["chinchilla"], options)
    assert other.candidates[0].fit.law == plain.candidates[0].fit.law


@pytest.mark.parametrize(("runs", "unseen"), [(10, 3), (28, 3), (40, 4)])
def test_without_budgets_the_largest_tenth_is_unseen_and_three_runs_at_least(runs: int, unseen: int) -> None:
    table = pd.concat([sweep(seed=seed) for seed in range(2)]).drop(columns="flops_budget").reset_index(drop=True)
    table = table.iloc[:runs].assign(run=[f"run {k}" for k in range(runs)], flops=1e17 * 1.3 ** np.arange(runs))
    table["tokens"] = table["flops"] / (6 * table["params"])
    seen, rest, rule = compare.split(table.sample(frac=1, random_state=0))
    largest = [f"run {k}" for k in range(runs - unseen, runs)]
    assert set(rest.names) == set(largest) and len(seen.names) == runs - unseen
    assert rule == f"the largest tenth, from {table['flops'].iloc[-unseen]:.3g} FLOPs"
    one_budget = table.assign(flops_budget=1e18)
    assert compare.split(one_budget)[2] == rule  # nothing is larger than the one budget
    with pytest.raises(UserError, match="at least 10 runs"):
        compare.split(table.iloc[:9])


def test_a_doubt_about_all_runs_is_stated_once_and_one_about_unseen_runs_by_itself() -> None:
    table = sweep()
    table.loc[3, "loss_nats"] = np.nan
    together = fits.compare(table, ["chinchilla"], resamples=0)
    assert [status.name for status in together.status] == ["cells missing"]
    marked = sweep().assign(held_out=lambda rows: rows["flops_budget"] == max(BUDGETS))
    marked.loc[24, "loss_nats"] = np.nan
    apart = fits.compare(marked, ["chinchilla"], resamples=0)
    assert [status.sentence.startswith("unseen runs: ") for status in apart.status] == [True]


def ladder(offsets: Any, E: float = 1.7, A: float = 1.5, gamma: float = 0.16) -> pd.DataFrame:
    """A budget each decade from 1e17, with losses off L = E + A (C/1e18)^-gamma by `offsets`."""
    flops = 1e17 * 10.0 ** np.arange(len(offsets))
    return pd.DataFrame({"flops": flops, "loss_nats": E + A * (flops / 1e18) ** -gamma + np.asarray(offsets)})


BASE, RECIPE = ladder([0.01, -0.02, 0.015, -0.005, 0.01]), ladder([-0.01, 0.01, 0.005, -0.02, 0.01], A=1.4)


def line(rows: pd.DataFrame, E: float, losses: Any = None) -> tuple[float, float, np.ndarray]:
    """A, gamma and fitted losses of a pinned E: ln(L - E) on ln C, weighted so that residuals are those of L."""
    x = np.log(rows["flops"].to_numpy() / 1e18)
    above = (rows["loss_nats"].to_numpy() if losses is None else losses) - E
    slope, level = np.polyfit(x, np.log(above), 1, w=above)
    return np.exp(level), -slope, E + np.exp(level + slope * x)


def redrawn(rows: pd.DataFrame, E: float, sd: float, loss: float, rng: np.random.Generator) -> np.ndarray:
    """ln of the compute that reaches `loss`, by ladders redrawn with Student's scatter of 3 degrees of freedom."""
    fitted, drawn = line(rows, E)[2], []
    for spread in sd * np.sqrt(3 / rng.chisquare(3, 3000)):
        losses = fitted + spread * rng.standard_normal(5)
        below = min(E, 0.9999 * losses.min())  # an asymptote lies below the losses of its own draw
        A, gamma, _ = line(rows, below, losses) if losses.min() > 0 else (np.nan, np.nan, None)
        drawn.append(-np.log((loss - below) / A) / gamma)
    return np.array(drawn)


@pytest.mark.long
@pytest.mark.parametrize("E", [1.7, 0.0])
def test_ladders_over_a_pinned_asymptote(E: float) -> None:
    """Parameters, scatter per degree of freedom (n - 2) and ratios by hand; the draws have an uncertain scatter."""
    result = fits.compute_multiplier(BASE, RECIPE, asymptote=E, resamples=3000)
    (base, recipe), rng = (line(BASE, E), line(RECIPE, E)), np.random.default_rng(5)
    logs: list[np.ndarray] = []
    for law, (A, gamma, fitted), rows, scatter in zip(
        (result.baseline, result.recipe), (base, recipe), (BASE, RECIPE), result.scatter_nats
    ):
        assert (law.E, law.A, law.gamma) == pytest.approx((E, A, gamma))
        sd = np.sqrt(np.sum((rows["loss_nats"] - fitted) ** 2) / 3)
        assert scatter == pytest.approx(sd)
        logs.append(redrawn(rows, E, sd, result.multiplier.loss_nats, rng))
    low, high = (end(side(rows["loss_nats"]) for rows in (BASE, RECIPE)) for end, side in ((max, min), (min, max)))
    assert [one.loss_nats for one in result.ratios] == pytest.approx(np.linspace(high, low, 5))
    for one in result.ratios:
        needed = [((one.loss_nats - E) / A) ** (-1 / gamma) for A, gamma, _ in (base, recipe)]
        assert one.multiplier == pytest.approx(needed[0] / needed[1])
    assert result.multiplier == result.ratios[-1]
    widths = np.log(result.multiplier.intervals["0.95"]), np.nanpercentile(logs[0] - logs[1], [2.5, 97.5])
    assert widths[0] == pytest.approx(widths[1], abs=0.08 * np.ptp(widths[1]))


@pytest.mark.long
def test_a_shared_asymptote_is_the_one_that_both_ladders_fit_best() -> None:
    result = fits.compute_multiplier(BASE, RECIPE, resamples=0)
    grid = np.linspace(0, 0.999, 1000) * min(BASE["loss_nats"].min(), RECIPE["loss_nats"].min())
    squares = {
        name: np.array([np.sum((rows["loss_nats"] - line(rows, E)[2]) ** 2) for E in grid])
        for name, rows in (("baseline", BASE), ("recipe", RECIPE))
    }
    shared = grid[(squares["baseline"] + squares["recipe"]).argmin()]
    assert result.baseline.E == result.recipe.E == pytest.approx(shared, abs=0.02)
    for scatter, rows in zip(result.scatter_nats, (BASE, RECIPE)):  # half of the one E is each ladder's
        fitted = line(rows, result.baseline.E)[2]
        assert scatter == pytest.approx(np.sqrt(np.sum((rows["loss_nats"] - fitted) ** 2) / 2.5))
    free = fits.compute_multiplier(BASE, RECIPE, asymptote="free", resamples=0)
    assert pytest.approx(grid[squares["baseline"].argmin()], abs=0.02) == free.baseline.E
    assert pytest.approx(grid[squares["recipe"].argmin()], abs=0.02) == free.recipe.E


def test_a_ladder_is_the_best_run_of_each_budget_without_those_held_out() -> None:
    rows = pd.concat([BASE, BASE.assign(loss_nats=BASE["loss_nats"] + 0.3)]).assign(
        flops_budget=lambda t: t["flops"], held_out=False
    )
    more = pd.DataFrame({"flops": [1e22], "loss_nats": [1.0], "flops_budget": [1e22], "held_out": [True]})
    missing = pd.DataFrame({"flops": [1e23], "loss_nats": [np.nan], "flops_budget": [1e23], "held_out": [False]})
    whole = fits.compute_multiplier(pd.concat([rows, more, missing]), RECIPE, resamples=20)
    assert whole == fits.compute_multiplier(BASE, RECIPE, resamples=20)


def named(result: fits.ComputeMultiplier) -> dict[str, tuple[str, str]]:
    return {status.name: (status.severity, status.sentence) for status in result.status}


def test_what_a_multiplier_rests_on_is_reported() -> None:
    three = fits.compute_multiplier(BASE.iloc[:3], RECIPE, asymptote=1.7, resamples=20)
    assert named(three)["few points"][0] == "warning"
    whole = named(fits.compute_multiplier(BASE, RECIPE, asymptote=1.7, resamples=20))
    assert "few points" not in whole and "extrapolation" not in whole
    steep = ladder([0] * 5, A=1.5, gamma=0.20)
    result = fits.compute_multiplier(ladder([0] * 5), steep, asymptote=1.7, resamples=20)
    ratios = [one.multiplier for one in result.ratios]
    change = max(ratios) / min(ratios)
    assert change > 1.3 and named(result)["constant"] == (
        "note", f"the multiplier changes by a factor {change:.2f} over the losses both recipes reached"
    )  # fmt: skip
    same = named(fits.compute_multiplier(ladder([0] * 5), ladder([0] * 5, A=1.4), asymptote=1.7, resamples=20))
    assert same["constant"][0] == "ok"
    low, high = (end(BASE["loss_nats"].tolist()) for end in (min, max))
    for losses, outside in (((low, high), 0), ((low - 0.01, 2.5, high + 0.01), 2)):
        result = fits.compute_multiplier(BASE, BASE, asymptote=1.0, losses=losses, resamples=20)
        assert ("extrapolation" in named(result)) == bool(outside)
        assert not outside or named(result)["extrapolation"][1].startswith(f"{outside} of 3 losses lie outside")


def test_redrawn_losses_below_zero_are_left_out_and_counted() -> None:
    """The scatter is as large as the losses; the intervals are those of the others."""
    rough = ladder([0.6, -0.9, 0.6, -0.9, 0.6])
    result = fits.compute_multiplier(rough, BASE, asymptote=0.0, resamples=400)
    severity, sentence = named(result)["thin resamples"]
    assert severity == "warning" and 0 < int(sentence.split()[0]) < 200
    assert sentence.endswith("of 400 resamples have a loss that is not positive and are left out")
    assert np.isfinite([one.intervals["0.95"] for one in result.ratios]).all()
    assert "thin resamples" not in named(fits.compute_multiplier(BASE, BASE, asymptote=1.0, resamples=400))


def test_an_asymptote_lies_below_every_loss() -> None:
    floor = float(BASE["loss_nats"].min())
    for asymptote in (-0.1, floor, float("nan"), "other"):
        with pytest.raises(UserError, match=r"asymptote = "):
            fits.compute_multiplier(BASE, BASE, asymptote=asymptote, resamples=0)
    touching = BASE.assign(loss_nats=BASE["loss_nats"] + BASE["loss_nats"].max() - floor)
    with pytest.raises(UserError, match="share no loss"):
        fits.compute_multiplier(BASE, touching, resamples=0)


@pytest.fixture(scope="module")
def law() -> Any:
    return fits.loss_law(sweep(0.002), resamples=50, check=False, delta=2e-3)


POINT = {"params": 1e9, "tokens": 2e10}


def test_a_prediction_holds_both_intervals_and_what_it_was_made_from(law: Any, tmp_path: Path) -> None:
    before = time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
    value = fits.register(law, [POINT], tmp_path / "p.json")
    assert value == json.loads((tmp_path / "p.json").read_text())
    (one,) = value["predictions"]
    for level in (0.8, 0.95):
        expected = law.predict(level, **POINT)
        assert one["law_intervals"][f"{level:g}"] == list(expected.law_interval)
        assert one["intervals"][f"{level:g}"] == list(expected.interval)
        assert expected.interval[1] - expected.interval[0] > expected.law_interval[1] - expected.law_interval[0]
    assert (value["delta"], value["table_hash"], value["n_runs"]) == (2e-3, law.table_hash, 28)
    assert value["written"] >= before
    with pytest.raises(UserError, match="a prediction needs an interval: fit with"):
        fits.register(fits.loss_law(sweep(), resamples=0, check=False), [POINT], tmp_path / "other.json")
    assert not (tmp_path / "other.json").exists()


def test_the_verdict_is_on_the_mean_of_the_finished_runs_at_the_point(law: Any, tmp_path: Path) -> None:
    value = fits.register(law, [POINT], tmp_path / "p.json")
    predicted = value["predictions"][0]["loss_nats"]
    runs = pd.DataFrame(
        {
            "run": ["a", "b", "c", "d", "e", "f"],
            "params": [1e9, 1.019e9, 1e9, 1e9, 0.979e9, 0.981e9],
            "tokens": [2e10, 2e10, 2e10, 2.1e10, 2e10, 1.961e10],
            "loss_nats": [predicted * 1.01, predicted * 0.97, np.nan, 9.0, 9.0, predicted * 1.008],
        }
    )
    verdict = fits.check(tmp_path / "p.json", table=runs)
    (one,) = verdict["verdicts"]
    assert one["runs"] == ["a", "b", "f"]
    assert one["error"] == pytest.approx((0.01 - 0.03 + 0.008) / 3)
    (_, sentence) = preregister.verdict_lines(verdict)
    assert ", the mean of 3 runs, " in sentence and f"({100 * one['error']:+.2f} %)" in sentence
    for factor, within in ((0.7, False), (1.4, False), (1.0, True)):
        given = fits.check(tmp_path / "p.json", loss_nats=factor * predicted)
        assert given["verdicts"][0]["held"] == within
        assert "the mean of" not in preregister.verdict_lines(given)[1]


def test_a_verdict_takes_one_loss_for_one_point_or_a_table(law: Any, tmp_path: Path) -> None:
    fits.register(law, [POINT, {**POINT, "tokens": 4e10}], tmp_path / "p.json")
    table = pd.DataFrame({"run": ["a"], "loss_nats": [2.5], **{name: [value] for name, value in POINT.items()}})
    for given in ({}, {"loss_nats": 2.5, "table": table}):
        with pytest.raises(UserError, match="one of the two"):
            fits.check(tmp_path / "p.json", **given)
    with pytest.raises(UserError, match="holds 2 predictions and one loss was given"):
        fits.check(tmp_path / "p.json", loss_nats=2.5)


def test_the_hash_of_the_code_tells_files_apart_by_their_names(tmp_path: Path) -> None:
    """Two files that swap their contents are other code."""
    for name in preregister.SOURCES:
        (tmp_path / name).write_text(name) if name.endswith(".py") else (tmp_path / name).mkdir()
        if not name.endswith(".py"):
            (tmp_path / name / "a.py").write_text("one")
            (tmp_path / name / "b.py").write_text("two")
    before = preregister.code_hash(tmp_path)
    (tmp_path / "laws" / "a.py").rename(tmp_path / "laws" / "z.py")
    assert preregister.code_hash(tmp_path) != before
