"""Neurons of experts: every patch and mean is that of a loop over tokens, experts and neurons."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.config import ModelConfig, RouterConfig
from lmscale.lm.inspect import mediation
from lmscale.lm.inspect.expert_choices import expert_choices
from lmscale.lm.inspect.expert_neurons import HIDDEN, SHARED
from lmscale.lm.inspect.means import neuron_means
from lmscale.lm.inspect.mediation import measure_effects
from lmscale.lm.inspect.neurons import present_scores, used_neurons
from lmscale.lm.inspect.pairs import PairTokens
from lmscale.lm.inspect.patching import neuron_count, recorded
from lmscale.lm.model import transformer
from lmscale.lm.model.layers import activate
from lmscale.lm.model.parameters import Params, parameter_table
from lmscale.lm.model.tap import Tap

T, E, F, S = 9, 4, 5, 5
SMALL = ModelConfig(
    width=16, layers=2, heads=2, vocab=32, context=12, experts=E, experts_per_token=2, expert_width=F, shared_experts=1
)
MODELS = {
    "dropless": SMALL,
    "scanned, a bias, no shared expert": replace(
        SMALL, shared_experts=0, scan_layers=True, router=RouterConfig(gate="sigmoid", bias_rate=0.01)
    ),
    "capacity": replace(SMALL, router=RouterConfig(capacity=0.5)),
}
LAYERS = "router", "router_bias", "experts_in", "experts_out", "shared_in", "shared_out"
Hidden = np.ndarray
Change = Callable[[int, int, Hidden], Hidden]
"""Token, expert (`E` for the shared one), its neurons -> the neurons to go on with."""


@cache
def params(config: ModelConfig) -> Params:
    rng = np.random.default_rng(0)
    return {
        name: jnp.asarray(row.mean + 2 * (row.std or 0.1) * rng.standard_normal(row.shape), jnp.float32)
        for name, row in parameter_table(config).items()
    }


def random_pairs(count: int = 3) -> PairTokens:
    """The last third of the tokens are the same in both prompts, so that some experts are taken in both."""
    rng = np.random.default_rng(1)
    prompts = rng.integers(4, 32, (2, count, T), np.int32)
    prompts[1, :, 5:] = prompts[0, :, 5:]
    answers = np.stack([rng.permutation(32)[:2] for _ in range(count)], axis=1).astype(np.int32)
    return PairTokens(prompts[0], prompts[1], rng.integers(T - 3, T, count, np.int32), answers[0], answers[1])


def by_loop(config: ModelConfig, layer: int, x_TD: np.ndarray, change: Change) -> np.ndarray:
    """What a layer of experts adds, token after token; an expert without room reads no further one."""
    arrays = {name: np.asarray(value[layer]) for name, value in params(config).items() if name in LAYERS}
    y_TD, readers = np.zeros_like(x_TD), [0] * E
    hidden_ETF = hidden_of(config, x_TD, arrays["experts_in"])
    for token, x_D in enumerate(x_TD):
        logits_E = x_D @ arrays["router"]
        scores_E = 1 / (1 + np.exp(-logits_E)) if config.router.gate == "sigmoid" else np.exp(logits_E)
        scores_E = scores_E if config.router.gate == "sigmoid" else scores_E / scores_E.sum()
        chosen = np.argsort(-(scores_E + arrays.get("router_bias", np.zeros(E))), kind="stable")[:2]
        for expert in chosen.tolist():
            readers[expert] += 1
            if config.expert_capacity is None or readers[expert] <= config.expert_capacity:
                gate = scores_E[expert] / scores_E[chosen].sum()
                hidden_F = change(token, expert, hidden_ETF[expert, token].copy())
                y_TD[token] += gate * (hidden_F @ arrays["experts_out"][expert])
    if config.shared_experts:
        for token, hidden_F in enumerate(hidden_of(config, x_TD, arrays["shared_in"][None])[0]):
            y_TD[token] += change(token, E, hidden_F.copy()) @ arrays["shared_out"]
    return y_TD


@partial(jax.jit, static_argnames=("config",))
def _hidden(x_TD: jax.Array, weights_EDCF: jax.Array, config: ModelConfig) -> jax.Array:
    return activate(jnp.einsum("td,edcf->etcf", x_TD, weights_EDCF), config)


def hidden_of(config: ModelConfig, x_TD: np.ndarray, weights_EDCF: np.ndarray) -> np.ndarray:
    """The neurons of every expert on every token, [E, T, F]."""
    return np.array(_hidden(x_TD, weights_EDCF, config))


def inputs(config: ModelConfig, tokens_T: np.ndarray) -> np.ndarray:
    """What every layer of experts reads, [L, T, D]."""
    return np.array(recorded(params(config), tokens_T[None], config, ("mlp_input",))["mlp_input"][:, 0])


def neurons_of(config: ModelConfig, layer: int, tokens_T: np.ndarray) -> dict[tuple[int, int], Hidden]:
    """The neurons of every expert that reads a token."""
    values = {}

    def keep(token: int, expert: int, hidden_F: Hidden) -> Hidden:
        values[token, expert] = hidden_F
        return hidden_F

    by_loop(config, layer, inputs(config, tokens_T)[layer], keep)
    return values


@partial(jax.jit, static_argnames=("config",))
def with_outputs(
    arrays: Params, tokens_T: jax.Array, put_L: jax.Array, outputs_LTD: jax.Array, config: ModelConfig
) -> tuple[jax.Array, jax.Array]:
    """What every layer of experts reads where some put out other values, [L, T, D], and the logits [T, V]."""

    def patch(site: str, value: jax.Array, layer: Any) -> tuple[jax.Array, jax.Array | None]:
        if site == "mlp_input":
            return value, value
        return jnp.where(put_L[layer], outputs_LTD[layer][None], value), None

    tap = Tap(("mlp_input", "mlp_output"), patch)
    final_BTD, cast_params, taps, _ = transformer.final_residual(arrays, tokens_T[None], config, None, tap)
    return taps["mlp_input"][:, 0], transformer.unembed(final_BTD, transformer.head(cast_params, config), config)[0]


def log_ratio(config: ModelConfig, pairs: PairTokens, pair: int, changes: dict[int, Change]) -> float:
    """ln y after the first prompt where some layers of experts go on with other neurons."""
    put_L, outputs_LTD = np.zeros(2, bool), np.zeros((2, T, config.width), np.float32)
    tokens_T = pairs.prompt_NT[pair]
    for layer, change in sorted(changes.items()):
        read_LTD, _ = with_outputs(params(config), tokens_T, put_L, outputs_LTD, config)
        outputs_LTD[layer] = by_loop(config, layer, np.array(read_LTD[layer]), change)
        put_L[layer] = True
    logits_V = with_outputs(params(config), tokens_T, put_L, outputs_LTD, config)[1][pairs.end_N[pair]]
    return float(logits_V[pairs.other_answer_N[pair]] - logits_V[pairs.answer_N[pair]])


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_a_neuron_is_replaced_where_both_prompts_take_its_expert(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every unit of one pair, one batch or many; where one prompt alone takes the expert, nothing changes."""
    config, pairs = MODELS[model], random_pairs()
    effects = measure_effects(params(config), pairs, config, "neurons")
    units = E * F + F * config.shared_experts
    assert effects.shape == (2, units) == (2, neuron_count(config))
    before_N = mediation.log_ratios(params(config), pairs, config)
    pair = 1
    for base, measured_E in ((pairs, effects.indirect_NE[pair]), (pairs.swapped(), effects.direct_NE[pair])):
        for layer in (0, 1):
            donor = neurons_of(config, layer, base.other_NT[pair])
            for unit in range(layer, units, 6):
                expert, neuron = divmod(unit, F)

                def change(token: int, of: int, hidden_F: Hidden) -> Hidden:
                    if of == expert and (token, expert) in donor:  # noqa: B023
                        hidden_F[neuron] = donor[token, expert][neuron]  # noqa: B023
                    return hidden_F

                expected = log_ratio(config, base, pair, {layer: change}) - before_N[pair]
                assert measured_E[layer * units + unit] == pytest.approx(expected, abs=1e-4), (layer, unit)
    monkeypatch.setattr("lmscale.lm.inspect.patching.MEMORY_BYTES", 20_000)
    monkeypatch.setattr("lmscale.lm.inspect.mediation.MEMORY_BYTES", 4_000)
    again = measure_effects(params(config), pairs, config, "neurons")
    np.testing.assert_allclose(again.indirect_NE, effects.indirect_NE, atol=1e-4)


def mean_of(config: ModelConfig, pairs: PairTokens) -> dict[tuple[int, int], Hidden]:
    """The mean of the neurons of (layer, expert) over the tokens of all prompts that it reads, padding apart."""
    values: dict[tuple[int, int], list[Hidden]] = {}
    for prompts_NT in (pairs.prompt_NT, pairs.other_NT):
        for tokens_T, end in zip(prompts_NT, pairs.end_N.tolist()):
            for layer in (0, 1):
                for (token, expert), hidden_F in neurons_of(config, layer, tokens_T).items():
                    if token <= end:
                        values.setdefault((layer, expert), []).append(hidden_F)
    return {key: np.mean(rows, axis=0) for key, rows in values.items()}


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_an_absent_neuron_puts_out_its_mean_over_the_tokens_that_take_its_expert(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero where there is none; a pair is right as in the loop; batches do not matter."""
    config, pairs = MODELS[model], random_pairs()
    expected = mean_of(config, pairs)
    prompts = np.concatenate([pairs.prompt_NT, pairs.other_NT])
    means = neuron_means(params(config), prompts, config, np.tile(pairs.end_N, 2))
    assert set(means) == {HIDDEN, SHARED} if config.shared_experts else {HIDDEN}
    for layer in (0, 1):
        for expert in range(E):
            mean_F = expected.get((layer, expert), np.zeros(F))
            np.testing.assert_allclose(means[HIDDEN][layer, 0, 0, expert], mean_F, rtol=1e-4, atol=1e-5)
        if config.shared_experts:
            np.testing.assert_allclose(means[SHARED][layer, 0, 0], expected[layer, E], rtol=1e-4, atol=1e-5)

    present_KLU = np.random.default_rng(3).random((2, 2, neuron_count(config))) < 0.5

    def absent(present_U: np.ndarray, layer: int) -> Change:
        def change(token: int, expert: int, hidden_F: Hidden) -> Hidden:
            present_F = present_U[expert * F : (expert + 1) * F]
            return np.where(present_F, hidden_F, expected.get((layer, expert), np.zeros(F)))

        return change

    scores_KN = present_scores(params(config), pairs, config, present_KLU, means)
    for present_LU, scores_N in zip(present_KLU, scores_KN):
        changes = {layer: absent(present_LU[layer], layer) for layer in (0, 1)}
        for pair in range(pairs.pair_count):
            right = log_ratio(config, pairs, pair, changes) < 0, log_ratio(config, pairs.swapped(), pair, changes) > 0
            assert scores_N[pair] == np.mean(right)
    monkeypatch.setattr("lmscale.lm.inspect.patching.MEMORY_BYTES", 4 * 2 * T * neuron_count(config) * 4)
    batched = neuron_means(params(config), prompts, config, np.tile(pairs.end_N, 2))
    np.testing.assert_allclose(batched[HIDDEN], means[HIDDEN], rtol=1e-4, atol=1e-5)
    effect_NE = measure_effects(params(config), pairs, config, "neurons").indirect_NE
    assert used_neurons(params(config), pairs, config, effect_NE).neurons == 2 * neuron_count(config)


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_choices_of_both_prompts_are_counted(model: str) -> None:
    config, pairs = MODELS[model], random_pairs()
    taken = in_both = 0
    for first_T, other_T, end in zip(pairs.prompt_NT, pairs.other_NT, pairs.end_N.tolist()):
        for layer in (0, 1):
            own, other = (
                {key for key in neurons_of(config, layer, tokens_T) if key[1] < E and key[0] <= end}
                for tokens_T in (first_T, other_T)
            )
            taken, in_both = taken + len(own) + len(other), in_both + 2 * len(own & other)
    assert expert_choices(params(config), pairs, config) == (taken, in_both)
    assert 0 < in_both < taken
