"""How much of a model a task uses: the smallest share of neurons whose presence keeps most of its score.

Neurons are ranked by the size of their effect on the task's pairs; those that are absent put out their mean over the
prompts, which carries nothing about any one of them (Wang 2023, arXiv 2211.00593, section 2.2). A pair is scored with
the ranking of the other half of the pairs, so that no neuron is chosen by the pair that it is judged by.

Letters as in `patching`; K sets of neurons that are present, R resamples.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, check
from lmscale.lm.inspect.intervals import LEVEL, RESAMPLES
from lmscale.lm.inspect.means import neuron_means
from lmscale.lm.inspect.mediation import Floats
from lmscale.lm.inspect.pairs import PairTokens
from lmscale.lm.inspect.patching import Sources, chunks, logits_at, neuron_count, neuron_masks, patching_tap
from lmscale.lm.model.parameters import Params

KEPT_SCORE = 0.9
"""Share of the whole model's score that the present neurons keep."""
TRIALS = 64
"""Numbers of neurons that are tried, as evenly spaced by their logarithm as whole numbers can be."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class UsedNeurons:
    """The neurons that a task needs, by its pairs."""

    count: int
    """The smallest number of the strongest neurons that keeps the share of the score; all larger ones tried do, too."""
    neurons: int
    """All there are."""
    count_R: NDArray[np.int64]
    """`count` by each of R draws of the pairs, with replacement."""
    right_N: Floats
    """The share of each pair's two prompts after which the whole model prefers the right answer."""
    right_without_N: Floats
    """`right_N` with every neuron at its mean: where it is as high, the task needs no neuron."""
    used_LU: Bools
    """The `count` strongest neurons by all pairs."""

    @property
    def share(self) -> float:
        """The used part of all neurons."""
        return self.count / self.neurons

    @property
    def share_bounds(self) -> tuple[float, float]:
        """A percentile interval of the share over pairs (Efron 1979)."""
        low, high = np.quantile(self.count_R / self.neurons, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)


def used_neurons(
    params: Params,
    pairs: PairTokens,
    config: ModelConfig,
    effect_NE: Floats,
    score_share: float = KEPT_SCORE,
    seed: int = 0,
) -> UsedNeurons:
    """The smallest share of neurons, the strongest by the size of their mean effect first.

    Raises `UserError` for a single pair, which no other one ranks the neurons for.
    """
    count, total = effect_NE.shape
    check(count > 1, "a single pair has no other that could say which neurons come first; give at least 2 pairs")
    numbers_K = tried_numbers(total)
    prompts_MT = np.concatenate([pairs.prompt_NT, pairs.other_NT])
    means = neuron_means(params, prompts_MT, config, np.tile(pairs.end_N, 2))
    right_KN, half_N = np.zeros((len(numbers_K), count)), np.arange(count) % 2
    for half in (0, 1):
        rank_E = _ranks(effect_NE[half_N != half])
        present_KLU = (rank_E < numbers_K[:, None]).reshape(-1, config.layers, neuron_count(config))
        judged = np.flatnonzero(half_N == half)
        right_KN[:, judged] = present_scores(params, pairs.take(judged), config, present_KLU, means)
    draws_RN = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    number = int(numbers_K[smallest_enough(right_KN.sum(axis=1)[None], score_share)[0]])
    return UsedNeurons(
        number,
        total,
        numbers_K[smallest_enough(draws_RN @ right_KN.T, score_share)],
        right_KN[-1],
        right_KN[0],
        (_ranks(effect_NE) < number).reshape(config.layers, neuron_count(config)),
    )


def tried_numbers(total: int) -> NDArray[np.int64]:
    """0, `total` and numbers between them, [K]: all of them where there are few."""
    return np.unique(np.concatenate([[0], np.round(np.geomspace(1, total, TRIALS)).astype(np.int64)]))


def smallest_enough(score_RK: Floats, score_share: float) -> NDArray[np.int64]:
    """In every row the first place from which on all scores are at least `score_share` times the last one, [R]."""
    fails_RK = score_RK < score_share * score_RK[:, -1:] * (1 - 1e-12)  # sums of halves, multiplied by decimals
    behind_R = np.argmax(fails_RK[:, ::-1], axis=1)  # successes behind the last failure
    return np.where(fails_RK.any(axis=1), score_RK.shape[1] - behind_R, 0)


def _ranks(effect_NE: Floats) -> NDArray[np.int64]:
    """0 for the neuron with the largest mean effect of either sign, [E]."""
    return np.argsort(np.argsort(-np.abs(effect_NE.mean(axis=0)), kind="stable"), kind="stable")


def present_scores(
    params: Params, pairs: PairTokens, config: ModelConfig, present_KLU: Bools, means: Sources
) -> Floats:
    """The share of the two prompts of every pair after which the right answer is likelier than the pair's other one,
    for every set of present neurons, [K, N]. A tie is half."""
    prompts_MT = np.concatenate([pairs.prompt_NT, pairs.other_NT])
    end_M = np.tile(pairs.end_N, 2)
    right_M = np.concatenate([pairs.answer_N, pairs.other_answer_N])
    wrong_M = np.concatenate([pairs.other_answer_N, pairs.answer_N])
    values = np.zeros(len(present_KLU) * len(end_M))
    for rows in chunks(len(values), 4 * (config.vocab + prompts_MT.shape[1] * neuron_count(config))):
        set_R, row_R = np.divmod(rows, len(end_M))
        absent = jnp.asarray(~present_KLU[set_R])
        answers = right_M[row_R], wrong_M[row_R]
        values[rows] = _margins(params, prompts_MT[row_R], end_M[row_R], *answers, absent, means, config)
    return ((np.sign(values) + 1) / 2).reshape(len(present_KLU), 2, -1).mean(axis=1)


@partial(jax.jit, static_argnames=("config",))
def _margins(
    params: Params,
    tokens_RT: jax.Array,
    end_R: jax.Array,
    right_R: jax.Array,
    wrong_R: jax.Array,
    absent_RLU: jax.Array,
    means: Sources,
    config: ModelConfig,
) -> jax.Array:
    """The logit of the right answer less that of the wrong one, [R]."""
    tap = patching_tap(neuron_masks(absent_RLU, config), means, jnp.zeros(len(tokens_RT), jnp.int32), config)
    logits_RV = logits_at(params, tokens_RT, end_R, config, tap)
    chosen_R2 = jnp.take_along_axis(logits_RV, jnp.stack([right_R, wrong_R], axis=1), axis=1)
    return chosen_R2[:, 0] - chosen_R2[:, 1]
