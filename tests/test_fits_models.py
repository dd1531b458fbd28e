"""Other forms: noiseless laws recovered, exact derivatives, comparisons, registered predictions, published fits."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.laws import OF_FURTHER_INPUTS

from lmscale.core.errors import UserError
from lmscale.study import fits, laws
from lmscale.study.fits.predict import preregister
from lmscale.study.fits.solvers import derivatives
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.fits.uncertainty.simulate import isoflop_design, simulate
from lmscale.study.laws import CHINCHILLA_REFIT, Kaplan, OuterExponent
from lmscale.study.tables import read_table

SHARED = Path(os.environ.get("SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data" / "scaling"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the published tables are not at hand")
BUDGETS = (1e17, 1e18, 1e19, 1e20)


def sweep(noise: float = 0.0, law: laws.Law = CHINCHILLA_REFIT, seed: int = 0) -> pd.DataFrame:
    table = simulate(
        CHINCHILLA_REFIT, isoflop_design(CHINCHILLA_REFIT, BUDGETS, factor=8), 0.0, np.random.default_rng(seed)
    )
    noisy = np.exp(noise * np.random.default_rng(seed).standard_normal(len(table)))
    return table.assign(loss_nats=law.loss(table["params"].to_numpy(), table["tokens"].to_numpy()) * noisy)


KNOWN = (
    CHINCHILLA_REFIT,
    Kaplan(5e13, 2e13, 0.08, 0.1),
    laws.DataConstrained(1.8, 500, 1500, 0.35, 0.36, 5, 15),
    laws.OverTraining(1.6, 150.0, 190.0, -0.25),
    OuterExponent(1.6, 800, 2000, 0.4, 0.42, 0.8),
    laws.PowerMean(1.7, 400, 1200, 0.33, 0.35, 1.3),
    laws.ComputeLaw(1.7, 1.5, 0.16),
    laws.BrokenPowerLaw(1.2, 1.6, 0.05, 0.12, 1.5, 0.4),
    laws.Annealing(2.2, 0.6, 0.45, 0.3),
    laws.DownstreamError(0.85, 2.1, 0.72),
    laws.LadderAccuracy(0.25, 0.6, 3.0, 1.1),
)
"""One law of every form: constants that none of its starts holds."""


def measured(law: laws.Law) -> pd.DataFrame:
    """Runs that tell all parameters of a law apart, without noise: of repeated data at 1 to 40 epochs."""
    if law.INPUTS == ("flops",):
        table = pd.DataFrame({"flops": np.geomspace(1e15, 1e21, 40)})
    elif law.INPUTS == ("loss_nats",):
        table = pd.DataFrame({"loss_nats": np.linspace(0.4, 3.0, 30)})
    elif law.INPUTS == ("rate_sum", "annealing_sum"):
        sums = np.meshgrid(np.geomspace(0.3, 20, 6), np.linspace(0.05, 1, 6))
        table = pd.DataFrame({name: values.ravel() for name, values in zip(law.INPUTS, sums)})
    else:
        epochs = (1, 4, 40) if "unique_tokens" in law.INPUTS else (1,)
        table = pd.concat([sweep().assign(unique_tokens=lambda t, e=e: t["tokens"] / e) for e in epochs])
    table = table.assign(run=[f"run {index}" for index in range(len(table))])
    return table.assign(**{law.TARGET: law.loss(*[table[name].to_numpy() for name in law.INPUTS])})


def test_every_form_has_a_law_to_recover() -> None:
    assert {law.NAME for law in (*KNOWN, *OF_FURTHER_INPUTS)} == set(laws.FORMS)


@pytest.mark.long
@pytest.mark.parametrize("law", KNOWN, ids=lambda law: law.NAME)
@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_noiseless_laws_are_recovered(law: laws.Law, loss: str) -> None:
    """Measured: parameters within 2e-14, losses within 5e-16."""
    fit = fits.loss_law(measured(law), law.NAME, loss=loss, resamples=0, check=False)
    assert fit.law.values() == pytest.approx(law.values(), rel=1e-6)
    assert fit.residuals["predicted"] == pytest.approx(fit.residuals["measured"], rel=1e-6)
    assert "identified" in {status.name for status in fit.status}


def test_general_and_exact_solver_agree() -> None:
    class Other(laws.Chinchilla):
        """The same form, which the exact solver does not know."""

    table = sweep(0.004)
    one, other = (fits.loss_law(table, form, resamples=20, seed=1, check=False) for form in (laws.Chinchilla, Other))
    assert other.objective == pytest.approx(one.objective, rel=1e-10)
    assert other.law.values() == pytest.approx(one.law.values(), rel=1e-5)
    assert other.draws("alpha") == pytest.approx(one.draws("alpha"), rel=1e-4)
    assert all("20 of 20" in s.sentence for fit in (one, other) for s in fit.status if s.name == "bootstrap")


def test_second_derivatives_of_any_law() -> None:
    table = sweep(0.01)
    data = tuple(table[name].to_numpy() for name in ("params", "tokens"))
    problem = Problem(OuterExponent, data, table["loss_nats"].to_numpy())
    theta = derivatives.to_theta(problem, np.array([[1.7], [900.0], [2500.0], [0.4], [0.42], [0.8]]))
    slope = np.random.default_rng(0).standard_normal((len(table), 1))
    bend = derivatives.curvature(problem, theta, slope)[:, :, 0]

    def weighted(moved: np.ndarray) -> float:
        return float(np.sum(slope * derivatives.residuals(problem, moved)))

    steps = 1e-4 * np.eye(6)[:, :, None]
    for i in range(6):
        for j in range(6):
            numeric = (
                weighted(theta + steps[i] + steps[j])
                - weighted(theta + steps[i] - steps[j])
                - weighted(theta - steps[i] + steps[j])
                + weighted(theta - steps[i] - steps[j])
            ) / 4e-8
            assert bend[i, j] == pytest.approx(numeric, rel=1e-3, abs=1e-5)


@pytest.mark.long
def test_one_axis_laws() -> None:
    flops = np.geomspace(1e17, 1e21, 15)
    law = laws.ComputeLaw(1.7, 1.5, 0.16)
    table = pd.DataFrame({"run": "x", "flops": flops, "loss_nats": law.loss(flops)})
    assert fits.loss_law(table, "compute", resamples=0).law.values() == pytest.approx(law.values(), rel=1e-6)
    error = laws.DownstreamError(0.85, 2.1, 0.72)
    losses = np.linspace(2.0, 4.0, 12)
    table = pd.DataFrame({"run": "x", "loss_nats": losses, "error": error.loss(losses)})
    assert fits.loss_law(table, "downstream-error", resamples=0).law.values() == pytest.approx(error.values(), rel=1e-5)


def test_a_parameter_at_its_bound_is_named() -> None:
    table = sweep(law=CHINCHILLA_REFIT).assign(unique_tokens=lambda t: t["tokens"])
    fixed = {name: getattr(CHINCHILLA_REFIT, name) for name in CHINCHILLA_REFIT.names()}
    table["loss_nats"] *= np.where(table["params"] > 1e9, 0.99, 1.0)  # large models do better than their N says
    fit = fits.loss_law(table, "data-constrained", fixed=fixed, resamples=0, check=False)
    assert any(s.name == "at a bound" and s.sentence.startswith("R_N") for s in fit.status)


def test_comparison_ranks_by_unseen_runs() -> None:
    comparison = fits.compare(
        sweep(0.001, law=Kaplan(5e13, 2e13, 0.08, 0.1)), ["chinchilla", "kaplan", "data-constrained"], resamples=30
    )
    assert [c.law for c in comparison.candidates] == ["kaplan", "chinchilla"]
    assert comparison.candidates[1].beaten > 0.9
    assert comparison.left_out[0][0] == "data-constrained"
    assert "unique_tokens" in comparison.left_out[0][1]
    assert len(comparison.unseen) == 7
    assert "largest budget, 1e+20" in str(comparison)
    json.dumps(comparison.to_json(), allow_nan=False)


@pytest.mark.long
def test_a_comparison_takes_the_runs_that_any_fit_takes() -> None:
    """Seen or unseen, a row that no fit may use is named with its reason, and moves no number."""
    table = sweep(0.001).assign(state="finished", held_out=False)
    table["held_out"] = table["flops_budget"] == max(BUDGETS)
    spoiled = table.copy()
    for row, column, value in (
        (1, "loss_nats", np.inf),
        (2, "loss_nats", -1.0),
        (3, "state", "diverged"),
        (24, "tokens", np.nan),
        (25, "state", "failed"),
        (26, "loss_nats", np.nan),
    ):
        spoiled.loc[row, column] = value
    comparison = fits.compare(spoiled, ["chinchilla", "kaplan"], resamples=10)
    reasons = {item.run: item.reason for item in comparison.dropped}
    of_fits = [fits.loss_law(one, resamples=0, check=False) for one in (spoiled, spoiled.assign(held_out=False))]
    expected = {item.run: item.reason for fit in of_fits for item in fit.dropped if "held out" not in item.reason}
    assert reasons == expected
    assert set(reasons) == {f"simulated {row}" for row in (1, 2, 3, 24, 25, 26)}
    assert comparison.unseen == tuple(f"simulated {row}" for row in (21, 22, 23, 27))
    clean = fits.compare(table.drop(index=[1, 2, 3, 24, 25, 26]), ["chinchilla", "kaplan"], resamples=10)
    assert [(c.law, c.error, c.interval) for c in comparison.candidates] == [
        (c.law, c.error, c.interval) for c in clean.candidates
    ]
    assert "cells missing" in {status.name for status in comparison.status}
    assert "loss_nats is infinite" in str(comparison)
    assert [item["run"] for item in comparison.to_json()["dropped"]] == [item.run for item in comparison.dropped]
    assert all(set(reasons) >= {item.run for item in c.fit.dropped} for c in comparison.candidates)


@pytest.mark.long
def test_laws_are_compared_on_runs_that_all_can_use() -> None:
    table = sweep(0.001).assign(error=0.5)
    table["unique_tokens"] = table["tokens"].where(table.index != 5)
    comparison = fits.compare(table, ["chinchilla", "data-constrained", "downstream-error"], resamples=0)
    assert {c.fit.n_runs for c in comparison.candidates} == {20}
    assert [(item.run, item.reason) for item in comparison.dropped] == [("simulated 5", "unique_tokens is missing")]
    assert comparison.left_out == (("downstream-error", "it states error, and 'chinchilla' states loss_nats"),)
    with pytest.raises(UserError, match="no law could be fitted: data-constrained: the table has no column"):
        fits.compare(sweep(), ["data-constrained"])


def test_a_comparison_takes_the_best_learning_rate_of_a_cell() -> None:
    table = pd.concat([sweep(0.001).assign(learning_rate=rate, run=f"{rate} ") for rate in (1e-3, 2e-3, 4e-3)])
    table["run"] += np.tile(np.arange(28), 3).astype(str)
    table["loss_nats"] *= np.where(table["learning_rate"] == 2e-3, 1.0, 1.05)
    comparison = fits.compare(table.reset_index(drop=True), ["chinchilla"], resamples=0)
    assert len(comparison.unseen) == 7 and all(run.startswith("0.002") for run in comparison.unseen)
    assert len(comparison.dropped) == 56
    assert len(fits.compare(table.reset_index(drop=True), ["chinchilla"], resamples=0, rates="all").unseen) == 21


def ladder(law: laws.ComputeLaw, noise: float, seed: int) -> pd.DataFrame:
    flops = np.geomspace(1e17, 1e20, 8)
    loss = law.loss(flops) + noise * np.random.default_rng(seed).standard_normal(8)
    return pd.DataFrame({"flops": flops, "loss_nats": loss})


@pytest.mark.long
@pytest.mark.parametrize("asymptote", ["shared", "free", 1.7])
def test_a_recipe_twice_as_efficient_is_found(asymptote: float | str) -> None:
    base = laws.ComputeLaw(1.7, 1.5, 0.16)
    twice = laws.ComputeLaw(1.7, 1.5 * 2**-0.16, 0.16)
    exact = fits.compute_multiplier(ladder(base, 0, 0), ladder(twice, 0, 0), asymptote=asymptote)
    assert [r.multiplier for r in exact.ratios] == pytest.approx([2.0] * 5, rel=0.01)
    noisy = fits.compute_multiplier(ladder(base, 0.004, 1), ladder(twice, 0.004, 2), asymptote=asymptote)
    low, high = noisy.multiplier.intervals["0.95"]
    assert low < 2 < high
    assert 0.01 < high - low < 4


def test_ladders_that_cannot_be_compared_are_refused() -> None:
    base = ladder(laws.ComputeLaw(1.7, 1.5, 0.16), 0, 0)
    with pytest.raises(UserError, match="share no loss"):
        fits.compute_multiplier(base, base.assign(loss_nats=base["loss_nats"] + 5))
    with pytest.raises(UserError, match="at least 3"):
        fits.compute_multiplier(base.iloc[:2], base)
    with pytest.raises(UserError, match="between 0 and the lowest loss"):
        fits.compute_multiplier(base, base, asymptote=3.0)


def test_a_prediction_is_registered_once_and_judged(tmp_path: Path) -> None:
    table, path = sweep(0.002), tmp_path / "p.json"
    fit = fits.loss_law(table, resamples=200, check=False)
    fits.register(fit, [{"params": 1e9, "tokens": 2e10}], path)
    with pytest.raises(UserError, match="already holds"):
        fits.register(fit, [{"params": 1e9, "tokens": 2e10}], path)
    verdict = fits.check(path, loss_nats=float(CHINCHILLA_REFIT.loss(1e9, 2e10)))
    assert verdict["verdicts"][0]["inside"]["0.95"]
    assert verdict["same_code"]
    assert "HELD" in "\n".join(preregister.verdict_lines(verdict))
    assert not fits.check(path, loss_nats=3.3)["verdicts"][0]["inside"]["0.95"]
    run = pd.DataFrame({"run": ["new"], "params": [1.01e9], "tokens": [2e10], "loss_nats": [2.53]})
    assert fits.check(path, table=run)["verdicts"][0]["runs"] == ["new"]
    with pytest.raises(UserError, match="no finished run of the table lies within 2%"):
        fits.check(path, table=run.assign(params=5e9))
    value = json.loads(path.read_text())
    value["predictions"][0]["loss_nats"] = 3.3
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match="not as it was written"):
        fits.check(path, loss_nats=3.3)


def test_the_code_hash_is_of_every_source_that_makes_a_prediction(tmp_path: Path) -> None:
    study = Path(laws.__file__).parents[1]
    for name in ("fits", "laws", "tables"):
        shutil.copytree(study / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(study / "grouping.py", tmp_path)
    assert preregister.code_hash(tmp_path) == preregister.code_hash()
    rooms = {file.parent for file in (tmp_path / "fits").rglob("*.py")}
    assert {room.name for room in rooms} >= {"approaches", "solvers", "uncertainty", "checks", "predict", "results"}
    for source in [
        *(next(room.glob("[a-z]*.py")) for room in rooms),
        tmp_path / "laws" / "law.py",
        tmp_path / "tables" / "__init__.py",
        tmp_path / "grouping.py",
    ]:
        before = source.read_bytes()
        source.write_bytes(before + b"\n")
        assert preregister.code_hash(tmp_path) != preregister.code_hash(), source
        source.write_bytes(before)
    (tmp_path / "laws" / "law.py").rename(tmp_path / "laws" / "moved.py")
    assert preregister.code_hash(tmp_path) != preregister.code_hash()


def test_a_prediction_of_other_code_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits.register(
        fits.loss_law(sweep(0.002), resamples=20, check=False), [{"params": 1e9, "tokens": 2e10}], tmp_path / "p"
    )
    monkeypatch.setattr(preregister, "code_hash", lambda: "another")
    verdict = fits.check(tmp_path / "p", loss_nats=2.5)
    assert not verdict["same_code"]
    assert "the code has changed since" in preregister.verdict_lines(verdict)[0]


@needs_shared
@pytest.mark.parametrize(
    ("train_set", "published"),
    [
        ("c4_original", laws.GADRE_2024_C4),
        ("rpj", laws.GADRE_2024_REDPAJAMA),
        ("rw_original", laws.GADRE_2024_REFINEDWEB),
    ],
)
def test_gadres_five_point_fits(train_set: str, published: laws.OverTraining) -> None:
    table = read_table(SHARED / "gadre2024_overtraining.csv", where=f"train_set == '{train_set}'")
    smallest, others = "d=96_l=8_h=4", ["d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8"]
    chosen = table["model"].isin([smallest, *others]) & (table["chinchilla_multiplier"] == 1)
    rows = table[chosen | ((table["model"] == smallest) & (table["chinchilla_multiplier"] == 16))]
    assert len(rows) == 5
    fit = fits.loss_law(rows, "over-training", loss="squared", resamples=0, check=False)
    assert fit.law.values() == pytest.approx(published.values(), rel=1e-6)
    if train_set == "rpj":
        for model, multiplier, error in (("open_lm_1b", 32, 0.007103), ("open_lm_7b", 1, 0.00732)):
            row = table[(table["model"] == model) & (table["chinchilla_multiplier"] == multiplier)].iloc[0]
            assert abs(fit.law.loss(row["params"], row["tokens"]) / row["loss_nats"] - 1) == pytest.approx(
                error, abs=5e-6
            )


@needs_shared
def test_muennighoffs_lower_optimum_is_found() -> None:
    table = read_table(SHARED / "muennighoff2023_data_constrained.csv")
    published = laws.MUENNIGHOFF_2023
    fixed = {name: getattr(published, name) for name in ("E", "A", "B", "alpha", "beta")}
    fit = fits.loss_law(table, "data-constrained", fixed=fixed, resamples=0, check=False)
    assert pytest.approx((95.36517, 1.705905), rel=1e-6) == (fit.law.R_D, fit.law.R_N)
    assert fit.objective == pytest.approx(0.015804662474002036, rel=1e-10)


@needs_shared
def test_vpnls_constants_on_raw_losses() -> None:
    """Czech 2026's tool, whose grid steps by .01: Huber on the loss itself, alpha .36, beta .40, E 1.8608."""
    table = read_table(
        SHARED / "openathena_isoflops.csv", where="experiment == 'ml_scalefit__massivetext__chinchilla' and not outlier"
    )
    fit = fits.loss_law(table, residual="raw", resamples=0, check=False)
    assert (fit.law.alpha, fit.law.beta, fit.law.E) == pytest.approx((0.36, 0.40, 1.8608), abs=0.02)
