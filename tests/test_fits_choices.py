"""Choices of Approaches 1 and 2 that papers make differently, tables of checkpoints, laws compared on any inputs."""

import json
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lmscale import UserError, fits, laws, plots, read_table
from lmscale.study.laws import CHINCHILLA_REFIT

BUDGETS = (1e18, 3e18, 1e19, 3e19, 1e20)


def valleys(noise: float = 0.0, jitter: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Nine sizes at each of five budgets; `jitter` moves each run's tokens, and so its FLOPs, off the budget."""
    rng, rows = np.random.default_rng(seed), []
    for flops in BUDGETS:
        centre = float(CHINCHILLA_REFIT.optimum(flops).params)
        for params in centre * np.geomspace(1 / 4, 4, 9):
            tokens = flops / (6 * params) * np.exp(jitter * rng.standard_normal())
            rows.append({"params": params, "tokens": tokens, "flops": 6 * params * tokens, "flops_budget": flops})
    table = pd.DataFrame(rows)
    loss = CHINCHILLA_REFIT.loss(table.params, table.tokens) * np.exp(noise * rng.standard_normal(len(table)))
    return table.assign(loss_nats=loss, run=[f"run {index}" for index in range(len(table))])


def test_equal_weights_are_the_unweighted_line_and_reported() -> None:
    table = valleys(noise=2e-3)
    weighted, equal = (fits.isoflop(table, weights=name, resamples=200) for name in ("noise", "equal"))
    x, y = np.log([m.flops for m in equal.minima]), np.log([m.params for m in equal.minima])
    assert equal.a == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-9)
    assert equal.a != weighted.a
    assert any(s.name == "weights" and "alike, as asked" in s.sentence for s in equal.status)
    assert f"{equal.a:.4f} unweighted" in next(s.sentence for s in weighted.status if s.name == "weights")


def test_a_budget_lies_at_the_mean_of_its_runs_flops_where_asked() -> None:
    table = valleys(jitter=0.05)
    nominal, mean = (fits.isoflop(table, budget_flops=name, resamples=0) for name in ("nominal", "mean"))
    assert [m.flops for m in nominal.minima] == list(BUDGETS)
    expected = table.groupby("flops_budget").flops.mean()
    assert [m.flops for m in mean.minima] == pytest.approx(expected.tolist(), rel=1e-12)


def test_the_optimal_tokens_have_a_line_of_their_own_where_asked() -> None:
    table = valleys(jitter=0.02, noise=1e-3)
    usual, own = (fits.isoflop(table, tokens_fit=name, resamples=100) for name in ("compute", "valley"))
    assert usual.exponents()["tokens"] == pytest.approx(1 - usual.compute.p * usual.a)
    assert own.a == usual.a and own.exponents()["tokens"] != usual.exponents()["tokens"]
    points = []
    for _, rows in table.groupby("flops_budget"):
        x = np.log(rows.tokens)
        curve, tilt, _ = np.polyfit(x - x.mean(), rows.loss_nats, 2)
        points.append(x.mean() - tilt / (2 * curve))
    equal = fits.isoflop(table, tokens_fit="valley", weights="equal", valley="parabola", resamples=0)
    assert equal.exponents()["tokens"] == pytest.approx(np.polyfit(np.log(BUDGETS), points, 1)[0], rel=1e-6)
    low, high = own.interval("b")
    assert low < own.exponents()["tokens"] < high
    again = fits.IsoFlop.from_json(json.loads(json.dumps(own.to_json(samples=True))))
    assert again.optimum(1e21) == own.optimum(1e21) and again.interval("b") == own.interval("b")


def curves(sizes: int = 7) -> pd.DataFrame:
    """Training curves at a constant rate, a few of whose sizes are on the envelope."""
    rows = []
    for params in np.geomspace(1e7, 3e8, sizes):
        for tokens in np.geomspace(2e8, 2e10, 25):
            loss = float(CHINCHILLA_REFIT.loss(params, tokens))
            flops = 6 * params * tokens
            rows.append(
                {"run_name": f"N{params:.3g}", "params": params, "tokens": tokens, "flops": flops, "loss": loss}
            )
    return pd.DataFrame(rows).assign(schedule="constant")


@pytest.mark.long
@pytest.mark.parametrize("envelope", ["bins", "hull"])
def test_approach_1_takes_all_points_where_asked_and_never_averages_nothing(envelope: str) -> None:
    table = read_table(curves())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inside, every = (
            fits.frontier(table, envelope=envelope, line=line, resamples=200) for line in ("inside", "all")
        )
    assert sum(point.in_line for point in every.frontier) == len(every.frontier)
    assert sum(point.in_line for point in inside.frontier) < len(inside.frontier)
    x, y = np.log([p.flops for p in every.frontier]), np.log([p.params for p in every.frontier])
    assert every.a == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-6)
    assert any("goes through all" in s.sentence for s in every.status)


@pytest.mark.parametrize("read", [True, False])
def test_checkpoints_are_known_by_run_name(read: bool) -> None:
    table = read_table(curves()) if read else curves().rename(columns={"loss": "loss_nats"})
    assert fits.frontier(table, resamples=0).n_runs == 7
    law = fits.loss_law(table, resamples=50, check=False)
    (warning,) = [s for s in law.status if s.name == "checkpoints of one run"]
    assert warning.severity == "warning" and "175 rows are of 7 runs" in warning.sentence
    whole = fits.loss_law(table, resamples=50, check=False, clusters="run")
    assert not any(s.name == "checkpoints of one run" for s in whole.status) and whole.clusters == "run"


@pytest.mark.long
def test_laws_of_further_inputs_are_compared_by_their_error_on_the_largest_runs() -> None:
    rng = np.random.default_rng(0)
    params, experts = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 8), [1, 4, 16, 64, 256]))
    loss = laws.CLARK_2022_SBASE.loss(params, experts) * np.exp(1e-3 * rng.standard_normal(len(params)))
    table = pd.DataFrame({"run": range(len(params)), "N": params, "n_experts": experts, "loss": loss})

    class Dense(laws.Clark):
        """Without the number of experts in its slope."""

        NAME = "separable"
        FORMULA = "log10 L = a log10 N + b log10 E^ + d"

        def loss(self, params: object, experts: object) -> object:
            return super().loss(params, experts) * 10 ** (-self.c * np.log10(params) * np.log10(experts))

    ranked = fits.compare(table, ["clark", Dense], columns="params=N", resamples=20)
    assert ranked.candidates[0].law == "clark" and "params" in ranked.rule
    with pytest.raises(UserError, match="no law could be fitted: distillation: the table has no column 'tokens'"):
        fits.compare(table, ["distillation"], columns="params=N")


def test_rewards_of_any_sign_are_compared() -> None:
    kl = np.geomspace(0.01, 60, 30)
    table = pd.DataFrame({"run": range(30), "kl": kl, "reward": laws.BestOfN(0.3, 0.12).loss(kl)})
    table["held_out"] = table.kl > 30
    assert (table.reward < 0).any()
    ranked = fits.compare(table, ["best-of-n", "reward-under-rl"], resamples=0)
    assert ranked.candidates[0].law == "best-of-n" and ranked.candidates[0].error < 1e-9


def test_residuals_are_drawn_against_any_input() -> None:
    areas = pd.DataFrame(
        {"rate_sum": np.linspace(1, 4, 12), "annealing_sum": [0.0] * 6 + [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    )
    noise = 1e-3 * np.random.default_rng(0).standard_normal(12)
    table = areas.assign(run=range(12), loss_nats=laws.Annealing(2.0, 1.5, 0.5, 0.3).loss(*areas.to_numpy().T) + noise)
    fit = fits.loss_law(table, "annealing", resamples=0, check=False)
    figure, axes = plt.subplots()
    plots.residuals(axes, fit, "annealing_sum")
    assert axes.get_xlim()[0] < 0 and axes.get_xlabel() == "annealing_sum"
    plt.close(figure)
