"""How much of a model a task uses: the smallest share of neurons whose presence keeps most of its score.

Neurons are ranked by the size of their effect on the task's pairs; those that are absent put out their mean over the
prompts, which carries nothing about any one of them (Wang 2023, arXiv 2211.00593, section 2.2).

Letters as in `patching`; K sets of neurons that are present.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig
from lmscale.lm.inspect.mediation import Floats
from lmscale.lm.inspect.pairs import PairTokens
from lmscale.lm.inspect.patching import chunks, logits_at, mean_values, patching_tap
from lmscale.lm.model.parameters import Params

SITE = "mlp_hidden"
KEPT_SCORE = 0.9
"""Share of the whole model's score that the present neurons keep."""
TRIALS = 8
"""Counts that one round of the search tries at once."""


@dataclass(frozen=True)
class UsedNeurons:
    """The neurons that a task needs, by its pairs."""

    count: int
    """The smallest number of the strongest neurons that keeps the share of the score; all larger ones tried do, too."""
    neurons: int
    """All there are."""
    score: float
    """Share of prompts after which the whole model prefers the right answer of the two; guessing has half of them."""
    score_without: float
    """The same with every neuron at its mean: where it is as high, the task needs no neuron."""
    used_LF: NDArray[np.bool_]

    @property
    def share(self) -> float:
        """The used part of all neurons."""
        return self.count / self.neurons


def used_neurons(
    params: Params, pairs: PairTokens, config: ModelConfig, effect_NE: Floats, kept: float = KEPT_SCORE
) -> UsedNeurons:
    """The smallest share of neurons, the strongest by the size of their mean effect first.

    The search tries powers of two and then narrows the gap below the first count from which on all keep the score. The
    score is measured on the pairs by which the neurons are ranked: on a few pairs it flatters them.
    """
    shape, total = (config.layers, config.hidden), effect_NE.shape[1]
    rank_E = np.argsort(np.argsort(-np.abs(effect_NE.mean(axis=0)), kind="stable"), kind="stable")
    prompts_MT = np.concatenate([pairs.prompt_NT, pairs.other_NT])
    means = {SITE: mean_values(params, prompts_MT, config, SITE, np.tile(pairs.end_N, 2))}

    def scores(counts: NDArray[np.int64]) -> Floats:
        present_KLF = (rank_E[None] < counts[:, None]).reshape(-1, *shape)
        return present_scores(params, pairs, config, present_KLF, means)

    tried = np.unique(np.concatenate([[0], 2 ** np.arange(int(np.log2(total)) + 1), [total]]))
    values = scores(tried)
    enough = values >= kept * values[-1]
    first = len(tried) - int(np.argmin(enough[::-1])) if not enough.all() else 0
    low, high = (int(tried[first - 1]), int(tried[first])) if first else (-1, 0)
    while high - low > 1:
        between = np.unique(np.linspace(low, high, TRIALS + 2).astype(np.int64)[1:-1])
        between = between[(between > low) & (between < high)]
        good = np.append(scores(between) >= kept * values[-1], True)
        bounds = np.concatenate([[low], between, [high]])
        step = len(good) - int(np.argmin(good[::-1])) if not good.all() else 0
        low, high = int(bounds[step]), int(bounds[step + 1])
    used_LF = (rank_E < high).reshape(shape)
    return UsedNeurons(high, total, float(values[-1]), float(values[0]), used_LF)


def present_scores(
    params: Params, pairs: PairTokens, config: ModelConfig, present_KLF: NDArray[np.bool_], means: dict[str, jax.Array]
) -> Floats:
    """The share of the 2 N prompts after which the right answer is likelier than the pair's other one, for every set of
    present neurons, [K]. A tie is half."""
    prompts_MT = np.concatenate([pairs.prompt_NT, pairs.other_NT])
    end_M = np.tile(pairs.end_N, 2)
    right_M = np.concatenate([pairs.answer_N, pairs.other_answer_N])
    wrong_M = np.concatenate([pairs.other_answer_N, pairs.answer_N])
    values = np.zeros(len(present_KLF) * len(end_M))
    for rows in chunks(len(values), 4 * (config.vocab + prompts_MT.shape[1] * config.hidden)):
        set_R, row_R = np.divmod(rows, len(end_M))
        absent = {SITE: jnp.asarray(~present_KLF[set_R][:, :, None, :])}
        answers = right_M[row_R], wrong_M[row_R]
        values[rows] = _margins(params, prompts_MT[row_R], end_M[row_R], *answers, absent, means, config)
    return ((np.sign(values) + 1) / 2).reshape(len(present_KLF), -1).mean(axis=1)


@partial(jax.jit, static_argnames=("config",))
def _margins(
    params: Params,
    tokens_RT: jax.Array,
    end_R: jax.Array,
    right_R: jax.Array,
    wrong_R: jax.Array,
    absent: dict[str, jax.Array],
    means: dict[str, jax.Array],
    config: ModelConfig,
) -> jax.Array:
    """The logit of the right answer less that of the wrong one, [R]."""
    tap = patching_tap(absent, means, jnp.zeros(len(tokens_RT), jnp.int32))
    logits_RV = logits_at(params, tokens_RT, end_R, config, tap)
    chosen_R2 = jnp.take_along_axis(logits_RV, jnp.stack([right_R, wrong_R], axis=1), axis=1)
    return chosen_R2[:, 0] - chosen_R2[:, 1]
