"""Recipes: shapes that exist, budgets that are met, rules that give their source's numbers."""

import math
from itertools import pairwise

import pytest

from lmscale import recipes
from lmscale.config import ModelConfig, RunConfig
from lmscale.counting import flops_per_token, params_non_embedding, params_total, train_flops
from lmscale.errors import UserError

FAMILY = recipes.Family(
    width_multiple=8, aspect_ratio=32, head_width=16, max_width=512, base=ModelConfig(width=16, layers=1, heads=1)
)
KEPT = recipes.Family(width_multiple=4, aspect_ratio=None, head_width=16, min_layers=3, min_heads=2)


@pytest.mark.parametrize("family", [FAMILY, KEPT, recipes.CPU_FAMILY], ids=["deepening", "kept", "cpu"])
def test_every_member_of_a_family_is_a_model_and_none_shrinks(family: recipes.Family) -> None:
    sizes = [params_total(model) for model in family.up_to(2e6)]
    assert len(sizes) > 10 and sizes == sorted(sizes)


def test_depth_and_heads_follow_from_the_width() -> None:
    models = list(FAMILY.up_to(math.inf))
    assert models[-1].width == FAMILY.max_width
    for model in models[8:]:
        assert abs(model.width / model.layers - 32) < 32 / model.layers + 1
        assert 16 / 1.5 <= model.head_width <= 16 * 1.5 or model.width % 32
    assert {model.layers for model in KEPT.up_to(1e6)} == {3}


def test_the_nearest_model_is_nearest_in_ratio() -> None:
    sizes = [params_total(FAMILY.shape(width)) for width in range(8, 513, 8)]
    # Just above the geometric mean of two members, where the smaller one is nearer in difference.
    between = [1.001 * math.sqrt(small * large) for small, large in pairwise(sizes)]
    for wanted in (3e3, 12_345, 70_000, 1e6, 5.5e6, *between[4:24]):
        found = params_total(recipes.nearest_model(wanted, FAMILY))
        assert found == min(sizes, key=lambda size: max(size / wanted, wanted / size))


@pytest.mark.parametrize("params", [100, 1e12])
def test_a_size_far_outside_the_family_is_refused(params: float) -> None:
    with pytest.raises(UserError, match=r"no model of this family has near .* the nearest, width"):
        recipes.nearest_model(params, FAMILY)
    with pytest.raises(UserError, match="must be positive"):
        recipes.nearest_model(-params, FAMILY)


def run(point: dict[str, float], **changes: object) -> RunConfig:
    rules = {"lr": lambda model, tokens: 0.01, "batch_sequences": lambda model, tokens: 8}
    return recipes.run_of(point, FAMILY, **{**rules, **changes})  # type: ignore[arg-type]


def test_a_run_meets_its_budget_within_half_a_batch() -> None:
    for flops in (1e9, 3.3e10, 7.77e11):
        for params in (1e4, 8e4):
            config = run({"flops": flops, "params": params})
            assert abs(train_flops(config) - flops) <= flops_per_token(config.model) * config.batch_tokens / 2


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
    seen = {}

    def rate(model: ModelConfig, tokens: float) -> float:
        seen.update(width=model.width, tokens=tokens)
        return 0.02

    config = run({"flops": 1e10, "width": 32}, lr=rate)
    assert seen == {"width": 32, "tokens": 1e10 / flops_per_token(config.model)} and config.optimizer.peak_lr == 0.02


def test_step_law_by_hand() -> None:
    """12 d^2 = 49,152 matrix parameters and D = 1e9: log10 of the rate is .25455 - .7129 x 4.69154 + .3075 x 9."""
    model = ModelConfig(width=64, layers=1, heads=2, mlp="gelu", context=128)
    assert params_non_embedding(model) == 49_152
    assert recipes.step_law_lr(model, 1e9) == pytest.approx(0.4758, rel=1e-3)
    # .5807 x 1e9^.5709 = 79,810 tokens are 623.5 sequences, nearer to 512 than to 1024 in ratio.
    assert recipes.step_law_batch()(model, 1e9) == 512
    assert recipes.step_law_batch(largest_tokens=16_384)(model, 1e9) == 128
    assert recipes.step_law_batch()(model, 10) == 1


def test_powers_of_two_are_nearest_in_ratio() -> None:
    assert [recipes.power_of_two(value) for value in (0.1, 1.4, 1.5, 90, 91)] == [1, 1, 2, 64, 128]


def test_the_cpu_recipe_lowers_rate_and_batch_as_models_grow_along_a_budget() -> None:
    runs = [recipes.cpu({"flops": 2e12, "params": params}) for params in (3e4, 1e5, 3e5)]
    rates = [config.optimizer.peak_lr for config in runs]
    batches = [config.optimizer.batch_sequences for config in runs]
    assert rates == sorted(rates, reverse=True) and batches == sorted(batches, reverse=True)
    assert all(config.steps >= 300 and config.warmup_steps >= 20 for config in runs)
