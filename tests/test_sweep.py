"""A sweep is a value: built, checked and counted before a FLOP is spent."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmscale.core.config import DataConfig, ExamConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.counting import count, flops_per_token
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.core.plans import read_plan, write_plan
from lmscale.study import recipes, sweep
from lmscale.study.laws import CHINCHILLA_REFIT
from lmscale.study.sweep import Point, Sweep, chain, grid, isoflop, ladder, plan, product, whole_batches

RUN = RunConfig(
    model=ModelConfig(width=16, layers=1, heads=2, context=16),
    optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=4),
    tokens=64_000,
)
RECIPE = recipes.Recipe(
    name="tests",
    source="these tests",
    family=recipes.Family(width_multiple=4, aspect_ratio=None, head_width=8, base=replace(RUN.model, heads=1)),
    lr=recipes.constant(0.01, "these tests"),
    batch_sequences=recipes.Rule(lambda model, tokens: tokens**0.5 / 16, "D^1/2 tokens"),
)


def seeded(point: Point) -> RunConfig:
    return replace(RUN, seed=point.get("seed", 0))


def sweep_of(points: Any = ({"seed": 0},), recipe: Any = seeded, **changes: Any) -> Sweep:
    return Sweep(name="one", points=points, recipe=recipe, **changes)


def test_grid_varies_its_last_axis_fastest() -> None:
    assert grid(flops=[1, 2], seed=[0, 1]) == tuple({"flops": f, "seed": s} for f in (1, 2) for s in (0, 1))
    assert grid() == ({},)


def test_the_algebra_is_closed() -> None:
    """chain and product are associative, product distributes over chain, a grid is a product, an empty list ends it."""
    one, two, three = grid(a=[1]), grid(b=[1, 2]), grid(c=[3, 4])
    assert chain(one, two, three) == chain(chain(one, two), three) == chain(one, chain(two, three))
    assert product(one, two, three) == product(product(one, two), three) == product(one, product(two, three))
    assert product(chain(one, two), three) == chain(product(one, three), product(two, three))
    assert grid(b=[1, 2], c=[3, 4]) == product(two, three)
    assert product(two, ({},)) == product(({},), two) == two and product(two, ()) == ()
    even = lambda point: point["c"] == 4
    assert sweep.where(chain(three, three), even) == chain(sweep.where(three, even), sweep.where(three, even))
    assert sweep.zip(b=[1, 2], c=[3, 4]) == ({"b": 1, "c": 3}, {"b": 2, "c": 4})


def test_what_the_algebra_refuses() -> None:
    with pytest.raises(UserError, match="product: a is 1 in one list and 2 in the other"):
        product(grid(a=[1]), grid(a=[2]))
    assert product(grid(a=[1]), grid(a=[1])) == ({"a": 1},)
    with pytest.raises(UserError, match=r"zip\(a: 1 values, b: 2 values\): .* equally long"):
        sweep.zip(a=[1], b=[1, 2])


def test_held_out_points_are_marked() -> None:
    points = sweep.hold_out(grid(seed=[0, 1]), lambda point: point["seed"] == 1)
    assert [run.held_out for run in plan(sweep_of(points)).runs] == [False, True]


def test_isoflop_spaces_sizes_evenly_in_log_around_the_centre() -> None:
    points = isoflop([1e12, 4e12], centre=lambda flops: flops**0.5, sizes=5, spread=4, seeds=[0, 1])
    assert len(points) == 2 * 5 * 2
    sizes = [point["params"] for point in points if point["flops"] == 4e12 and point["seed"] == 1]
    assert sizes == pytest.approx([2e6 * ratio for ratio in (1 / 4, 1 / 2, 1, 2, 4)])


def test_isoflop_refuses_what_has_no_minimum() -> None:
    with pytest.raises(UserError, match="at least 3 sizes"):
        isoflop([1e12], centre=lambda flops: 1e5, sizes=2)
    with pytest.raises(UserError, match="larger than 1"):
        isoflop([1e12], centre=lambda flops: 1e5, spread=1.0)


def test_ladder_is_sizes_times_lengths() -> None:
    points = ladder([1e5, 2e5], tokens_per_param=[20, 100], seeds=[7])
    assert [(p["params"], p["tokens"] / p["params"], p["seed"]) for p in points] == [
        (1e5, 20, 7), (1e5, 100, 7), (2e5, 20, 7), (2e5, 100, 7),
    ]  # fmt: skip


def test_an_isoflop_without_a_centre_lies_around_the_published_optimum() -> None:
    sizes = [point["params"] for point in isoflop([1e20])]
    assert math.sqrt(sizes[0] * sizes[-1]) == pytest.approx(float(CHINCHILLA_REFIT.optimum(1e20).params))


def test_over_training_holds_the_far_and_the_large_out() -> None:
    points = sweep.over_training([1e6, 4e6], [1, 4, 16], hold_out_from=16)
    assert [(p["params"], p["tokens"] / p["params"], p["held_out"]) for p in points] == [
        (1e6, 20, False), (1e6, 80, False), (1e6, 320, True), (4e6, 20, True), (4e6, 80, True), (4e6, 320, True),
    ]  # fmt: skip
    assert not any("held_out" in point for point in sweep.over_training([1e6]))


def test_one_model_at_several_lengths() -> None:
    points = sweep.fixed_model(1e5, [1e6, 4e6], seeds=[3])
    assert points == ({"params": 1e5, "tokens": 1e6, "seed": 3}, {"params": 1e5, "tokens": 4e6, "seed": 3})


def test_repeated_data_costs_the_same_and_differs_in_what_is_unique() -> None:
    runs = plan(sweep_of(sweep.repeat_data(2e3, tokens=2e6, epochs=(1, 4, 16)), RECIPE)).runs
    assert len({run.config.tokens for run in runs}) == 1
    passes = [run.config.tokens / (run.config.data.unique_tokens or 0) for run in runs]
    assert passes == pytest.approx([1, 4, 16], rel=0.01)
    with pytest.raises(UserError, match="passes its text at least once"):
        sweep.repeat_data(2e3, tokens=2e6, epochs=(0.5, 1))


def test_rates_under_each_parametrization() -> None:
    points = sweep.lr_transfer([16, 32], [0.01, 0.02], tokens=1e5)
    configs = [RECIPE({**point, "base_width": 16}) for point in points]
    assert [config.model.parametrization for config in configs] == ["standard"] * 4 + ["mup"] * 4
    assert {config.model.base_width for config in configs} == {None, 16}
    assert [config.optimizer.peak_lr for config in configs[:4]] == [0.01, 0.02] * 2
    assert len({config.run_id for config in configs}) == 8


def test_seeds_repeat_every_point() -> None:
    points = sweep.seeds(ladder([1e5], [20, 40]), 3)
    assert [(point["tokens"], point["seed"]) for point in points] == [(t, s) for t in (2e6, 4e6) for s in range(3)]


LENGTHS = (128_000, 256_000, 512_000, 1_024_000)


def test_a_trunk_is_paid_once() -> None:
    """D in {1, 2, 4, 8} with a fifth of each for its cooldown: 9.4 units instead of 15."""
    sweep_plan = plan(sweep_of(sweep.trunk([2e3], tokens=LENGTHS), RECIPE, law=""))
    *branches, trunk = sweep_plan.runs
    assert (trunk.trunk, trunk.branch_step) == ("", None)
    for run in branches:
        assert run.trunk == trunk.config.run_id
        assert run.branch_step == run.config.steps - run.config.cooldown_steps
    assert {run.group for run in sweep_plan.runs} == {"trunk 2000 seed 0"}
    assert {(run.config.optimizer.schedule, run.config.optimizer.cooldown_fraction) for run in sweep_plan.runs} == {
        ("wsd", 0.2)
    }
    same = {(run.config.warmup_steps, run.config.optimizer.peak_lr, run.config.batch_tokens) for run in sweep_plan.runs}
    assert len(same) == 1
    assert sweep_plan.flops / sweep_plan.flops_apart == pytest.approx(9.4 / 15, rel=0.01)
    assert [count(run.config).flops for run in sweep_plan.runs] == [
        flops_per_token(run.config.model) * run.config.tokens for run in sweep_plan.runs
    ]
    assert sweep_plan.flops_apart == sum(count(run.config).flops for run in sweep_plan.runs)


def test_a_branch_has_its_trunks_rates_until_it_leaves() -> None:
    """What makes the shared steps the same: the schedules agree update for update, as far as the branch says."""
    import jax
    import jax.numpy as jnp

    from lmscale.lm.train.optimizer import Schedule

    runs = plan(sweep_of(sweep.trunk([2e3], tokens=LENGTHS), RECIPE, law="")).runs
    rates = jax.jit(lambda schedule: schedule.at(jnp.arange(runs[-1].config.steps)))
    *branches, trunk = (np.asarray(rates(Schedule.of(run.config))) for run in runs)
    for run, branch in zip(runs, branches):
        assert run.branch_step is not None
        assert (branch[: run.branch_step] == trunk[: run.branch_step]).all()
        own = slice(run.branch_step + 1, run.config.steps)
        assert (branch[own] < trunk[own]).all()


def test_trunks_of_several_sizes_and_seeds_are_apart() -> None:
    points = chain(*(sweep.trunk([2e3, 8e3], tokens=LENGTHS[:2], seed=seed) for seed in (0, 1)))
    runs = plan(sweep_of(points, RECIPE, law="")).runs
    assert len({run.group for run in runs}) == 4
    by_id = {run.config.run_id: run for run in runs}
    for run in runs:
        if run.trunk:
            assert by_id[run.trunk].group == run.group and by_id[run.trunk].config.tokens > run.config.tokens


def test_what_a_trunk_refuses() -> None:
    def own_rate(point: Point) -> RunConfig:
        return replace(config := RECIPE(point), optimizer=replace(config.optimizer, peak_lr=1e3 / config.tokens))

    points = sweep.trunk([2e3], tokens=LENGTHS[:2])
    with pytest.raises(UserError, match="differ in more than their length: a shared trunk takes one rate"):
        plan(sweep_of(points, own_rate, law=""))
    with pytest.raises(UserError, match=r"leaves its trunk at step .* which must lie between the end of the warmup"):
        plan(sweep_of(sweep.trunk([2e3], tokens=LENGTHS[:2], cooldown=0.95), RECIPE, law=""))
    for arguments, sentence in (
        ({}, "give the lengths of the branches once"),
        ({"tokens": [1e5], "tokens_per_param": [20]}, "give the lengths of the branches once"),
        ({"tokens": [1e5, 1e5]}, "is given twice"),
        ({"tokens": [1e5], "cooldown": 1.0}, "0.1 to 0.2 is usual"),
    ):
        with pytest.raises(UserError, match=sentence):
            sweep.trunk([2e3], **arguments)  # type: ignore[arg-type]


def test_whole_batches_takes_the_nearest_and_at_least_one() -> None:
    assert [whole_batches(tokens, 100) for tokens in (1, 149, 151, 1000)] == [100, 100, 200, 1000]
    for nonsense in (0, -5, math.nan, math.inf):
        with pytest.raises(UserError, match="must be positive"):
            whole_batches(nonsense, 100)


def test_a_plan_holds_every_run_its_flag_and_its_budget() -> None:
    points = [{"flops": 1e9, "seed": 0}, {"flops": 3e9, "seed": 1, "group": "pair"}]
    sweep_plan = plan(sweep_of(points, held_out=lambda point: point["flops"] == 3e9))
    assert [run.config.seed for run in sweep_plan.runs] == [0, 1]
    assert [run.held_out for run in sweep_plan.runs] == [False, True]
    assert [run.flops_budget for run in sweep_plan.runs] == [1e9, 3e9]
    assert [run.group for run in sweep_plan.runs] == ["", "pair"]
    assert sweep_plan.flops == 2 * count(RUN).flops


def test_a_sweep_names_the_tasks_of_all_its_runs() -> None:
    exam = ExamConfig(tasks=("synthetic:tasks(letters=4)",))
    asked = replace(RUN, exam=ExamConfig(tasks=("mmlu:here",)))
    (of_sweep,), (of_recipe,) = (plan(sweep_of(recipe=lambda _: asked, **given)).runs for given in ({"exam": exam}, {}))
    assert of_sweep.config.exam == exam and of_recipe.config.exam == asked.exam
    assert of_sweep.config.run_id == of_recipe.config.run_id == RUN.run_id


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    sweep_plan = plan(sweep_of([{"flops": 1e9, "seed": s} for s in range(3)], held_out=lambda point: point["seed"] > 1))
    write_plan(tmp_path, sweep_plan.sweep.name, sweep_plan.runs)
    assert read_plan(tmp_path) == ("one", sweep_plan.runs)


def test_a_plan_comes_back_from_what_the_command_wrote(tmp_path: Path) -> None:
    """A branch stays a branch, held out stays held out, limits stay."""
    from lmscale.commands.plan.rows import price_plan
    from lmscale.study.prices import Hardware

    points = sweep.hold_out(sweep.trunk([2e3], tokens=LENGTHS), lambda point: point["tokens"] == LENGTHS[0])
    before = plan(sweep_of(points, RECIPE, law="", max_flops=1e12, question="Which?"))
    write_json(tmp_path / "p.json", price_plan(before, Hardware("here", 1, assumed=1e9), None).to_json())
    after = sweep.read(tmp_path / "p.json")
    assert after.runs == before.runs and after.warnings == before.warnings[: len(after.warnings)]
    assert (after.sweep.name, after.sweep.law, after.sweep.max_flops) == ("one", "", 1e12)
    assert plan(after.sweep).runs[0].config == before.runs[0].config
    (tmp_path / "bad.json").write_text('{"sweep": "x"}')
    with pytest.raises(UserError, match=r"bad.json is not a plan"):
        sweep.read(tmp_path / "bad.json")


def test_one_run_of_two_points_is_trained_once() -> None:
    merged = plan(sweep_of([{"seed": 0, "extra": 1}, {"seed": 0, "extra": 2}, {"seed": 1}]))
    assert len(merged.runs) == 2 and "1 points give a run that another point gives already" in merged.warnings[0]
    assert not any("already" in warning for warning in plan(sweep_of(grid(seed=[0, 1]))).warnings)


def test_a_batch_that_follows_n_along_a_budget_is_said() -> None:
    points = isoflop([1e10], centre=lambda flops: 2e4, sizes=5)
    lines = [
        line for line in plan(sweep_of(points, RECIPE)).warnings if "along an IsoFLOP the batch changes with N" in line
    ]
    assert len(lines) == 1 and lines[0].endswith("its rule: D^1/2 tokens")
    fixed = replace(RECIPE, batch_sequences=recipes.constant(4, "fixed"))
    assert not any("along an IsoFLOP" in line for line in plan(sweep_of(points, fixed)).warnings)
    decay = recipes.Rule(lambda model, tokens: 1 / model.width, "1 / width")
    tied = plan(sweep_of(points, replace(fixed, optimizer={"weight_decay": decay}))).warnings
    assert any("the weight decay changes with N" in line and "1 / width" in line for line in tied)
    seeded_points = product(isoflop([1e10], centre=lambda flops: 2e4, sizes=3)[1:2], grid(batch_sequences=[2, 4]))
    assert not any("along an IsoFLOP" in line for line in plan(sweep_of(seeded_points, RECIPE)).warnings)


def test_short_runs_long_warmups_and_many_epochs_are_said() -> None:
    short = replace(RUN, tokens=64 * 50, optimizer=replace(RUN.optimizer, warmup_fraction=0.5))
    run_warnings = plan(sweep_of([{}], lambda point: short)).warnings
    assert any("have fewer than 100 updates" in line for line in run_warnings)
    assert any("more than 20% of their steps in warmup" in line for line in run_warnings)
    again = replace(RUN, data=DataConfig(unique_tokens=6_400, max_epochs=20.0))
    assert any("repeated up to 10 times" in line for line in plan(sweep_of([{}], lambda point: again)).warnings)
    assert plan(sweep_of()).warnings == ()


def fails(point: Point) -> RunConfig:
    return replace(RUN, seed=point["sead"])


def test_what_a_plan_refuses() -> None:
    refused = {
        r"give the same run .* differ in purpose .*: point\(seed=0, flops=1\) and point\(seed=0, flops=2\)": sweep_of(
            [{"seed": 0, "flops": 1}, {"seed": 0, "flops": 2}]
        ),
        r"passes its 1,000 unique tokens 64 times, more than data.max_epochs = 4; train on at most 4,000": sweep_of(
            recipe=lambda point: replace(RUN, data=DataConfig(unique_tokens=1000))
        ),
        r"point\(seed=0\) trains [\d,]+ parameters on 64,000 tokens: D/N = .* outside 20 to 40; move": sweep_of(
            [{"seed": 0}], tokens_per_param=(20, 40)
        ),
        r"D/N = .* outside 0.1 to 5; move": sweep_of([{"seed": 0}], tokens_per_param=(0.1, 5)),
        r"recipe of sweep 'one' returned dict for point\(seed=0\), not a RunConfig": sweep_of(recipe=dict),
        r"^point\(seed=0\): the recipe of sweep 'one' fails at .*test_sweep.py, line \d+: KeyError: 'sead'$": sweep_of(
            recipe=fails
        ),
        r"^point\(seed=0\): the held_out of sweep 'one' fails at .*, line \d+: KeyError: 'flops'$": sweep_of(
            held_out=lambda point: point["flops"] > 1
        ),
        r"point\(seed=-1\): RunConfig.seed = -1": sweep_of([{"seed": -1}]),
    }
    for sentence, wrong in refused.items():
        with pytest.raises(UserError, match=sentence):
            plan(wrong)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("name", "a/b", "it names a folder"),
        ("name", "..", "it names a folder"),
        ("points", (), "has no points"),
        ("points", iter([{}]), "must be of type Sequence"),
        ("recipe", 3, "must be of type Callable"),
    ],
)
def test_what_a_sweep_refuses(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        replace(sweep_of(), **{field: value})


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: isoflop([-1.0]), "isoflop(budgets=-1.0)"),
        (lambda: isoflop("1e12"), "isoflop(budgets='1e12')"),
        (lambda: isoflop([1e12], centre=lambda flops: math.nan), "isoflop(centre=...) gives nan"),
        (lambda: ladder([1e5, math.inf], [20]), "ladder(sizes=inf)"),
        (lambda: ladder([1e5], [True]), "ladder(tokens_per_param=True)"),
        (lambda: sweep.builders.fixed_model(0, [1e6]), "fixed_model(params=0)"),
        (lambda: sweep.builders.repeat_data(1e5, "1e6"), "repeat_data(tokens='1e6')"),
    ],
)
def test_builders_take_positive_numbers(build, named):
    with pytest.raises(UserError, match=re.escape(named) + ": must be (a )?positive number"):
        build()
