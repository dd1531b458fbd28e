"""Causal mediation and activation patching: how much of the effect of a fact passes through which part of a model.

A pair of prompts differs in a fact, u; the first is answered by `answer`, the other by `other_answer`. With
y = p(other answer) / p(answer) after a prompt (Vig 2020, arXiv 2004.12265, section 3), and a mediator z:

    total effect      y(other prompt) / y(prompt) - 1                            (equation 1)
    direct effect     y(other prompt, z as in the prompt) / y(prompt) - 1        (equation 2, natural direct effect)
    indirect effect   y(prompt, z as in the other prompt) / y(prompt) - 1        (equation 3, natural indirect effect)

Ratios of probabilities are skewed, so that effects are kept as differences of ln y, in nats, of which `relative` makes
the paper's. Their share of the total is what activation patching reports (Zhang and Nanda 2023, arXiv 2309.16042,
section 2: the logit difference, normalised): 0 changes nothing, 1 is the other prompt.

Letters as in `transformer`; N pairs, E units, R rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, check
from lmscale.lm.inspect.intervals import Interval, bootstrap_mean, bootstrap_ratio
from lmscale.lm.inspect.pairs import PairTokens
from lmscale.lm.inspect.patching import (
    MEMORY_BYTES,
    chunks,
    logits_at,
    mediator_sites,
    neuron_count,
    one_unit,
    patching_tap,
    recorded,
    unit_shape,
)
from lmscale.lm.model.parameters import Params

Floats = NDArray[np.float64]
Progress = Callable[[float], None]
"""Called with the share of the work that is done."""


def relative(nats: Floats) -> Floats:
    """The effect y' / y - 1 (Vig 2020, equations 1 to 3) of a difference ln y' - ln y."""
    return np.expm1(nats)


@dataclass(frozen=True)
class Effects:
    """The effects of every unit of a kind on every pair, as differences of ln y in nats."""

    mediator: str
    shape: tuple[int, int]
    """(L, units in a layer): E = L x units."""
    total_N: Floats
    indirect_NE: Floats
    direct_NE: Floats

    def total(self, seed: int = 0) -> Interval:
        """The mean total effect, [1]."""
        return bootstrap_mean(self.total_N[:, None], seed)

    def indirect(self, seed: int = 0) -> Interval:
        """Mean indirect effects, [E]."""
        return bootstrap_mean(self.indirect_NE, seed)

    def direct(self, seed: int = 0) -> Interval:
        """Mean direct effects, [E]."""
        return bootstrap_mean(self.direct_NE, seed)

    def indirect_share(self, seed: int = 0) -> Interval:
        """The indirect effect of each unit over the total one, [E]: both are means over pairs."""
        return bootstrap_ratio(self.indirect_NE, self.total_N, seed)


def measure_effects(
    params: Params, pairs: PairTokens, config: ModelConfig, name: str, progress: Progress | None = None
) -> Effects:
    """The effects of all units of a kind (`patching.MEDIATORS`) on all pairs.

    Every row of a batch is a pair with one unit replaced, so that few programs run, each compiled once. Raises
    `UserError` for positions of pairs of different lengths, which do not correspond to each other.
    """
    lengths = np.unique(pairs.end_N)
    check(
        name != "positions" or len(lengths) == 1,
        f"the pairs have prompts of {lengths[0] + 1} to {lengths[-1] + 1} tokens, so that their positions do not "
        "correspond; measure positions on pairs of one length, or take heads, attention or mlps",
    )
    time = pairs.prompt_NT.shape[1]
    shape = unit_shape(name, config, time)
    values = np.zeros((2, pairs.pair_count, shape[0] * shape[1]))
    ends = log_ratios(params, pairs, config), log_ratios(params, pairs.swapped(), config)
    groups = _groups(pairs.pair_count, name, config, time)
    for number, group in enumerate(groups):
        chosen = pairs.take(group)
        for part, (base, donor) in enumerate(((chosen, chosen.swapped()), (chosen.swapped(), chosen))):
            done = (2 * number + part) / (2 * len(groups))
            values[part, group] = _patched(params, base, donor, config, name, _within(progress, done, 2 * len(groups)))
    prompt_N, other_N = ends
    indirect_NE, direct_NE = values - prompt_N[:, None]
    return Effects(name, shape, other_N - prompt_N, indirect_NE, direct_NE)


def log_ratios(params: Params, pairs: PairTokens, config: ModelConfig) -> Floats:
    """ln y = ln p(other answer) - ln p(answer) after the first prompt of every pair, [N]."""
    values = np.zeros(pairs.pair_count)
    for rows in chunks(pairs.pair_count, 4 * config.vocab + 4 * config.width * pairs.prompt_NT.shape[1]):
        part = pairs.take(rows)
        values[rows] = _log_ratios(params, part.prompt_NT, part.end_N, part.answer_N, part.other_answer_N, config)
    return values


def _groups(count: int, name: str, config: ModelConfig, time: int) -> list[NDArray[np.int64]]:
    """Pairs whose recorded values fit into memory together."""
    width = neuron_count(config) if name == "neurons" else max(config.width, config.heads * config.head_width)
    most = max(1, MEMORY_BYTES // (4 * config.layers * time * width))
    return np.array_split(np.arange(count), -(-count // most))


def _within(progress: Progress | None, done: float, parts: int) -> Progress | None:
    return None if progress is None else lambda share: progress(done + share / parts)


def _patched(
    params: Params, base: PairTokens, donor: PairTokens, config: ModelConfig, name: str, progress: Progress | None
) -> Floats:
    """ln y after every base prompt with one unit as in the donor's, [N, E]. `answer_N` of `base` may be swapped: y is
    always that of the pair in its first order."""
    time = base.prompt_NT.shape[1]
    sources = recorded(params, donor.prompt_NT, config, mediator_sites(name, config))
    layers, units = unit_shape(name, config, time)
    values = np.zeros(base.pair_count * layers * units)
    row_bytes = 4 * (config.vocab + time * (config.width + neuron_count(config) * (name == "neurons")))
    batches = chunks(len(values), row_bytes)
    for number, rows in enumerate(batches):
        pair_R, unit_R = np.divmod(rows, layers * units)
        part = base.take(pair_R)
        answers = part.answer_N, part.other_answer_N
        values[rows] = _patched_log_ratios(
            params, part.prompt_NT, part.end_N, *answers, pair_R, unit_R, sources, config, name
        )
        if progress is not None:
            progress((number + 1) / len(batches))
    return values.reshape(base.pair_count, layers * units)


@partial(jax.jit, static_argnames=("config",))
def _log_ratios(
    params: Params,
    tokens_RT: jax.Array,
    end_R: jax.Array,
    answer_R: jax.Array,
    other_R: jax.Array,
    config: ModelConfig,
) -> jax.Array:
    return _log_ratio(logits_at(params, tokens_RT, end_R, config), answer_R, other_R)


@partial(jax.jit, static_argnames=("config", "name"))
def _patched_log_ratios(
    params: Params,
    tokens_RT: jax.Array,
    end_R: jax.Array,
    answer_R: jax.Array,
    other_R: jax.Array,
    pair_R: jax.Array,
    unit_R: jax.Array,
    sources: dict[str, jax.Array],
    config: ModelConfig,
    name: str,
) -> jax.Array:
    tap = patching_tap(one_unit(name, unit_R, config, tokens_RT.shape[1]), sources, pair_R, config)
    return _log_ratio(logits_at(params, tokens_RT, end_R, config, tap), answer_R, other_R)


def _log_ratio(logits_RV: jax.Array, answer_R: jax.Array, other_R: jax.Array) -> jax.Array:
    """ln p(other answer) - ln p(answer): the difference of their logits, [R]."""
    chosen_R2 = jnp.take_along_axis(logits_RV, jnp.stack([answer_R, other_R], axis=1), axis=1)
    return chosen_R2[:, 1] - chosen_R2[:, 0]
