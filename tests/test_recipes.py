"""Recipes: shapes that exist, budgets that are met, rules that give their source's numbers."""

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.outcomes import outcome_of

from lmscale.core.config import DataConfig, ModelConfig, RunConfig
from lmscale.core.counting import count, flops_per_token, params_non_embedding, params_total
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.study import recipes
from lmscale.study.sweep import Sweep, isoflop, plan

FAMILY = recipes.Family(
    width_multiple=8, aspect_ratio=32, head_width=16, max_width=512, base=ModelConfig(width=16, layers=1, heads=1)
)
FIXED_DEPTH = recipes.Family(width_multiple=4, aspect_ratio=None, head_width=16, min_layers=3, min_heads=2)


@pytest.mark.parametrize("family", [FAMILY, FIXED_DEPTH, recipes.CPU_FAMILY], ids=["deepening", "fixed_depth", "cpu"])
def test_every_member_of_a_family_is_a_model_and_none_shrinks(family: recipes.Family) -> None:
    sizes = [params_total(model) for model in family.up_to(2e6)]
    assert len(sizes) > 10 and sizes == sorted(sizes)


def test_depth_and_heads_follow_from_the_width() -> None:
    models = list(FAMILY.up_to(math.inf))
    assert models[-1].width == FAMILY.max_width
    for model in models[8:]:
        assert abs(model.width / model.layers - 32) < 32 / model.layers + 1
        assert 16 / 1.5 <= model.head_width <= 16 * 1.5 or model.width % 32
    assert {model.layers for model in FIXED_DEPTH.up_to(1e6)} == {3}


def test_the_nearest_model_is_nearest_in_ratio() -> None:
    sizes = [params_total(FAMILY.shape(width)) for width in range(8, 513, 8)]
    # Just above the geometric mean of two members, where the smaller one is nearer in difference.
    between = [1.001 * math.sqrt(small * large) for small, large in pairwise(sizes)]
    for target in (3e3, 12_345, 70_000, 1e6, 5.5e6, *between[4:24]):
        nearest = params_total(recipes.nearest_model(target, FAMILY))
        assert nearest == min(sizes, key=lambda size: max(size / target, target / size))


@pytest.mark.parametrize("params", [100, 1e12])
def test_a_size_far_outside_the_family_is_refused(params: float) -> None:
    with pytest.raises(UserError, match=r"no model of this family has near .* the nearest, width"):
        recipes.nearest_model(params, FAMILY)
    with pytest.raises(UserError, match="must be positive"):
        recipes.nearest_model(-params, FAMILY)


RECIPE = recipes.Recipe(
    name="tests",
    source="these tests",
    family=FAMILY,
    lr=recipes.constant(0.01, "a constant"),
    batch_sequences=recipes.constant(8, "another"),
)


def run(point: dict[str, Any], **changes: Any) -> RunConfig:
    return replace(RECIPE, **changes)(point)


def test_a_run_meets_its_budget_within_half_a_batch() -> None:
    for flops in (1e9, 3.3e10, 7.77e11):
        for params in (1e4, 8e4):
            config = run({"flops": flops, "params": params})
            assert abs(count(config).flops - flops) <= flops_per_token(config.model) * config.batch_tokens / 2


def test_what_a_point_says_goes_before_the_rules() -> None:
    config = run({"width": 64, "tokens": 1e5, "peak_lr": 0.5, "batch_sequences": 2, "seed": 3})
    assert (config.model.width, config.optimizer.peak_lr, config.optimizer.batch_sequences, config.seed) == (
        64,
        0.5,
        2,
        3,
    )
    assert abs(config.tokens - 1e5) <= config.batch_tokens / 2


def test_rules_see_the_shape_and_the_length() -> None:
    args = {}

    def rate(model: ModelConfig, tokens: float) -> float:
        args.update(width=model.width, tokens=tokens)
        return 0.02

    config = run({"flops": 1e10, "width": 32}, lr=recipes.Rule(rate, "seen"))
    assert args == {"width": 32, "tokens": 1e10 / flops_per_token(config.model)} and config.optimizer.peak_lr == 0.02


def test_step_law_by_hand() -> None:
    """12 d^2 = 49,152 matrix parameters and D = 1e9: log10 of the rate is .25455 - .7129 x 4.69154 + .3075 x 9."""
    model = ModelConfig(width=64, layers=1, heads=2, mlp="gelu", context=128)
    assert params_non_embedding(model) == 49_152
    assert recipes.step_law_lr(model, 1e9) == pytest.approx(0.4758, rel=1e-3)
    # .5807 x 1e9^.5709 = 79,810 tokens are 623.5 sequences, nearer to 512 than to 1024 in ratio.
    assert recipes.step_law_batch()(model, 1e9) == 512
    assert recipes.step_law_batch(largest_tokens=16_384)(model, 1e9) == 128
    assert recipes.step_law_batch()(model, 10) == 1


# A model of the published sizes, where the rules were made: 12 d^2 L = 84,934,656 matrix parameters.
GPT2 = recipes.Family(
    width_multiple=64,
    aspect_ratio=64,
    head_width=64,
    base=ModelConfig(width=64, layers=1, heads=1, vocab=50_257, context=2048, mlp="gelu"),
)


@pytest.mark.parametrize(
    ("recipe", "lr", "batch_tokens", "weight_decay", "beta2"),
    [
        # With bc, N = 84,934,656 and D = 2e9: .003239 - .0001395 ln N; 2^19 is less than D / 1000.
        (recipes.standard(GPT2), 0.000692, 2**19, 0.1, 0.95),
        # 1.797 N^-.7129 D^.3075; .5807 D^.5709 = 118,552 tokens, 58 sequences: 64.
        (recipes.step_law(GPT2), 0.002897, 64 * 2048, 0.1, 0.95),
        # M = 736,100,352 over a context of 2048, C = M D: .3118 C^-.125; .2920 C^.3271 = 255,932 tokens, 125 sequences.
        (recipes.deepseek(GPT2), 0.001671, 125 * 2048, 0.1, 0.95),
        # .0047 (N / 108M)^-1/3 and 160 (N / 108M)^2/3 = 136 sequences of 2048.
        (recipes.olmo_ladder(GPT2), 0.005092, 136 * 2048, 0.1, 0.95),
        (recipes.porian_tuned(GPT2), 0.005092, 136 * 2048, 0.0, 0.99),
    ],
    ids=["standard", "step_law", "deepseek", "olmo_ladder", "porian_tuned"],
)
def test_published_recipes_by_hand(
    recipe: recipes.Recipe, lr: float, batch_tokens: int, weight_decay: float, beta2: float
) -> None:
    config = recipe({"width": 768, "tokens": 2e9})
    assert params_non_embedding(config.model) == 84_934_656
    assert config.optimizer.peak_lr == pytest.approx(lr, rel=2e-3)
    assert (config.optimizer.weight_decay, config.optimizer.beta2) == (weight_decay, beta2)
    assert config.batch_tokens == batch_tokens
    origins = recipe.origins({"width": 768, "tokens": 2e9})
    for name in ("peak_lr", "batch_sequences", "weight_decay", "beta2", "warmup_fraction"):
        assert re.search(r"\d{4}\.\d{5}|default", origins[f"optimizer.{name}"]), origins


def test_warmup_over_n_tokens() -> None:
    config = recipes.olmo_ladder(GPT2)({"width": 768, "tokens": 2e9})
    assert config.warmup_steps * config.batch_tokens == pytest.approx(84_934_656, rel=0.01)
    short = recipes.olmo_ladder(GPT2)({"width": 768, "tokens": 1e8})
    assert short.optimizer.warmup_fraction == 0.2


@pytest.mark.parametrize(("make", "layers"), [(recipes.mup, None), (recipes.completep, 2)])
def test_one_rate_for_all_widths(make: Any, layers: int | None) -> None:
    recipe = make(FAMILY, base_width=64, peak_lr=0.02, batch_tokens=1024)
    for width in (32, 64, 256):
        config = recipe({"width": width, "tokens": 1e6})
        assert (config.optimizer.peak_lr, config.batch_tokens) == (0.02, 1024)
        assert (config.model.parametrization, config.model.base_width) == (recipe.name, 64)
        assert config.model.base_layers == layers
    assert "tuned at width 64 x 2 layers" in recipe.origins({"width": 32, "tokens": 1e6})["optimizer.peak_lr"]


def test_a_recipe_takes_settings_of_its_own() -> None:
    recipe = recipes.step_law(FAMILY, optimizer={"weight_decay": 0.0}, validations=3)
    config = recipe({"params": 5e4, "tokens": 1e6})
    assert (config.optimizer.weight_decay, config.validations) == (0.0, 3)
    assert recipes.step_law(FAMILY)({"params": 5e4, "tokens": 1e6, "beta2": 0.9}).optimizer.beta2 == 0.9
    for point, sentence in (({"tokens": 1e6}, "needs the size"), ({"params": 5e4}, "needs the length")):
        with pytest.raises(UserError, match=sentence):
            recipe(point)


def test_every_recipe_is_called_with_its_settings() -> None:
    """`cpu` is complete without any; the result of each is called with a point, or with further settings."""
    point = {"width": 16, "tokens": 50_000}
    data, optimizer = DataConfig(source="mine.txt"), {"weight_decay": 0.3}
    tuned = {"base_width": 16, "peak_lr": 0.02, "batch_tokens": 1024}
    complete_recipes = (recipes.cpu(), recipes.step_law(FAMILY), recipes.mup(FAMILY, **tuned), recipes.standard(FAMILY))
    for recipe in (recipes.cpu, *complete_recipes):
        changed = recipe(data=data, optimizer=optimizer, keep_checkpoint=True, validations=3)
        config = changed(point)
        assert (config.data, config.keep_checkpoint, config.validations) == (data, True, 3)
        assert config.optimizer == replace(recipe(point).optimizer, weight_decay=0.3)
        assert changed(validations=5)(point) == replace(config, validations=5)
        assert recipe()(point).run_id == recipe(point).run_id
    assert recipes.cpu() == recipes.cpu and recipes.cpu(point).run_id == "5b1e030a4952"
    assert recipes.mup(FAMILY, **tuned, data=data)(point) == recipes.mup(FAMILY, **tuned)(data=data)(point)
    two = recipes.cpu(batch_sequences=2, lr=lambda model, tokens: 0.5)
    assert (two(point).optimizer.batch_sequences, two(point).optimizer.peak_lr) == (2, 0.5)
    assert two.origins(point)["optimizer.batch_sequences"] == "given to the recipe"
    with pytest.raises(UserError, match="lr = 'high' must be a positive number or a rule"):
        recipes.cpu(lr="high")
    for wrong, sentence in (({"dta": data}, "no setting 'dta'; did you mean 'data'"), ({"optimizer": 3}, "mapping")):
        with pytest.raises(UserError, match=sentence):
            recipes.cpu(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="called with a point, a mapping"):
        recipes.cpu(FAMILY)  # type: ignore[call-overload]


def test_tokens_per_param_are_those_of_the_nearest_shape() -> None:
    config = run({"params": 5.5e4, "tokens": 1e6, "tokens_per_param": 20.0})
    assert abs(config.tokens / params_total(config.model) - 20) < 0.05
    assert abs(config.tokens / 5.5e4 - 20) > 0.5


def test_large_batches_are_cut_into_micro_batches() -> None:
    point = {"width": 64, "tokens": 1e6, "batch_sequences": 12}
    for limit, parts in ((None, 1), (12 * 128, 1), (12 * 128 - 1, 2), (400, 4), (300, 6), (1, 12)):
        config = replace(RECIPE, micro_batch_tokens=limit)(point)
        assert config.optimizer.micro_batches == parts and config.run_id == RECIPE(point).run_id
    assert recipes.step_law(FAMILY, micro_batch_tokens=128)({"width": 64, "tokens": 1e8}).optimizer.micro_batches > 1


def test_where_values_come_from_is_in_the_plan() -> None:
    points = ({"params": 5e4, "tokens": 1e6}, {"width": 64, "flops": 1e12, "peak_lr": 0.5})
    first, second = plan(Sweep("one", points, RECIPE)).runs
    assert first.origins["optimizer.peak_lr"] == "a constant" and second.origins["optimizer.peak_lr"].endswith("own")
    assert first.origins["model"].startswith("nearest to N = 5e+04 in a family of widths in steps of 8")
    assert second.origins["tokens"] == "C = 1e+12 over exact FLOPs per token"
    assert PlannedRun.from_json(first.to_json()) == first


def test_a_family_is_printed_as_a_table() -> None:
    text = FAMILY.table(1e4, 1e6, rows=4)
    rows = [line.replace(",", "").split() for line in text.splitlines()[1:]]
    assert len(rows) == 4
    for width, layers, heads, head_width, hidden, *counts in rows:
        model = FAMILY.shape(int(width))
        assert (int(layers), int(heads), int(head_width), int(hidden)) == (
            model.layers, model.heads, model.head_width, model.hidden,
        )  # fmt: skip
        assert list(map(int, counts)) == [params_total(model), params_non_embedding(model), flops_per_token(model)]
    with pytest.raises(UserError, match="no member between"):
        FAMILY.table(1, 2)
    tiled = replace(FAMILY, mlp_multiple=128)
    assert all(tiled.shape(width).hidden % 128 == 0 for width in (8, 64, 200))
    assert tiled.shape(64).hidden >= FAMILY.shape(64).hidden


def tuning(folder: Path, rates: tuple[float, ...], best: Any) -> Path:
    """A finished sweep whose loss is quadratic in ln rate around `best(params)`."""
    points = [
        {"width": width, "tokens": 1e6, "peak_lr": rate, "batch_sequences": 4}
        for width in (32, 64, 128)
        for rate in rates
    ]
    runs = plan(Sweep("tune", points, RECIPE, law="")).runs
    write_plan(folder, "tune", runs)
    for one in runs:
        gap = math.log(one.config.optimizer.peak_lr / best(params_total(one.config.model)))
        outcome_of(one.config, loss_nats=2 + gap**2).write(folder / one.config.run_id)
    return folder


def test_a_recipe_from_a_finished_sweep(tmp_path: Path) -> None:
    """The best rate falls as N^-1/2: so does the rate of the recipe, within the grid's step."""
    rates = tuple(0.001 * 2**i for i in range(8))
    folder = tuning(tmp_path, rates, lambda params: 0.01 * (params / 1e5) ** -0.5)
    tuned_recipe = recipes.tuned(folder, RECIPE)
    for width in (32, 64, 128):
        model = FAMILY.shape(width)
        assert tuned_recipe.lr(model, 1e6) == pytest.approx(0.01 * (params_total(model) / 1e5) ** -0.5, rel=0.4)
    assert tuned_recipe({"width": 64, "tokens": 1e6}).optimizer.batch_sequences == 4
    assert "3 best cells" in tuned_recipe.lr.source and "N^-0." in tuned_recipe.lr.source


def test_best_rates_at_the_edge_are_left_out(tmp_path: Path) -> None:
    folder = tuning(tmp_path, (0.001, 0.002, 0.004), lambda params: 0.1)
    with pytest.raises(UserError, match="every best rate lies at the edge of its grid"):
        recipes.tuned(folder, RECIPE)
    assert recipes.tuned(folder, RECIPE, edges=True).lr(FAMILY.shape(64), 1e6) == pytest.approx(0.004)
    two = tuning(tmp_path / "two", (0.001, 0.002), lambda params: 0.1)
    with pytest.raises(UserError, match="no size with 3 finished learning rates"):
        recipes.tuned(two, RECIPE)


def test_the_ladder_ties_its_batch_to_n_and_the_plan_says_so() -> None:
    points = isoflop([1e17], centre=lambda flops: 3e7, sizes=3)
    family = replace(GPT2, base=replace(GPT2.base, vocab=256))
    plan_warnings = plan(Sweep("one", points, recipes.olmo_ladder(family))).warnings
    assert any("the batch changes with N" in line and "160 (N / 108M)^2/3" in line for line in plan_warnings)


def test_powers_of_two_are_nearest_in_ratio() -> None:
    assert [recipes.power_of_two(value) for value in (0.1, 1.4, 1.5, 90, 91)] == [1, 1, 2, 64, 128]


def test_the_cpu_recipe_lowers_rate_and_batch_as_models_grow_along_a_budget() -> None:
    runs = [recipes.cpu({"flops": 2e12, "params": params}) for params in (3e4, 1e5, 3e5)]
    rates = [config.optimizer.peak_lr for config in runs]
    batches = [config.optimizer.batch_sequences for config in runs]
    assert rates == sorted(rates, reverse=True) and batches == sorted(batches, reverse=True)
    assert all(config.steps >= 300 and config.warmup_steps >= 20 for config in runs)
