"""Total and active parameters are two columns, and whatever takes one of them for N says which."""

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.outcomes import RUN, outcome_of
from helpers.plans import output_of, own_cache, screen, shown  # noqa: F401

from lmscale import UserError, fits, laws, read_table
from lmscale.commands import status
from lmscale.commands.bench import spread_of_sizes
from lmscale.core.counting import SIZES, count, flops_per_token_6n
from lmscale.core.measured_speeds import MeasuredSpeed
from lmscale.core.plans import PlannedRun, read_plan, write_plan
from lmscale.core.quantities import quantity
from lmscale.core.results import Outcome, collect
from lmscale.study.fits.predict import preregister
from lmscale.study.launch.states import read_states
from lmscale.study.laws import CHINCHILLA_REFIT
from lmscale.study.prices import between
from lmscale.study.report.conventions import conventions
from lmscale.study.sweep import plan_of_runs

SPARSE = replace(RUN, model=replace(RUN.model, experts=8, experts_per_token=2))
QUICK: dict[str, Any] = {"resamples": 0, "check": False}


def test_a_dense_model_is_active_as_a_whole() -> None:
    dense, sparse = count(RUN), count(SPARSE)
    for name in ("params", "params_non_embedding", "params_with_head"):
        assert getattr(dense, f"active_{name}") == getattr(dense, name)
        assert getattr(sparse, f"active_{name}") < getattr(sparse, name)
    assert {"params", "active_params", "active_params_with_head"} < set(SIZES) and "tokens" not in SIZES
    assert (
        sparse.flops_6n == flops_per_token_6n(SPARSE.model) * SPARSE.tokens == 6 * sparse.active_params * SPARSE.tokens
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "runs" / "two"
    write_plan(place, "two", [PlannedRun(RUN), PlannedRun(SPARSE)])
    for run in (RUN, SPARSE):
        outcome_of(run).write(place / run.run_id)
    return place


def test_the_table_of_a_sweep_has_both(folder: Path) -> None:
    dense, sparse = collect(folder).to_dict("records")
    assert dense["params"] == dense["active_params"] == count(RUN).params
    assert (sparse["params"], sparse["active_params"]) == (count(SPARSE).params, count(SPARSE).active_params)
    names = ("experts", "experts_per_token", "shared_experts", "granularity", "sparsity")
    assert [dense[name] for name in names] == [1, 1, 0, 1, 0]
    assert [sparse[name] for name in names] == [8, 2, 0, 1, 0.75]
    active = read_table(folder, columns="params=active_params")
    assert list(active["params"]) == [count(RUN).params, count(SPARSE).active_params]


def test_files_of_before_there_were_experts_are_of_dense_models(folder: Path) -> None:
    """Neither the line of a plan nor an outcome had these fields; both are read, and nothing else of them changes."""
    plan = json.loads((folder / "plan.json").read_text())
    for line in plan["runs"]:
        del line["active_params"]
    (folder / "plan.json").write_text(json.dumps(plan))
    file = folder / RUN.run_id / "outcome.json"
    outcome = json.loads(file.read_text())
    old = {name: value for name, value in outcome.items() if not name.startswith("active_")}
    assert len(old) == len(outcome) - 2
    file.write_text(json.dumps(old))
    assert asdict(Outcome.read(folder / RUN.run_id)) == outcome  # type: ignore[arg-type]
    assert [run.config for run in read_plan(folder)[1]] == [RUN, SPARSE]
    state = read_states(folder)[1][0]
    assert state.active_params == state.params == count(RUN).params
    assert collect(folder)["active_params"].tolist() == [count(RUN).params, count(SPARSE).active_params]


@pytest.mark.parametrize("active", [-1, 10**9])
def test_an_impossible_count_of_an_outcome_is_one_sentence(folder: Path, active: int) -> None:
    file = folder / SPARSE.run_id / "outcome.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "active_params": active}))
    with pytest.raises(UserError, match=r"is corrupt or .*(must not be negative|no more parameters)"):
        Outcome.read(folder / SPARSE.run_id)


def test_status_knows_both(folder: Path) -> None:
    _, (dense, sparse) = read_states(folder)
    assert (dense.active_params, sparse.active_params) == (count(RUN).params, count(SPARSE).active_params)


@pytest.mark.parametrize("active", [0, -1, "many", 10**9, True])
def test_a_damaged_count_in_a_plan_is_made_again(folder: Path, active: Any) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    plan["runs"][1]["active_params"] = active
    (folder / "plan.json").write_text(json.dumps(plan))
    assert read_states(folder)[1][1].active_params == count(SPARSE).active_params


def test_a_plan_prints_both_and_how_many_experts(folder: Path) -> None:
    text = re.sub(r"\s+", " ", shown(plan_of_runs("two", read_plan(folder)[1], law=""), folder, width=200))
    counts = count(SPARSE)
    assert f"2 of 8 {quantity(counts.params)} {quantity(counts.active_params)} 64k" in text
    assert "active: the parameters that a token passes" in text and "models have 1 to 8 experts" in text
    dense = shown(plan_of_runs("one", [PlannedRun(RUN)], law=""), folder, width=200)
    assert "active" not in dense and "experts" not in dense


def test_status_prints_both(folder: Path) -> None:
    console = screen(200)
    status.main(status.StatusArgs(folder), console)
    line = next(line for line in output_of(console).splitlines() if SPARSE.run_id in line)
    assert line.split()[1:3] == [quantity(count(SPARSE).params), quantity(count(SPARSE).active_params)]


def test_the_speed_of_a_dense_shape_says_little_of_experts() -> None:
    """At equal FLOPs of a token, a shape with experts takes its time from another one with experts."""
    wider = replace(RUN, model=replace(RUN.model, experts=4, experts_per_token=1))
    speeds = [
        MeasuredSpeed(config=config, flops_per_second=rate, compile_seconds=1.0, device="cpu", cores=1)
        for config, rate in ((RUN, 1e10), (wider, 1e9))
    ]
    assert between(speeds, SPARSE)[0] < 2e9 and between(speeds, RUN)[0] == pytest.approx(1e10, rel=1e-3)
    runs = [PlannedRun(config) for config in (RUN, wider, SPARSE)]
    assert {run.config.model.experts for run in spread_of_sizes(runs)} == {1, 4, 8}


# ------------------------------------------------------------------------------------------------------------- tables


def table_of(experts: Any = (1, 8), rows: int = 40, seed: int = 0) -> pd.DataFrame:
    """Runs of a law of the active parameters, whose total is larger with experts; FLOPs are 6 N D with the active N."""
    rng = np.random.default_rng(seed)
    active, ratio = np.exp(rng.uniform(np.log(1e7), np.log(1e9), rows)).round(), np.exp(rng.uniform(1, 5, rows))
    number = rng.choice(experts, rows)
    tokens = (active * ratio).round()
    return pd.DataFrame(
        {
            "run": [f"r{i}" for i in range(rows)],
            "params": (active * (1 + 0.6 * (number - 1))).round(),
            "active_params": active,
            "experts": number,
            "tokens": tokens,
            "flops": 6 * active * tokens,
            "loss_nats": CHINCHILLA_REFIT.loss(active, tokens),
        }
    )


def sentence(fit: Any, name: str = "experts") -> str:
    return next((status.sentence for status in fit.status if status.name == name), "")


def test_a_fit_of_several_numbers_of_experts_says_which_n_it_takes() -> None:
    total = fits.loss_law(table_of(), **QUICK)
    assert total.size_column == "params"
    assert "N is all trained parameters (column params)" in sentence(total)
    assert "19 to 100 %" in sentence(total) and "1 to 8" in sentence(total)
    assert "`columns='params=active_params'`" in sentence(total)
    assert next(one for one in total.status if one.name == "experts").severity == "warning"
    active = fits.loss_law(table_of(), columns="params=active_params", **QUICK)
    assert active.size_column == "active_params"
    assert "N is the parameters that one token passes (column active_params)" in sentence(active)
    assert "columns=" not in sentence(active)
    assert active.law.alpha == pytest.approx(CHINCHILLA_REFIT.alpha, rel=1e-4)
    assert abs(total.law.alpha - CHINCHILLA_REFIT.alpha) > 0.01


@pytest.mark.long
def test_the_fit_by_the_other_n_is_stated_beside_it() -> None:
    """Among the counts whose choice moves a fit; of dense models the active ones are no other count."""
    stated = sentence(fits.loss_law(table_of(), resamples=0), "counting conventions")
    assert "with N = active_params and C = 6ND" in stated
    dense = fits.loss_law(table_of(experts=(1,)), resamples=0)
    assert "active" not in sentence(dense, "counting conventions")


def test_dense_runs_are_fitted_as_before() -> None:
    dense = table_of(experts=(1,))
    plain = fits.loss_law(dense.drop(columns=["active_params", "experts"]), **QUICK)
    both = fits.loss_law(dense, **QUICK)
    assert both.law == plain.law and both.status == plain.status and both.table_hash == plain.table_hash
    assert not sentence(both) and both.size_column == "params"


def test_one_number_of_experts_is_a_note_and_no_warning() -> None:
    fit = fits.loss_law(table_of(experts=(8,)), **QUICK)
    (status,) = [one for one in fit.status if one.name == "experts"]
    assert status.severity == "note" and "N is all trained parameters" in status.sentence


@dataclass(frozen=True)
class WithExperts(laws.Law):
    """A law that knows experts, which each multiply N."""

    A: Any
    kappa: Any

    NAME = "with-experts"
    PARAMETERS = (laws.Parameter("A", 1, 1e6, (100,)), laws.Parameter("kappa", 0.01, 2, (0.5,), log=False))
    INPUTS = ("params", "tokens", "experts")

    def loss(self, params: Any, tokens: Any, experts: Any = 1.0) -> Any:
        return 1.8 + self.A * (params * experts**self.kappa) ** -0.35 + 2000 * tokens**-0.36


def test_a_law_with_experts_is_told_that_it_takes_active_parameters() -> None:
    table = table_of()
    assert "take active ones: `columns='params=active_params'`" in sentence(fits.loss_law(table, WithExperts, **QUICK))
    fit = fits.loss_law(table, WithExperts, columns="params=active_params", **QUICK)
    (status,) = [one for one in fit.status if one.name == "experts"]
    assert status.severity == "note" and "columns=" not in status.sentence


def test_models_of_equal_flops_are_no_cell_of_learning_rates() -> None:
    """At one active N and D they differ in their experts, and with them in their rates: none is left out."""
    one = table_of(experts=(1,), rows=12)
    several = pd.concat([one.assign(experts=number, learning_rate=0.01 / number) for number in (1, 2, 4)])
    several = several.assign(
        run=[f"r{i}" for i in range(36)], loss_nats=lambda d: d["loss_nats"] / d["experts"] ** 0.05
    )
    fit = fits.loss_law(several, WithExperts, columns="params=active_params", **QUICK)
    assert fit.n_runs == 36 and not fit.dropped


def test_another_count_is_named_too() -> None:
    """As of active parameters, so of any other count: a fit that is not of all parameters says so."""
    table = table_of(experts=(1,)).assign(params_non_embedding=lambda d: (0.7 * d["params"]).round())
    fit = fits.loss_law(table, columns="params=params_non_embedding", **QUICK)
    assert fit.size_column == "params_non_embedding" and "column params_non_embedding" in sentence(fit, "N")


def test_the_saved_fit_keeps_which_n_it_is(tmp_path: Path) -> None:
    for options in ({}, {"columns": "params=active_params"}):
        fit = fits.loss_law(table_of(), **QUICK, **options)  # type: ignore[arg-type]
        value = json.loads(json.dumps(fit.to_json()))
        assert fits.LossLaw.from_json(value).size_column == fit.size_column == value["size_column"]
        value.pop("size_column")
        assert fits.LossLaw.from_json(value).size_column == "params"
        with pytest.raises(UserError, match="'size_column' of the saved fit is 'tokens'"):
            fits.LossLaw.from_json({**value, "size_column": "tokens"})


def test_held_out_runs_are_counted_as_the_fit_counts_them() -> None:
    """The table may be read without the mapping of the fit: its runs are compared at the fit's own N."""
    table = table_of().assign(held_out=lambda d: d.index < 8)
    fit = fits.loss_law(table, columns="params=active_params", **QUICK)
    checked = fits.held_out_check(fit, table)
    assert checked.mean_absolute_error < 1e-5 and checked.size_column == "active_params"
    total = fits.loss_law(table, **QUICK)
    with pytest.raises(UserError, match="the N of the fit is params, that of the table active_params"):
        fits.held_out_check(total, read_table(table, "params=active_params"))


def test_a_registered_prediction_is_checked_at_its_own_n(tmp_path: Path) -> None:
    table = table_of(rows=60)
    fit = fits.loss_law(table, columns="params=active_params", resamples=20, check=False)
    row = table.iloc[3]
    path = tmp_path / "p.json"
    preregister.register(fit, [{"params": float(row["active_params"]), "tokens": float(row["tokens"])}], path)
    (verdict,) = preregister.check(path, table=table)["verdicts"]
    assert "r3" in verdict["runs"] and abs(verdict["error"]) < 1e-4


def test_what_a_table_lacks_is_completed_with_the_active_parameters() -> None:
    table = table_of()
    without = table.drop(columns="flops")
    completed = read_table(without)
    assert completed["flops"].to_numpy() == pytest.approx(table["flops"].to_numpy())
    assert "40 rows state no FLOPs: C = 6ND, N the active parameters" in completed.attrs["notes"]
    assert read_table(table.drop(columns="tokens"))["tokens"].to_numpy() == pytest.approx(table["tokens"].to_numpy())
    dense = read_table(table_of(experts=(1,)).drop(columns="flops"))
    assert "40 rows state no FLOPs: C = 6ND" in dense.attrs["notes"]


def test_usual_names_of_active_parameters_are_recognised() -> None:
    table = table_of().rename(columns={"active_params": "N_active", "experts": "num_experts"})
    read = read_table(table)
    assert list(read["active_params"]) == list(table["N_active"]) and list(read["experts"]) == list(
        table["num_experts"]
    )
    fit = fits.loss_law(table, columns="params=N_active", **QUICK)
    assert fit.size_column == "active_params"


def test_more_active_parameters_than_there_are_is_one_sentence() -> None:
    with pytest.raises(UserError, match="a token passes no more than there are; exchange the columns"):
        read_table(table_of().rename(columns={"params": "active_params", "active_params": "params"}))


def test_the_page_says_what_n_counts(folder: Path) -> None:
    meaning = dict(conventions(read_table(folder), []))
    assert "all trained parameters" in meaning["N"] and "parameters that one token passes" in meaning["active N"]
    active = dict(conventions(read_table(folder, "params=active_params"), []))
    assert "one token passes" in active["N"] and "active N" not in active


def test_a_page_of_a_table_of_before_knows_that_its_runs_were_counted_here(folder: Path) -> None:
    table = read_table(folder)
    old = table[[name for name in table if not str(name).startswith("active_")]]
    assert "embeddings and output head included" in dict(conventions(old, []))["N"]
