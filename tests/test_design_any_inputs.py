"""Designs for laws of more than N and D: slopes, verdicts and the next runs, in Python and by `lmscale plan`."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command_line import call
from helpers.plans import output_of, screen

from lmscale.commands.plan.arguments import PlanArgs
from lmscale.commands.plan.verb import main
from lmscale.core.config import ModelConfig
from lmscale.core.errors import UserError
from lmscale.study import design, laws, recipes, sweep
from lmscale.study.design import Candidates, Prior, Runs, improve, information
from lmscale.study.laws import CLARK_2022_SBASE, Law

FAMILY = recipes.Family(
    width_multiple=8, aspect_ratio=32, head_width=8, base=ModelConfig(width=16, layers=1, heads=1, context=32)
)
RECIPE = recipes.step_law(FAMILY, validation_tokens=4096)
DISTILLATION = laws.Distillation(2.5, 520.0, 1.3, 0.09, 2240.0, 24000.0, 0.32, 0.437, 0.764)
LAWS = {
    "clark": (CLARK_2022_SBASE, {"params": (1e8, 1e9, 1e9), "experts": (1.0, 8.0, 64.0)}),
    "distillation": (
        DISTILLATION, {"params": (1e8, 1e9, 3e8), "tokens": (1e10, 3e10, 1e11), "teacher_loss": (2.4, 2.2, 2.0)},
    ),
    "parscale": (laws.PARSCALE_2025_PILE, {"params": (1e9, 2e9, 4e9), "streams": (1.0, 2.0, 8.0)}),
    "farseer": (laws.FARSEER_2025, {"params": (1e8, 1e9, 1e9), "tokens": (1e10, 3e10, 1e11)}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
def test_slopes_of_any_law_are_those_of_differences(name: str) -> None:
    law, columns = LAWS[name]
    runs = Runs.of({name: np.array(values) for name, values in columns.items()})
    exact = design.jacobian(law, runs)
    for index, parameter in enumerate(law.PARAMETERS):
        value, step = getattr(law, parameter.name), 1e-6
        moved = [value * math.exp(s) if parameter.log else value + s for s in (step, -step)]
        upper, lower = (type(law)(**{**law.values(), parameter.name: one}).loss(*runs.inputs(law)) for one in moved)
        assert exact[:, index] == pytest.approx((upper - lower) / (2 * step), rel=1e-4, abs=1e-7)
    at = {one: float(np.asarray(column)[0]) for one, column in columns.items()}
    by_function = design.fisher.gradient(law, lambda one: one.loss(*[at[name] for name in law.INPUTS]))
    assert by_function == pytest.approx(exact[0], rel=1e-5, abs=1e-8)


def routed(sizes: Any, experts: Any) -> Runs:
    """Every size with every number of experts."""
    params_n, experts_n = (axis.ravel() for axis in np.meshgrid(sizes, experts))
    return Runs.of({"params": params_n, "experts": experts_n})


def test_what_tells_experts_apart_is_their_number() -> None:
    prior = Prior(CLARK_2022_SBASE, "clark", 0.005)
    one_size = information(prior, routed([1e8], np.geomspace(1, 256, 9)))
    crossed = information(prior, routed(np.geomspace(1e7, 1e9, 4), [1, 4, 16, 64, 256]))
    assert not one_size.identified and one_size.line is None
    assert crossed.identified and crossed.sd("c") is not None and not crossed.states_optimum
    target = routed([5e9], [64])
    sd = crossed.sd(target)
    slopes = design.jacobian(prior.law, target)
    assert crossed.covariance_pp is not None and sd == pytest.approx(
        math.sqrt(slopes[0] @ crossed.covariance_pp @ slopes[0])
    )
    with pytest.raises(UserError, match="'clark' is of params, experts, and the runs state no experts"):
        information(prior, Runs(np.array([1e8, 1e9]), np.array([1e9, 1e10])))


def test_the_next_runs_of_a_law_with_experts_beat_a_row_of_the_grid() -> None:
    """The same money as one more row of the grid, spent where the loss of a larger model is narrowed most."""
    law, prior = CLARK_2022_SBASE, Prior(CLARK_2022_SBASE, "clark", 0.005)
    runs, target = routed(np.geomspace(1e7, 1e8, 4), [1, 4, 16, 64, 256]), routed([1e10], [128])
    row = routed([2e8], [1, 4, 16, 64, 256])
    pool = routed(np.geomspace(5e6, 1e9, 15), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
    spend = float(row.params_n.sum())
    candidates = Candidates.of({"params": pool.params_n, "experts": pool.others["experts"]}, pool.params_n)
    proposal = improve(prior, runs, candidates, target, spend=spend, most=10)
    rival = information(prior, design.with_candidates(runs, Candidates.of(
        {"params": row.params_n, "experts": row.others["experts"]}, row.params_n)))  # fmt: skip
    assert proposal.flops <= spend
    before, after, other = proposal.sd_before, proposal.sd_after, rival.sd(target)
    assert before is not None and after is not None and other is not None and after < 0.9 * other < before
    assert [float(pool.params_n[index]) for index in proposal.indices] == proposal.chosen.params_m.tolist()
    assert law.INPUTS == ("params", "experts")


def test_the_first_runs_are_chosen_from_nothing_over_several_laws() -> None:
    law = laws.PARSCALE_2025_PILE
    others = [laws.ParScale(1e7, 0.1, 0.2, 1.0), laws.ParScale(1e9, 0.5, 0.4, 1.4)]
    pool = {"params": np.repeat(np.geomspace(1e8, 4e9, 6), 4), "streams": np.tile([1.0, 2.0, 4.0, 8.0], 6)}
    proposal = improve(
        Prior(law, "start", 0.01), Runs(), Candidates.of(pool, pool["params"]),
        Runs.of({"params": np.array([1e10]), "streams": np.array([8.0])}), spend=8e9, most=8, others=others, vague=1.0,
    )  # fmt: skip
    assert proposal.sd_before is None and len({*proposal.indices}) == len(proposal.indices) > 3
    assert len({*proposal.chosen.others["streams"]}) > 1 and len({*proposal.chosen.params_m}) > 1


GRID = "grid(active_params=[2e4, 8e4, 32e4], tokens=[1e7], experts=[1, 4, 16, 64, 256])"
SWEEP = (
    "from lmscale import recipes\nfrom lmscale.core.config import ModelConfig\nfrom lmscale.study.sweep import *\n"
    "BASE = ModelConfig(width=16, layers=1, heads=1, context=32, experts=2)\n"
    "FAMILY = recipes.Family(width_multiple=8, aspect_ratio=32, head_width=8, base=BASE)\n"
    "SWEEP = Sweep('e', {points}, recipes.step_law(FAMILY, validation_tokens=4096), law='{law}')\n"
)


def written(folder: Path, law: str, points: str = GRID) -> Path:
    (folder / "e.py").write_text(SWEEP.format(points=points, law=law))
    return folder / "e.py"


@pytest.mark.long
def test_a_sweep_of_experts_is_judged_and_improved(tmp_path: Path) -> None:
    path, out = written(tmp_path, "clark"), tmp_path / "more.json"
    main(PlanArgs(path, runs=tmp_path), console := screen(400))
    assert "can identify the law 'clark'" in output_of(console) and "E_start" in output_of(console)
    asked = PlanArgs(path, runs=tmp_path, improve=True, spend=5e14, most=5, quantity="loss", json=out)
    main(asked, console := screen(400))
    text, runs = output_of(console), sweep.read(out).runs
    assert "chosen to narrow the loss of the largest runs" in text and "the standard deviation" in text
    assert 15 < len(runs) <= 20 and {run.config.model.experts for run in runs[15:]} <= {1, 4, 16, 64, 256}
    with pytest.raises(UserError, match=r"'clark' is of params, experts and states no N\* at a budget"):
        main(PlanArgs(path, runs=tmp_path, improve=True, spend=5e14, quantity="params"), screen())
    two = written(tmp_path, "clark", GRID.replace("4, 16, 64, 256", "4"))
    with pytest.raises(UserError, match="the parameters of 'clark' cannot be told apart; add runs of several values"):
        main(PlanArgs(two, runs=tmp_path), screen())


def test_a_law_of_n_d_and_experts_has_an_optimum_where_their_number_is_given(tmp_path: Path) -> None:
    path = written(tmp_path, "joint-experts")
    law = laws.JointExperts(36.0, 0.23, -0.19, -0.01, 36.0, -0.55, -0.18, 0.026, 1.36, 1.85, 314.0)
    prior = Prior(law, "own", 0.01, smallest_flops=None, given={"experts": 4.0})
    known = information(prior, design.fitted_runs(sweep.plan(sweep.load(path)).runs, law=type(law)))
    assert known.states_optimum and known.runs.others["experts"].tolist().count(4.0) == 3
    shift = known.log_ratio(1e15)(law) - math.log(float(law.optimum(1e15, experts=4.0).tokens_per_param))
    assert float(shift) == pytest.approx(0, abs=1e-12)
    assert design.fisher.gradient(law, known.log_ratio(1e15)).shape == (11,)


def test_a_sweep_is_for_what_its_configurations_state() -> None:
    for name in ("parscale", "distillation", "mixture-5"):
        with pytest.raises(UserError, match=r"runs are planned for one of params, tokens, unique_tokens"):
            sweep.Sweep("one", [{"params": 1e5, "tokens": 1e6}], RECIPE, law=name)
    with pytest.raises(UserError, match="a planned run states no streams"):
        design.inputs_of(RECIPE({"params": 1e5, "tokens": 1e6}), ("params", "streams"))


@pytest.mark.long
def test_repeated_text_is_improved_at_the_planned_unique_tokens(tmp_path: Path) -> None:
    points = "grid(params=[2e4, 4e4, 8e4, 16e4], tokens=[4e5, 16e5, 64e5], unique_tokens=[2e5, 4e5])"
    path, out = written(tmp_path, "data-constrained", points), tmp_path / "more.json"
    path.write_text(path.read_text().replace(", experts=2", ""))
    assert call("plan", path, "--runs", tmp_path, "--improve", "--spend", "1e13", "--most", 4, "--json", out) == 0
    runs = sweep.read(out).runs
    assert {run.config.data.unique_tokens for run in runs} == {200_000, 400_000} and len(runs) > 24


def test_a_line_is_refused_with_the_theorem(tmp_path: Path) -> None:
    path = written(tmp_path, "chinchilla", "ladder([2e4, 4e4, 8e4, 16e4, 32e4], [20])")
    path.write_text(path.read_text().replace(", experts=2", ""))
    with pytest.raises(UserError, match=r"all runs lie on the line D = .* N, on which .* arXiv 2605\.08541"):
        main(PlanArgs(path, runs=tmp_path), screen())


def test_any_law_has_slopes_along_many_laws() -> None:
    """Parameters of shape (r, 1): one Jacobian per law."""
    law = CLARK_2022_SBASE
    runs = routed(np.geomspace(1e7, 1e9, 3), [1.0, 16.0])
    several: Law = type(law)(**{name: np.array([[value], [value]]) for name, value in law.values().items()})
    stacked = design.jacobian(several, runs)
    assert stacked.shape == (2, 6, 6) and stacked[1] == pytest.approx(design.jacobian(law, runs))
