"""Where the checks of a loss law begin to speak: a little below each threshold they are silent, a little above not."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.isoflop import isoflop_table

from lmscale.study.fits.approaches import parametric as approach
from lmscale.study.fits.checks import parametric
from lmscale.study.fits.results.common import Status
from lmscale.study.fits.runs import usable
from lmscale.study.fits.solvers.problem import GlobalMinimum, Problem
from lmscale.study.laws import CHINCHILLA_REFIT, Chinchilla

VALUES = np.array(list(CHINCHILLA_REFIT.values().values()))
BEST = GlobalMinimum(VALUES, objective=0.5, gradient=0.0, starts=24, agreeing=2)


def problem(table: pd.DataFrame, **changed: Any) -> Problem:
    inputs = tuple(table[name].to_numpy(dtype=float) for name in ("params", "tokens"))
    return replace(Problem(Chinchilla, inputs, table["loss_nats"].to_numpy()), **changed)


def named(statuses: list[Status]) -> dict[str, str]:
    return {status.name: status.severity for status in statuses}


@pytest.mark.parametrize(
    ("column", "fine", "doubtful", "name"),
    [
        ("epochs", 4.0, 4.01, "repeated data"),  # Muennighoff 2023
        ("unique_tokens", 0.25, 0.2499, "repeated data"),
        ("loss_nats", 15.0, 15.01, "very large losses"),
        ("warmup_fraction", 0.2, 0.201, "long warmup"),  # Porian 2024
        ("fraction_of_schedule", 0.999, 0.998, "unfinished schedules"),
        ("portion_steps_elapsed", 0.999, 0.998, "unfinished schedules"),
    ],
)
def test_what_training_may_have_bent(column: str, fine: float, doubtful: float, name: str) -> None:
    table = isoflop_table()
    unit = table["tokens"] if column == "unique_tokens" else 1.0
    runs = usable(table.assign(**{column: fine * unit}))
    assert parametric.of_training(runs) == []
    values = (fine * unit * pd.Series(1.0, table.index)).mask(table.index.isin([2, 5, 7, 11]), doubtful * unit)
    (status,) = parametric.of_training(replace(runs, table=table.assign(**{column: values})))
    assert (status.name, status.severity) == (name, "warning")
    assert status.sentence.startswith(f"4 of {len(table)} runs ")
    assert status.sentence.endswith(" (first: simulated 2, simulated 5, simulated 7)")


def test_epochs_that_a_table_states_are_not_computed_from_unique_tokens() -> None:
    runs = usable(isoflop_table().assign(epochs=1.0, unique_tokens=1e6))
    assert parametric.of_training(runs) == []


@pytest.mark.parametrize(("starts", "agreeing", "severity"), [(24, 1, "warning"), (24, 2, "ok"), (1, 1, "ok")])
def test_a_minimum_that_one_start_of_several_has_reached(starts: int, agreeing: int, severity: str) -> None:
    status, _ = parametric.search(problem(isoflop_table()), replace(BEST, starts=starts, agreeing=agreeing))
    assert (status.name, status.severity) == ("starts", severity)
    assert status.sentence.startswith(f"{agreeing} of {starts} ")


@pytest.mark.parametrize(
    ("objective", "gradient", "severity"),
    [(0.5, 9e-7, "ok"), (0.5, 1.1e-6, "note"), (10, 9e-6, "ok"), (10, 1.1e-5, "note")],
)
def test_a_gradient_that_has_not_vanished(objective: float, gradient: float, severity: str) -> None:
    _, status = parametric.search(problem(isoflop_table()), replace(BEST, objective=objective, gradient=gradient))
    assert (status.name, status.severity) == ("gradient", severity) and "largest component" in status.sentence


def test_a_search_for_a_corner_that_was_cut_short_is_told() -> None:
    corner = problem(isoflop_table(), loss="lad")
    _, status = parametric.search(corner, replace(BEST, gradient=1e-9))
    assert (status.name, status.severity) == ("gradient", "ok") and "one more step gains 1.0e-09" in status.sentence
    _, status = parametric.search(corner, replace(BEST, gradient=np.inf))
    assert (status.name, status.severity) == ("minimum not proved", "warning")


@pytest.mark.parametrize(
    ("at", "severity", "fragment"),
    [
        ([1e18, 1e19], "ok", "lies within the runs'"),
        ([1e18, 1.01e19], "note", "1.01 times the largest run's 1e+19 FLOPs"),
        ([1e21], "note", "100 times"),
        ([1.01e21, 1e3], "warning", "101 times"),
    ],
)
def test_how_far_budgets_are_extrapolated(at: list[float], severity: str, fragment: str) -> None:
    (status,) = parametric.extrapolation(at, 1e19)
    assert (status.name, status.severity) == ("extrapolation", severity) and fragment in status.sentence
    assert parametric.extrapolation([], 1e19) == parametric.extrapolation(at, np.inf) == []


@pytest.mark.parametrize("residual", ["log", "raw"])
@pytest.mark.parametrize(
    ("times", "loss", "severity"),
    [(9.9, "huber", None), (10.1, "huber", "note"), (10.1, "lad", "note"), (10.1, "squared", "warning"),
     (99, "huber", "note"), (101, "huber", "warning")],
)  # fmt: skip
def test_a_run_that_the_law_misses_by_far(residual: str, times: float, loss: str, severity: str | None) -> None:
    """By robust standard deviations, 1.4826 medians of the residuals; the others miss by 1e-4 each."""
    runs = usable(isoflop_table())
    table, usual = runs.table, 1.4826e-4
    off = np.resize([1e-4, -1e-4], len(table))
    off[3], off[8] = -times * usual, 9.5 * usual
    exact = CHINCHILLA_REFIT.loss(table["params"], table["tokens"]).to_numpy()
    table = table.assign(loss_nats=exact * np.exp(off) if residual == "log" else exact + off)
    statuses = parametric.outliers(problem(table, loss=loss, residual=residual), BEST, runs)
    assert [status.severity for status in statuses] == [severity] * (severity is not None)
    for status in statuses:
        assert f"misses 1 run by more than 10 times the usual 0.00015 in {'ln L' if residual == 'log' else 'L'} (" in (
            status.sentence
        )
        assert status.sentence.endswith(f": {runs.names[3]} by {-times * usual:+.3g}")


@pytest.mark.parametrize(("spread", "alone"), [(0.099, True), (0.101, False)])
def test_runs_of_one_budget(spread: float, alone: bool) -> None:
    table = isoflop_table().iloc[:7].reset_index(drop=True)
    product = (table["params"] * table["tokens"]).mean()
    table["tokens"] = product * np.exp(np.linspace(0, spread, 7)) / table["params"]
    assert named(parametric.one_budget(problem(table))) == ({"one budget": "warning"} if alone else {})


@pytest.mark.parametrize(("at_end", "open_end"), [(25, False), (26, True)])
@pytest.mark.parametrize("end", ["low", "high"])
def test_an_interval_is_open_where_a_tail_lies_at_the_end_of_the_range(at_end: int, open_end: bool, end: str) -> None:
    """One of 40 resamples is what a 95 % interval leaves out on a side."""
    (alpha,) = (one for one in Chinchilla.PARAMETERS if one.name == "alpha")
    samples = {name: np.full(1000, value) for name, value in CHINCHILLA_REFIT.values().items()}
    samples["alpha"][:at_end] = getattr(alpha, end)
    statuses = parametric.at_bounds(problem(isoflop_table()), BEST, SimpleNamespace(**samples))  # type: ignore[arg-type]
    assert named(statuses) == ({"open interval": "warning"} if open_end else {})
    assert not open_end or statuses[0].sentence.startswith("alpha runs to the end of its range in 3% of resamples")


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [(0.1, 0.9, ""), (CHINCHILLA_REFIT.alpha, 0.9, "at a bound"), (0.1, CHINCHILLA_REFIT.alpha, "at a bound"),
     (0.4, 0.9, "outside its range"), (0.1, 0.3, "outside its range")],
)  # fmt: skip
def test_a_parameter_on_and_beyond_the_ends_of_its_range(low: float, high: float, name: str) -> None:
    statuses = parametric.at_bounds(problem(isoflop_table(), bounds={"alpha": (low, high)}), BEST, None)
    assert named(statuses) == ({name: "warning"} if name else {})


@pytest.mark.parametrize(
    ("converged", "has_intervals", "severity"),
    [(799, False, "warning"), (800, True, "warning"), (989, True, "warning"), (990, True, "ok")],
)
def test_so_few_resamples_converged(converged: int, has_intervals: bool, severity: str) -> None:
    """From four of five on there are intervals; below 99 of 100 a warning says how many."""
    earlier = Status("kind of bootstrap", "as before")
    judged = approach._judged(CHINCHILLA_REFIT, converged, 1000, "weights", None, [earlier])
    assert (judged.samples is CHINCHILLA_REFIT) == has_intervals and judged.bootstrap == "weights"
    first, status = judged.statuses
    assert first is earlier and (status.name, status.severity) == (
        "bootstrap" if has_intervals else "no intervals",
        severity,
    )
    assert status.sentence.startswith(f"{converged} of 1000 resamples converged")


def test_budgets_reach_ten_times_beyond_the_largest_run() -> None:
    runs = usable(isoflop_table())
    flops = np.where(np.arange(len(runs)) == 4, 2e19, 3e17)
    flops[:3] = np.nan, np.inf, 0.0
    stated = replace(runs, table=runs.table.assign(flops=flops))
    assert approach.largest_flops(stated) == 2e19
    assert approach.decades(stated) == (1e17, 1e18, 1e19, 1e20, 1e21)
    silent = replace(runs, table=runs.table.drop(columns="flops"))
    assert np.isnan(approach.largest_flops(silent)) and approach.decades(silent) == ()


def test_checkpoints_of_one_run_share_its_noise() -> None:
    runs = usable(isoflop_table())
    assert approach._checkpoints(runs) == []
    names = [*["a"] * 3, *["b"] * 2, *runs.names[5:]]
    several = replace(runs, table=runs.table.assign(run=names))
    (status,) = approach._checkpoints(several)
    assert (status.name, status.severity) == ("checkpoints of one run", "warning")
    assert status.sentence.startswith("5 rows are of 2 runs at several points and share its noise")
