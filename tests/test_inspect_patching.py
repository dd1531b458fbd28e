"""Patches: all of them are the other prompt, none is the prompt itself, and a batch of them is each by itself."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import induction

from lmscale.core.config import ModelConfig
from lmscale.core.errors import UserError
from lmscale.lm.inspect import intervals, mediation
from lmscale.lm.inspect.means import mean_values
from lmscale.lm.inspect.mediation import measure_effects, relative
from lmscale.lm.inspect.neurons import smallest_enough, tried_numbers, used_neurons
from lmscale.lm.inspect.pairs import PairTokens
from lmscale.lm.inspect.patching import (
    MEDIATORS,
    Masks,
    Sources,
    logits_at,
    patching_tap,
    recorded,
    unit_shape,
)
from lmscale.lm.model import transformer
from lmscale.lm.model.parameters import Params, parameter_table
from lmscale.lm.model.tap import TAPS, Tap

ALL_ADDED = ("embedding", "attention_output", "mlp_output")
"""Sites that together are all that is ever added to the residual stream: replacing them all is running the source."""
MODELS: dict[str, dict[str, Any]] = {
    "rotary, grouped heads": {"kv_heads": 2, "document_end": 3},
    "learned, layernorm, biases": {"norm": "layernorm", "positions": "learned", "mlp": "gelu", "biases": True},
    "parallel, scanned": {"parallel_block": True, "scan_layers": True, "positions": "alibi"},
}


def tiny(**changed: Any) -> ModelConfig:
    return ModelConfig(**{"width": 16, "layers": 3, "heads": 4, "vocab": 32, "context": 12, "mlp_width": 24, **changed})


@cache
def params(config: ModelConfig) -> Params:
    rng = np.random.default_rng(0)
    return {
        name: jnp.asarray(row.mean + (row.std or 0.1) * rng.standard_normal(row.shape), config.param_dtype)
        for name, row in parameter_table(config).items()
    }


def random_pairs(count: int = 3, time: int = 9) -> PairTokens:
    rng = np.random.default_rng(1)
    prompts = rng.integers(4, 32, (2, count, time), np.int32)
    answers = np.stack([rng.permutation(32)[:2] for _ in range(count)], axis=1).astype(np.int32)
    ends = rng.integers(time - 3, time, count, np.int32)
    return PairTokens(prompts[0], prompts[1], ends, answers[0], answers[1])


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_patching_everything_is_the_other_run_and_patching_nothing_is_the_run_itself(model: str) -> None:
    config, pairs = tiny(**MODELS[model]), random_pairs()
    rows, sources = np.arange(pairs.pair_count), recorded(params(config), pairs.other_NT, config, ALL_ADDED)
    assert set(sources) == set(ALL_ADDED)

    def patched(tokens_NT: Any, where: bool) -> np.ndarray:
        masks = {
            site: jnp.full((pairs.pair_count, config.layers if TAPS[site].in_layer else 1, 1, 1), where)
            for site in ALL_ADDED
        }

        @jax.jit
        def logits(masks: Masks, sources: Sources) -> jax.Array:
            tap = patching_tap(masks, sources, rows, config)
            return logits_at(params(config), tokens_NT, pairs.end_N, config, tap)

        return np.asarray(logits(masks, sources))

    own, other = (patched(tokens_NT, False) for tokens_NT in (pairs.prompt_NT, pairs.other_NT))
    np.testing.assert_array_equal(patched(pairs.prompt_NT, True), other)
    for tokens_NT, logits_NV in ((pairs.prompt_NT, own), (pairs.other_NT, other)):
        whole_NTV = transformer.logits(params(config), jnp.asarray(tokens_NT), config)
        np.testing.assert_allclose(logits_NV, whole_NTV[rows, pairs.end_N], rtol=1e-5, atol=1e-5)
    assert not np.allclose(own, other, atol=0.1)


def effect_alone(config: ModelConfig, pairs: PairTokens, pair: int, name: str, unit: int) -> float:
    """ln y after a prompt with one unit as in the other, by a tap written for this unit."""
    site, resolves, _ = MEDIATORS[name]
    layer, place = divmod(unit, unit_shape(name, config, pairs.prompt_NT.shape[1])[1])
    other = recorded(params(config), pairs.other_NT[pair : pair + 1], config, (site,))[site][layer]

    def patch(_: str, value: jax.Array, number: jax.Array | None) -> tuple[jax.Array, None]:
        if resolves == "positions":
            changed = value.at[:, place].set(other[:, place])
        elif name in ("heads", "neurons"):
            changed = value.at[:, :, place].set(other[:, :, place])
        else:
            changed = other
        return jnp.where(number == layer, changed, value), None

    tokens = jnp.asarray(pairs.prompt_NT[pair : pair + 1])
    logits_V = transformer.forward(params(config), tokens, config, Tap((site,), patch))[0][0, pairs.end_N[pair]]
    return float(logits_V[pairs.other_answer_N[pair]] - logits_V[pairs.answer_N[pair]])


@pytest.mark.long
@pytest.mark.parametrize("name", MEDIATORS)
def test_a_batch_of_patches_is_each_patch_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where pairs and rows take several batches."""
    config, pairs = tiny(**MODELS["rotary, grouped heads"]), random_pairs()
    if name == "positions":
        pairs = pairs._replace(end_N=np.full(pairs.pair_count, 8, np.int32))
    effects = measure_effects(params(config), pairs, config, name)
    assert (
        effects.indirect_NE.shape == effects.direct_NE.shape == (pairs.pair_count, effects.shape[0] * effects.shape[1])
    )
    before_N = mediation.log_ratios(params(config), pairs, config)
    rng = np.random.default_rng(2)
    for pair, unit in zip(
        rng.integers(0, pairs.pair_count, 6).tolist(), rng.integers(0, effects.indirect_NE.shape[1], 6)
    ):
        alone = effect_alone(config, pairs, pair, name, int(unit))
        assert effects.indirect_NE[pair, unit] == pytest.approx(alone - before_N[pair], abs=1e-4)
        back = effect_alone(config, pairs.swapped(), pair, name, int(unit))
        assert effects.direct_NE[pair, unit] == pytest.approx(back - before_N[pair], abs=1e-4)
    monkeypatch.setattr("lmscale.lm.inspect.patching.MEMORY_BYTES", 20_000)
    monkeypatch.setattr("lmscale.lm.inspect.mediation.MEMORY_BYTES", 4_000)
    shares: list[float] = []
    again = measure_effects(params(config), pairs, config, name, shares.append)
    np.testing.assert_allclose(again.indirect_NE, effects.indirect_NE, atol=1e-4)
    assert len(shares) > 2 and shares == sorted(shares) and shares[-1] == pytest.approx(1)


def induction_pairs() -> PairTokens:
    """[a b c d a] is followed by b, [c b a d a] by d: the second occurrence of a finds the first."""
    a, b, c, d = (np.arange(4) * 4 + first for first in (1, 2, 3, 4))
    end = np.full(4, induction.END)
    prompts = [np.stack(columns, axis=1).astype(np.int32) for columns in ((end, a, b, c, d, a), (end, c, b, a, d, a))]
    return PairTokens(prompts[0], prompts[1], np.full(4, 5, np.int32), b.astype(np.int32), d.astype(np.int32))


@pytest.mark.long
def test_effects_of_known_heads() -> None:
    """The whole effect passes through the head that finds the token before and through the one that reads it."""
    effects = measure_effects(induction.params(), induction_pairs(), induction.CONFIG, "heads")
    np.testing.assert_allclose(effects.total_N, 2 * induction.LOGIT, rtol=1e-4)
    np.testing.assert_allclose(effects.indirect_share().mean.reshape(2, 2), [[1, 0], [1, 0]], atol=1e-4)
    direct_NE = effects.direct_NE / effects.total_N[:, None]
    np.testing.assert_allclose(direct_NE.mean(axis=0).reshape(2, 2), [[0, 1], [0, 1]], atol=1e-4)
    assert np.ptp(effects.indirect_share()[1:], axis=0).max() < 1e-4, "all pairs agree"
    np.testing.assert_allclose(relative(effects.total_N), np.exp(2 * induction.LOGIT), rtol=1e-2)


@pytest.mark.long
def test_effects_of_known_positions() -> None:
    """After layer 0 the fact lies in two positions, each of which alone makes the answers equally likely; after layer 1
    in the last."""
    effects = measure_effects(induction.params(), induction_pairs(), induction.CONFIG, "positions")
    expected = np.array([[0, 0, 0.5, 0, 0.5, 0], [0, 0, 0, 0, 0, 1.0]])
    np.testing.assert_allclose(effects.indirect_share().mean.reshape(2, 6), expected, atol=1e-4)


@pytest.mark.long
def test_mlps_that_put_out_zero_have_no_effect() -> None:
    for name in ("mlps", "neurons"):
        effects = measure_effects(induction.params(), induction_pairs(), induction.CONFIG, name)
        np.testing.assert_allclose(effects.indirect_NE, 0, atol=1e-4)


def test_positions_of_prompts_of_unequal_length_do_not_correspond() -> None:
    config, pairs = tiny(), random_pairs()
    pairs = pairs._replace(end_N=np.array([6, 8, 7], np.int32))
    with pytest.raises(UserError, match="7 to 9 tokens"):
        measure_effects(params(config), pairs, config, "positions")


def test_unknown_units_are_refused() -> None:
    pairs = random_pairs()
    with pytest.raises(UserError, match="did you mean 'heads'"):
        measure_effects(params(tiny()), pairs, tiny(), "head")


def test_intervals_are_those_of_resampled_prompts() -> None:
    values_NE = np.random.default_rng(0).standard_normal((400, 3)) + np.arange(3)
    mean, low, high = intervals.bootstrap_mean(values_NE)
    error = values_NE.std(axis=0) / np.sqrt(400)
    np.testing.assert_allclose(mean, values_NE.mean(axis=0))
    np.testing.assert_allclose([mean - low, high - mean], np.broadcast_to(1.96 * error, (2, 3)), rtol=0.15)
    assert not np.isfinite(intervals.bootstrap_ratio(values_NE, np.zeros(400))).any(), "a share of nothing"
    ratio = intervals.bootstrap_ratio(3 * values_NE[:, 1:2], values_NE[:, 1])
    np.testing.assert_allclose(ratio, np.full((3, 1), 3), rtol=1e-9)


def lookup() -> tuple[ModelConfig, Params]:
    """Neuron i - 1 is active on token i alone, and makes token i + 10 likelier; attention puts out zero."""
    config = ModelConfig(
        width=64, layers=1, heads=1, vocab=32, context=4, positions="none", mlp="relu2", mlp_width=12,
        tied_embeddings=False, embedding_scale=1.0,
    )  # fmt: skip
    values = {name: np.zeros(row.shape, np.float32) for name, row in parameter_table(config).items()}
    for name in ("attention_norm", "mlp_norm", "final_norm"):
        values[name][...] = 1
    one = np.eye(32, dtype=np.float32)
    values["embedding"][:, :32], values["head"][32:] = one, one
    for neuron in range(12):
        values["mlp_in"][0, neuron + 1, 0, neuron] = 1
        values["mlp_out"][0, neuron, 32 + neuron + 11] = 1
    return config, {name: jnp.asarray(value) for name, value in values.items()}


@pytest.mark.long
@pytest.mark.parametrize(("order", "count"), [((0, 2, 1, 3), 2), ((0, 1, 2, 3), 3), ((8, 9, 0, 2), 4)])
def test_the_smallest_share_of_neurons_that_keeps_the_score(order: tuple[int, ...], count: int) -> None:
    """Tokens 1 and 2 are told apart by either of their neurons, and so are 3 and 4: one of each pair is enough."""
    config, values = lookup()
    first, other = (np.array([[0, 1], [0, 3]], np.int32), np.array([[0, 2], [0, 4]], np.int32))
    pairs = PairTokens(first, other, np.full(2, 1, np.int32), first[:, 1] + 10, other[:, 1] + 10)
    effect_NE = np.zeros((2, 12))
    effect_NE[:, list(order)] = [4, -3, 2, 1]
    used = used_neurons(values, pairs, config, effect_NE)
    assert (used.count, used.neurons) == (count, 12)
    assert used.right_N.tolist() == [1, 1] and used.right_without_N.tolist() == [0.5, 0.5]
    assert set(np.flatnonzero(used.used_LU)) == set(order[:count]) and used.share == count / 12
    assert used.share_bounds[0] <= used.share <= used.share_bounds[1]


@pytest.mark.long
def test_a_pair_is_judged_with_the_neurons_that_the_other_pairs_rank_first() -> None:
    """The first pair's effects lie in the neuron that the second needs, and the other way round: by its own effects
    each would need two, by the other's one."""
    config, values = lookup()
    first, other = (np.array([[0, 1], [0, 3]], np.int32), np.array([[0, 2], [0, 4]], np.int32))
    pairs = PairTokens(first, other, np.full(2, 1, np.int32), first[:, 1] + 10, other[:, 1] + 10)
    effect_NE = np.zeros((2, 12))
    effect_NE[0, [2, 8, 0]], effect_NE[1, [0, 9, 2]] = [3, 2, 1], [3, 2, 1]
    used = used_neurons(values, pairs, config, effect_NE)
    assert used.count == 1 and set(used.count_R.tolist()) == {1}
    own = used_neurons(values, pairs, config, effect_NE[::-1])
    assert own.count == 3, "ranked by the effects of the same pair"
    with pytest.raises(UserError, match="at least 2 pairs"):
        used_neurons(values, pairs.take(np.array([0])), config, effect_NE[:1])


def test_the_smallest_number_is_the_one_from_which_on_all_keep_the_score() -> None:
    scores = np.array([[0.5, 0.9, 0.8, 0.95, 1.0], [0.5, 0.6, 0.7, 0.8, 1.0], [0.5, 0.5, 0.5, 0.5, 0.5], [0.9] * 5])
    assert smallest_enough(scores, 0.9).tolist() == [3, 4, 0, 0]
    assert smallest_enough(np.array([[0.9, 1.0]]), 0.9).tolist() == [0], "as many as are asked for are enough"
    assert tried_numbers(12).tolist() == list(range(13))
    many = tried_numbers(100_000)
    assert (many[0], many[-1]) == (0, 100_000) and len(many) <= 66 and (np.diff(many) > 0).all()


@pytest.mark.long
def test_padding_is_not_in_the_mean_of_a_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a row that only fills a batch."""
    config, pairs = tiny(), random_pairs(5)
    values = recorded(params(config), pairs.prompt_NT, config, ("mlp_hidden",))["mlp_hidden"]
    read = [np.asarray(values)[:, row, : end + 1] for row, end in enumerate(pairs.end_N)]
    expected = np.concatenate(read, axis=1).mean(axis=1)
    mean = mean_values(params(config), pairs.prompt_NT, config, "mlp_hidden", pairs.end_N)
    np.testing.assert_allclose(mean[:, 0, 0], expected, rtol=1e-5, atol=1e-6)
    whole = mean_values(params(config), pairs.prompt_NT, config, "mlp_hidden")
    np.testing.assert_allclose(whole[:, 0, 0], np.asarray(values).mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    monkeypatch.setattr("lmscale.lm.inspect.patching.MEMORY_BYTES", 4 * 3 * 9 * 24 * 2)
    batched = mean_values(params(config), pairs.prompt_NT, config, "mlp_hidden", pairs.end_N)
    np.testing.assert_allclose(batched, mean, rtol=1e-5, atol=1e-6)
