"""Experts as axes of a sweep: shapes that have the FLOPs of the dense model, and sizes that say which N they are."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.outcomes import outcome_of

from lmscale import ModelConfig, RunConfig, Sweep, UserError, grid, isoflop, ladder, recipes, seeds, with_experts
from lmscale.core.config import RouterConfig
from lmscale.core.counting import count, params_router
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.study.sweep import plan

SPARSE = replace(
    recipes.CPU_FAMILY,
    base=replace(recipes.CPU_FAMILY.base, experts=4, experts_per_token=2, router=RouterConfig(z_loss=0.001)),
    granularity=2,
)


def run(**point: Any) -> RunConfig:
    return recipes.cpu({"tokens": 1e6, **point})


def test_a_point_sets_the_experts_of_its_model() -> None:
    model = run(width=32, experts=8, experts_per_token=2, shared_experts=1, expert_width=40).model
    assert (model.experts, model.experts_per_token, model.shared_experts, model.expert_width) == (8, 2, 1, 40)
    assert model == run(width=32, experts=8.0, experts_per_token=2, shared_experts=1, expert_width=40).model
    assert run(width=32, experts=1) == run(width=32)


def test_more_experts_cost_the_flops_of_the_dense_model_and_its_router() -> None:
    """With granularity too: G of G E experts of 1 / G of the MLP are one MLP."""
    points = with_experts(grid(width=[48], tokens=[1e6]), (1, 2, 8), granularity=(1, 4))
    dense, *sparse = [recipes.cpu(point).model for point in points]
    assert [model.experts for model in (dense, *sparse)] == [1, 2, 8, 8, 32] and dense.hidden % 4 == 0
    for model in sparse:
        own, plain = (count(replace(run(width=48), model=one), tokens=1) for one in (model, dense))
        assert own.active_params == plain.params + params_router(model)
        assert own.flops == plain.flops + 6 * params_router(model)
        assert own.params > plain.params and model.granularity in (1, 4)


def test_builders_of_n_become_sizes_of_active_parameters() -> None:
    points = with_experts(seeds(ladder([3e4, 1e5], [20]), 2), (1, 4))
    assert len(points) == 8 and all("params" not in point for point in points)
    for point in points:
        config = recipes.cpu(point)
        counts = count(config)
        assert counts.active_params == pytest.approx(point["active_params"], rel=0.15)
        assert config.tokens == pytest.approx(20 * counts.active_params, rel=0.02)
        assert (counts.params > 1.5 * counts.active_params) == (point["experts"] == 4)


def test_along_an_isoflop_every_number_of_experts_spends_the_budget() -> None:
    points = with_experts(isoflop([1e11], centre=lambda flops: 5e4, sizes=3, spread=2), (1, 8))
    sweep = Sweep(name="two", points=points, recipe=recipes.cpu, law="")
    planned = plan(sweep)
    for planned_run in planned.runs:
        assert count(planned_run.config).flops == pytest.approx(1e11, rel=0.02)
    text = str(planned)
    assert "active" in text and "1 of 8" in text
    dense = str(plan(replace(sweep, points=isoflop([1e11], centre=lambda flops: 5e4, sizes=3, spread=2))))
    assert "active" not in dense and "experts" not in dense


def test_a_family_with_experts_gives_way_to_a_dense_point() -> None:
    recipe = recipes.cpu(family=SPARSE)
    sparse = recipe({"width": 32, "tokens": 1e6}).model
    assert (sparse.experts, sparse.experts_per_token, sparse.granularity) == (4, 2, 2)
    assert sparse.router.z_loss == 0.001
    assert recipe({"width": 32, "tokens": 1e6, "experts": 1}).model == run(width=32).model
    assert recipe({"width": 32, "tokens": 1e6, "expert_width": 8}).model.expert_width == 8
    total = recipe({"params": 1e5, "tokens": 1e6}).model
    assert total.width < recipe({"active_params": 1e5, "tokens": 1e6}).model.width
    assert "4 experts, 2 per token, granularity 2" in str(SPARSE)
    assert "active N" in SPARSE.table(1e4, 1e6) and "active N" not in recipes.CPU_FAMILY.table(1e4, 1e6)


def test_where_an_expert_comes_from_is_stated() -> None:
    origins = recipes.cpu.origins({"active_params": 5e4, "tokens": 1e6, "experts": 8, "granularity": 2})
    assert origins["model.experts"] == origins["model.expert_width"] == "the point's own"
    assert "5e+04 active parameters" in origins["model"] and "8 experts" in origins["model"]


def test_rules_see_the_active_parameters() -> None:
    """A rate tuned on dense models is that of the model of these FLOPs, whatever lies idle."""
    dense, sparse = run(width=48), run(width=48, experts=8)
    share = count(sparse).active_params / count(dense).params
    assert sparse.optimizer.peak_lr == pytest.approx(dense.optimizer.peak_lr * share**-0.5)
    assert sparse.optimizer.batch_sequences == dense.optimizer.batch_sequences


def test_a_rate_tuned_over_numbers_of_experts_follows_them(tmp_path: Path) -> None:
    """Cells of other experts are cells of their own, and the rule has an exponent of E beside those of N and D."""
    runs = []
    for width in (16, 32, 64):
        for experts in (1, 4):
            for rate in (0.25, 0.5, 1, 2, 4):
                config = run(width=width, experts=experts, batch_sequences=4)
                best = 0.01 * (count(config).active_params / 1e4) ** -0.5 * experts**-0.25
                settings = replace(config.optimizer, peak_lr=best * rate)
                config = replace(config, optimizer=settings)
                runs.append(PlannedRun(config))
                outcome_of(config, loss_nats=2 + math.log(rate) ** 2).write(tmp_path / config.run_id)
    write_plan(tmp_path, "rates", runs)
    cells = recipes.best_cells(tmp_path)
    assert sorted(cell.experts for cell in cells) == [1, 1, 1, 4, 4, 4] and not any(cell.at_edge for cell in cells)
    rate = recipes.tuned(tmp_path, recipes.cpu).lr
    dense, sparse = (run(width=32, experts=experts).model for experts in (1, 16))
    share = count(run(width=32, experts=16)).active_params / count(run(width=32)).params
    assert rate(sparse, 1e6) / rate(dense, 1e6) == pytest.approx(share**-0.5 * 16**-0.25, rel=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        ({"width": 32, "experts": 2.5}, "experts = 2.5: must be a whole number"),
        ({"width": 32, "experts": True}, "experts = True: must be a whole number"),
        ({"width": 32, "experts": 2, "experts_per_token": 3}, "experts_per_token = 3 is more than experts = 2"),
        ({"width": 32, "experts": 1, "experts_per_token": 2}, "experts_per_token = 2 is more than experts = 1"),
        ({"width": 32, "experts": 1, "granularity": 2}, "granularity = 2 with experts = 1"),
        ({"width": 32, "granularity": 2}, "granularity = 2 with experts = 1"),
        ({"width": 32, "experts": 4, "granularity": 500}, "leaves experts of width 32 empty.*take at most 88"),
        ({"width": 32, "experts": 4, "granularity": 2, "expert_width": 8}, "both expert_width and granularity"),
        ({"params": 1e5, "active_params": 1e5}, "both params and active_params"),
        ({"active_params": 1e12}, "active parameters; the nearest, width"),
        ({}, "params \\(N\\), active_params or width"),
    ],
)
def test_a_point_that_makes_no_model_is_one_sentence(point: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        run(**point)


@pytest.mark.parametrize("numbers", [{"experts": ()}, {"experts": (0,)}, {"experts": (1.5,)}, {"granularity": (0,)}])
def test_impossible_numbers_of_experts_are_refused_where_they_are_written(numbers: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="must be whole numbers of at least 1"):
        with_experts(grid(width=[16]), **numbers)


def test_a_coordinate_of_experts_is_checked_with_the_sweep() -> None:
    with pytest.raises(UserError, match="point 1 of sweep 'x': experts = 0: must be a positive number"):
        Sweep(name="x", points=[{"width": 16, "tokens": 1e6, "experts": 0}], recipe=recipes.cpu)


def test_presets_and_models_of_before_are_dense() -> None:
    model = ModelConfig(width=16, layers=1, heads=1)
    assert (model.experts, model.granularity) == (1, 1)
