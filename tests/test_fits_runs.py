"""Which rows enter a fit, and the reasons why others do not: states, copies, designs, hostile tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.isoflop import isoflop_table, sentences

from lmscale.core.errors import UserError
from lmscale.study import fits
from lmscale.study.fits.results.common import Dropped, dropped_lines
from lmscale.study.fits.runs import compute_model, usable
from lmscale.study.fits.uncertainty.simulate import grid_design, simulate
from lmscale.study.laws import CHINCHILLA_REFIT
from lmscale.study.tables import read_table

PARAMS_TOKENS = ("params", "tokens")


@pytest.mark.parametrize("state", ["diverged", "failed", "Diverged"])
def test_a_run_that_did_not_finish_is_left_out_with_its_loss(state: str) -> None:
    table = isoflop_table(0.003).assign(state="finished", reason="")
    table.loc[4, ["state", "reason"]] = [state, "the loss rose by 2 nats"]
    runs = usable(table)
    assert len(runs) == 20
    (dropped,) = runs.dropped
    assert dropped.run == "simulated 4"
    assert dropped.reason == f"its loss is not that of a finished run: {state}, the loss rose by 2 nats"
    assert "simulated 4" in sentences(runs)["cells missing"]
    assert len(fits.isoflop(table, resamples=0, check=False).dropped) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("column", "state", "finished"),
    [
        ("state", "crashed", "finished"),
        ("State", "killed", "finished"),
        ("State", "Running", "Finished"),
        ("status", "FAILED", "FINISHED"),
        ("status", "aborted", "completed"),
        ("_state", "preempted", "finished"),
        ("sys/state", "Active", "Inactive"),
        ("Status", "TERMINATED", "COMPLETED"),
        ("status", "ERROR", "TERMINATED"),
        ("State", "half-way", "finished"),
        ("sys/failed", "True", "False"),
        ("finished", "False", "True"),
        ("completed", "0", "1"),
        ("exit_code", "137", "0"),
        ("ExitCode", "0:9", "0:0"),
        ("outcome", "error", "success"),
        ("job_state", "CANCELLED by 1000", "COMPLETED"),
        ("job_state", "CANCELLED by 1000", ""),
        ("State", "BOOT_FAIL", ""),
        ("state", "TrialState.PRUNED", "TrialState.COMPLETE"),
        ("state", "TrialState.PRUNED", ""),
        ("status", "OOMKilled", ""),
        ("status", "failed: CUDA out of memory", ""),
        ("status", "Crashed (137)", "finished (early stop)"),
        ("status", "diverged at step 100", ""),
    ],
)
def test_every_trackers_word_for_an_unfinished_run_is_known(column: str, state: str, finished: str) -> None:
    table = isoflop_table(0.003).assign(**{column: finished})
    table.loc[4, column] = state
    for rows in (table, read_table(table)):
        runs = usable(rows)
        assert [dropped.run for dropped in runs.dropped] == ["simulated 4"]
        assert runs.dropped[0].reason.startswith("its loss is not that of a finished run: ")


def test_a_left_out_run_takes_one_line_whatever_its_name() -> None:
    lines = dropped_lines([Dropped("a\nE = 2", "state: x\x1b[31m\ny")])
    assert lines == ["  1 left out (state: x\\x1b[31m\\x0ay): a\\x0aE = 2"]


def test_a_column_of_that_name_may_mean_something_else() -> None:
    assert len(usable(isoflop_table(0.003).assign(status="published in 2022", state="California"))) == 21
    assert len(usable(isoflop_table(0.003).assign(state=None))) == 21


@pytest.mark.parametrize(
    "second",
    [
        {},
        {"run": "again"},
        {"id": 7},
        {"wall_seconds": 9.0},
        {"summary.tokens_per_second": 9.0},
        {"index": 3, "name": "b"},
        {"created": "2026-01-02", "summary._runtime": 9.0},
    ],
)
def test_a_row_that_is_there_twice_is_one_run(second: dict[str, Any]) -> None:
    once = isoflop_table(0.003).assign(
        **{name: "a" if name in ("name", "created") else 0 for name in second if name != "run"}
    )
    twice = pd.concat([once, once.assign(**second)], ignore_index=True)
    runs = usable(twice)
    assert len(runs) == 21 and len(runs.dropped) == 21
    assert runs.dropped[0].reason == "the same run again: every number equals that of an earlier row"
    assert sentences(runs)["duplicate rows"] == (
        "21 rows repeat the inputs and the loss of another exactly: each run is taken once"
    )
    assert runs.digest() == usable(once).digest()


def test_seeds_that_differ_are_runs_of_their_own() -> None:
    table = pd.concat([isoflop_table(0.003, seed=seed).assign(seed=seed) for seed in range(2)], ignore_index=True)
    assert len(usable(table)) == 42 and "duplicate rows" not in sentences(usable(table))
    same = pd.concat([isoflop_table(0.003).assign(seed=seed) for seed in range(2)], ignore_index=True)
    assert len(usable(same)) == 42 and "they are kept" in sentences(usable(same))["duplicate rows"]


def test_a_copy_in_other_digits_is_a_copy_and_another_loss_of_one_run_is_doubted() -> None:
    once = isoflop_table(0.003)
    narrow = once.assign(loss_nats=once["loss_nats"].astype(np.float32).astype(float))
    assert len(usable(pd.concat([once, narrow], ignore_index=True))) == 21
    later = once.assign(step=2, loss_nats=once["loss_nats"] - 0.01)
    doubted = sentences(usable(pd.concat([once.assign(step=1), later], ignore_index=True)))
    assert doubted["one run, several losses"].startswith("42 rows have the name and the inputs of another")
    seeds = pd.concat([isoflop_table(0.003, seed=seed).assign(seed=seed) for seed in range(2)], ignore_index=True)
    assert "one run, several losses" not in sentences(usable(seeds))


def test_a_state_belongs_to_its_row_where_names_repeat() -> None:
    table = isoflop_table(0.003).assign(state="finished", run="one name")
    table.loc[4, "state"], table.loc[5, "loss_nats"] = "crashed", np.nan
    reasons = [dropped.reason for dropped in usable(table).dropped]
    assert reasons == ["its loss is not that of a finished run: crashed", "loss_nats is missing"]


def test_bad_rows_are_named_and_do_not_reach_the_compute_model() -> None:
    table = isoflop_table(0.003)
    table.loc[2, "loss_nats"], table.loc[3, "loss_nats"], table.loc[4, "loss_nats"] = np.nan, np.inf, -1
    table.loc[5, "params"], table.loc[6, "tokens"] = 0, -5
    runs = usable(table)
    assert [d.reason for d in runs.dropped] == [
        "loss_nats is missing",
        "loss_nats is infinite",
        "loss_nats is not positive",
        "params is not positive",
        "tokens is not positive",
    ]
    model, _ = compute_model(usable(table, ("params",)).table)
    assert (model.k, model.p) == (6, 1)


def test_text_among_numbers_is_named() -> None:
    table = isoflop_table(0.003).astype({"params": object})
    table.loc[3, "params"] = "6.1M"
    with pytest.raises(UserError, match=r"'params' of the table holds '6.1M' \(run simulated 3\)"):
        usable(table)


def test_held_out_may_be_written_in_words() -> None:
    table = isoflop_table(0.003).assign(held_out=["no"] * 14 + ["Yes"] * 7)
    assert len(usable(table)) == 14
    with pytest.raises(UserError, match="holds 'maybe': write true or false"):
        usable(table.assign(held_out="maybe"))


def test_runs_of_one_loss_are_refused_or_flat() -> None:
    table = isoflop_table(0.003).assign(loss_nats=3.0)
    with pytest.raises(UserError, match="all 21 runs have the same loss_nats, 3"):
        fits.loss_law(table)
    with pytest.raises(UserError, match="flat: every size has the same loss"):
        fits.isoflop(table)
    with pytest.raises(UserError, match=r"approach 1: .*approach 2: .*approach 3: "):
        fits.fit(table)


@pytest.mark.long
def test_one_budget_is_sentences() -> None:
    table = isoflop_table(0.003).query("flops_budget == 1e18")
    (fit,) = fits.fit(table, resamples=0)
    names = {status.name for status in fit.status}
    assert {"one budget", "approach 1 not fitted", "approach 2 not fitted"} <= names


@pytest.mark.long
@pytest.mark.parametrize(
    ("points", "line"),
    [
        ([(n, 20 * n, np.nan) for n in np.geomspace(1e7, 1e9, 12)], "D = 20 N,"),
        ([(n, 3 * n**0.8, np.nan) for n in np.geomspace(1e7, 1e9, 12)], "D = 3 N^0.8:"),
        ([(1e8, d, np.nan) for d in np.geomspace(1e9, 1e11, 12)], "all runs have N = 1e+08:"),
    ],
    ids=["D = 20 N", "a power", "one size"],
)
def test_a_line_cannot_be_identified_whatever_the_noise(points: list[tuple[float, float, float]], line: str) -> None:
    for seed in range(3):  # noise sets alpha and beta apart, and cond(J) at the fit then looks harmless
        table = simulate(CHINCHILLA_REFIT, points, 0.003, np.random.default_rng(seed))
        fit = fits.loss_law(table, resamples=0, check=False)
        assert line in {s.name: s.sentence for s in fit.status}["cannot be identified"]


def test_a_run_far_from_the_law_is_named() -> None:
    table = isoflop_table(0.003)
    table.loc[7, "loss_nats"] = 30.0
    names = {s.name: s.sentence for s in fits.loss_law(table, resamples=0, check=False).status}
    assert "simulated 7" in names["outliers"]
    assert "outliers" not in {s.name for s in fits.loss_law(isoflop_table(0.003), resamples=0, check=False).status}


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "approach", "status", "sentence"),
    [
        ({"flops": lambda t: t["tokens"]}, "3", "compute model", "grow as N^"),
        ({"loss_nats": lambda t: np.exp(t["loss_nats"])}, "3", "very large losses", "is it a perplexity"),
        ({"trunk": "one"}, "3", "one trunk", "intervals are too narrow"),
        ({"flops": -1.0}, "3", "compute model", "states no positive FLOPs"),
        ({"loss_nats": lambda t: 5 + (t["tokens"] / 1e9) ** 0.3}, "3", "outside its range", "does the loss fall"),
    ],
    ids=["flops without N", "perplexity", "one trunk", "negative flops", "a loss that rises"],
)
def test_odd_tables_have_a_status(change: dict[str, Any], approach: str, status: str, sentence: str) -> None:
    (fit,) = fits.fit(isoflop_table(0.003).assign(**change), (approach,), resamples=10, check=False)
    assert sentence in {s.name: s.sentence for s in fit.status}[status]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"loss_nats": lambda t: 1e200 * t["loss_nats"]},
            "no run is left to fit .loss_nats is beyond any size that occurs",
        ),
        ({"peak_lr": "high"}, "'peak_lr' of the table holds 'high'"),
        ({"epochs": "many"}, "'epochs' of the table holds 'many'"),
        ({"loss_nats": np.nan}, "^no run is left to fit"),  # once, though all three approaches say it
    ],
)
def test_unusable_tables_are_refused_in_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        fits.fit(isoflop_table(0.003).assign(**change), resamples=10)


def test_budgets_that_are_no_budgets_are_left_out() -> None:
    table = isoflop_table(0.003)
    table.loc[:2, "flops_budget"] = 0.0
    fit = fits.isoflop(table, resamples=0, check=False)
    assert [d.reason for d in fit.dropped if d.run.startswith("simulated")] == ["no compute budget"] * 3


def test_one_cluster_gives_no_bootstrap() -> None:
    with pytest.raises(UserError, match="all runs have one value of 'seed'"):
        fits.loss_law(isoflop_table(0.003).assign(seed=1), clusters="seed", resamples=10)


def test_only_the_weightiest_runs_of_a_large_table_are_left_out() -> None:
    table = pd.concat(
        [isoflop_table(0.003, seed=seed).assign(run=lambda t, s=seed: t["run"] + f" {s}") for seed in range(25)]
    )
    table.iloc[300, table.columns.get_loc("loss_nats")] *= 1.5
    law = fits.loss_law(table, loss="squared", resamples=0)
    sentence = {s.name: s.sentence for s in law.status}["influence"]
    assert str(table["run"].iloc[300]) in sentence
    assert "the 476 weightiest tried" in sentence


def test_the_envelopes_ends_do_not_bend_its_line() -> None:
    """Sizes 3M to 3B at every number of tokens: at the smallest and largest compute the best size is at an end."""
    points = grid_design(np.geomspace(3e6, 3e9, 24), np.geomspace(1e8, 3e11, 40))
    table = simulate(CHINCHILLA_REFIT, points, 0.001, np.random.default_rng(0), curves=True)
    fit = fits.frontier(table, resamples=0)
    truth = float(CHINCHILLA_REFIT.exponents()["params"])
    assert fit.a == pytest.approx(truth, abs=0.015)
    with_ends = float({s.name: s.sentence for s in fit.status}["envelope ends"].split("a = ")[1].split()[0])
    assert abs(with_ends - truth) > 0.015
    assert 0 < sum(p.in_line for p in fit.frontier) < len(fit.frontier)


def test_an_envelope_that_nothing_contests_is_sentences() -> None:
    points = [(n, 20 * n, np.nan) for n in np.geomspace(1e7, 1e9, 9)]
    fit = fits.frontier(simulate(CHINCHILLA_REFIT, points, 0.0, np.random.default_rng(0)), resamples=0)
    assert "fewer than three of 9 points" in {s.name: s.sentence for s in fit.status}["envelope not contested"]
    assert "envelope not contested" not in {s.name for s in fits.frontier(isoflop_table(0.003), resamples=0).status}


def test_a_table_from_a_file_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    isoflop_table(0.003).to_csv(path, index=False)
    one, other = (fits.loss_law(t, resamples=0, check=False) for t in (read_table(path), isoflop_table(0.003)))
    assert one.law == other.law


def missing_some() -> pd.DataFrame:
    """Fifteen of 21 points of an IsoFLOP sweep are not run yet: two budgets lack all sizes but two."""
    table = isoflop_table(0.003).assign(state="finished", reason="")
    lost = table.index.isin([*range(2, 7), *range(9, 14)])
    return table.assign(state=np.where(lost, "missing", "finished"), loss_nats=table["loss_nats"].mask(lost))


def test_missing_cells_are_named_and_the_fit_of_the_rest_is_partial() -> None:
    fit = fits.loss_law(missing_some(), resamples=0, check=False)
    named = {status.name: status for status in fit.status}
    missing = named["cells missing"]
    assert missing.severity == "warning"
    assert "10 of 21 points of the design have no loss" in missing.sentence
    assert "C = 1e+17" in missing.sentence and "and 4 more" in missing.sentence and "simulated 2" in missing.sentence
    assert "identified" not in named
    assert {"partial answer", "cannot be identified"} & set(named)


def test_a_lost_seed_of_a_point_that_has_others_is_no_missing_cell() -> None:
    table = pd.concat([isoflop_table(0.003, seed=s).assign(seed=s) for s in (0, 1)], ignore_index=True)
    table["run"] = [f"run {index}" for index in range(len(table))]
    table.loc[3, "loss_nats"] = np.nan
    named = sentences(usable(table))
    assert "cells missing" not in named and "run 3" in named["runs missing"]
    assert "identified" in {status.name for status in fits.loss_law(table, resamples=0, check=False).status}
