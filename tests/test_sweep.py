"""A sweep is a value: built, checked and counted before a FLOP is spent."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmscale.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.counting import count, flops_per_token, train_flops
from lmscale.errors import UserError
from lmscale.results import read_plan, write_plan
from lmscale.sweep import Point, Sweep, chain, estimate, grid, isoflop, ladder, load, plan, whole_batches

RUN = RunConfig(
    model=ModelConfig(width=16, layers=1, heads=2, context=16),
    optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=4),
    tokens=64_000,
)


def seeded(point: Point) -> RunConfig:
    return replace(RUN, seed=point.get("seed", 0))


def sweep(points: Any = ({"seed": 0},), recipe: Any = seeded, **changes: Any) -> Sweep:
    return Sweep(name="one", points=points, recipe=recipe, **changes)


def test_grid_varies_its_last_axis_fastest() -> None:
    assert grid(flops=[1, 2], seed=[0, 1]) == tuple({"flops": f, "seed": s} for f in (1, 2) for s in (0, 1))
    assert grid() == ({},)


def test_chain_joins_lists_that_are_themselves_chains() -> None:
    one, two, three = grid(a=[1]), grid(b=[1, 2]), grid(c=[3])
    assert (
        chain(one, two, three) == chain(chain(one, two), three) == chain(one, chain(two, three)) == (*one, *two, *three)
    )


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


def test_whole_batches_takes_the_nearest_and_at_least_one() -> None:
    assert [whole_batches(tokens, 100) for tokens in (1, 149, 151, 1000)] == [100, 100, 200, 1000]
    for nonsense in (0, -5, math.nan, math.inf):
        with pytest.raises(UserError, match="must be positive"):
            whole_batches(nonsense, 100)


def test_a_plan_holds_every_run_its_flag_and_its_budget() -> None:
    points = [{"flops": 1e9, "seed": 0}, {"flops": 3e9, "seed": 1, "group": "pair"}]
    made = plan(sweep(points, held_out=lambda point: point["flops"] == 3e9))
    assert [run.config.seed for run in made.runs] == [0, 1]
    assert [run.held_out for run in made.runs] == [False, True]
    assert [run.flops_budget for run in made.runs] == [1e9, 3e9]
    assert [run.group for run in made.runs] == ["", "pair"]
    assert made.flops == 2 * train_flops(RUN)


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    made = plan(sweep([{"flops": 1e9, "seed": s} for s in range(3)], held_out=lambda point: point["seed"] > 1))
    write_plan(tmp_path, made.sweep.name, made.runs)
    assert read_plan(tmp_path) == ("one", made.runs)


def test_estimate_adds_start_up_training_and_validation() -> None:
    config = replace(RUN, validations=3, validation_tokens=1_000)
    flops = flops_per_token(RUN.model) * (RUN.tokens + 1_000)  # three forward passes are one training step
    assert estimate(config, 1e6, startup_seconds=5).seconds == pytest.approx(5 + flops / 1e6)


def fails(point: Point) -> RunConfig:
    return replace(RUN, seed=point["sead"])


def test_what_a_plan_refuses() -> None:
    refused = {
        r"two points are the same run .*point\(seed=0, extra=1\) and point\(seed=0, extra=2\)": sweep(
            [{"seed": 0, "extra": 1}, {"seed": 0, "extra": 2}]
        ),
        r"point\(seed=0\) trains [\d,]+ parameters on 64,000 tokens: D/N = .* outside 20 to 40; move": sweep(
            [{"seed": 0}], tokens_per_param=(20, 40)
        ),
        r"D/N = .* outside 0.1 to 5; move": sweep([{"seed": 0}], tokens_per_param=(0.1, 5)),
        r"recipe of sweep 'one' returned dict for point\(seed=0\), not a RunConfig": sweep(recipe=dict),
        r"recipe of sweep 'one' fails at point\(seed=0\): KeyError: 'sead' \(.*test_sweep.py, line": sweep(
            recipe=fails
        ),
        r"held_out of sweep 'one' fails at point\(seed=0\): KeyError: 'flops'": sweep(
            held_out=lambda point: point["flops"] > 1
        ),
        r"point\(seed=-1\): RunConfig.seed = -1": sweep([{"seed": -1}]),
        r"flops_budget = 'much'": sweep([{"flops": "much"}]),
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
        replace(sweep(), **{field: value})


FILES = {
    "no_sweep": ("POINTS = []", "defines no SWEEP; write SWEEP = "),
    "other_name": (
        "from lmscale.sweep import Sweep\nSTUDY = Sweep('a', [{}], print)",
        "defines a Sweep as STUDY: call that SWEEP",
    ),
    "wrong_type": ("SWEEP = [1, 2]", "SWEEP is of type list; write SWEEP = "),
    "syntax": ("value = 1\ndef f(:\n", "syntax.py, line 2: SyntaxError"),
    "raises": ("value = 1\n\nvalue / 0\n", "raises.py, line 3: ZeroDivisionError"),
    "deeper": ("import json\njson.loads('{}\\n\\n\\n1')", "deeper.py, line 2: JSONDecodeError"),
    "imports": ("import absent_module", "imports.py, line 1: ModuleNotFoundError: .*absent_module"),
    "refused": (
        "from lmscale.sweep import isoflop\nisoflop([1], centre=abs, sizes=1)",
        "refused.py: isoflop.*at least 3 sizes",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_sweep_file_that_is_wrong_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    text, sentence = FILES[name]
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(UserError, match=sentence):
        load(tmp_path / f"{name}.py")


def test_an_absent_sweep_file_names_the_nearest(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no sweep file .*smok\.py; did you mean 'smoke\.py'"):
        load(root / "sweeps" / "smok.py")
    with pytest.raises(UserError, match=r"no sweep file .*sweeps; .*'?isoflop_cpu"):
        load(root / "sweeps")
    with pytest.raises(UserError, match=r"no sweep file .*x\.py$"):
        load(tmp_path / "nowhere" / "x.py")


def test_the_sweeps_that_ship_hold_their_largest_budget_out(root: Path) -> None:
    for name in ("smoke", "isoflop_cpu", "isoflop_gpu"):
        made = plan(load(root / "sweeps" / f"{name}.py"))
        budgets = sorted({run.flops_budget for run in made.runs if run.flops_budget})
        assert len(budgets) >= 3
        assert {run.flops_budget for run in made.runs if run.held_out} == {budgets[-1]}
        for run in made.runs:
            assert count(run.config).flops == pytest.approx(run.flops_budget, rel=0.02)
