"""Beam search: the likeliest continuations, as far as a beam of fixed width finds them.

Letters as in `transformer`; W beams of one prompt.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, check
from lmscale.lm.model import kv_cache
from lmscale.lm.model.kv_cache import KVCache
from lmscale.lm.model.parameters import Params
from lmscale.lm.use.load import TrainedRun

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Hypothesis:
    """A continuation, and how likely it is."""

    tokens: tuple[int, ...]
    """Without the end of the document."""
    logprob: float
    """ln p of the tokens, the end of the document among them where it ended."""
    ended: bool
    """Whether the document ended; otherwise the continuation has the largest number of tokens."""

    def score(self, length_penalty: float) -> float:
        """ln p over length^penalty, the end counted (Wu 2016 in its common form): 0 does not correct for length."""
        return self.logprob / (len(self.tokens) + self.ended) ** length_penalty


def beam_search(
    run: TrainedRun, prompt: Ids, *, beams: int, max_tokens: int, length_penalty: float = 1.0
) -> list[Hypothesis]:
    """The best `beams` continuations of a prompt, the best first.

    Every step keeps the W likeliest unfinished continuations; those that end leave the beam. The search is over when no
    unfinished one could still come before the W best that are finished. Raises `UserError` where prompt and
    continuation do not fit the context, and for numbers out of range.
    """
    config = run.config.model
    check(beams >= 1, f"beams = {beams}: at least 1")
    check(max_tokens >= 1, f"max_tokens = {max_tokens}: at least 1")
    check(
        len(prompt) + max_tokens <= config.context + 1,
        f"beam search needs prompt and continuation in one context: {len(prompt)} + {max_tokens} tokens exceed "
        f"{config.context + 1}; take a shorter prompt, or --max-tokens {max(1, config.context + 1 - len(prompt))}",
    )
    return _Search(run, beams, max_tokens, length_penalty).run(prompt)


class _Search:
    def __init__(self, run: TrainedRun, beams: int, max_tokens: int, length_penalty: float) -> None:
        self.params, self.config, self.tokenizer = run.params, run.config.model, run.tokenizer
        self.beams, self.max_tokens, self.length_penalty = beams, max_tokens, length_penalty
        self.finished: list[Hypothesis] = []

    def run(self, prompt: Ids) -> list[Hypothesis]:
        cache = _read(self.params, prompt[None, :-1], config=self.config, beams=self.beams)
        texts: list[tuple[int, ...]] = [()] * self.beams
        logprob_W = np.array([0.0] + [-math.inf] * (self.beams - 1), np.float32)
        last_W, source_W = np.full(self.beams, prompt[-1], np.int32), np.zeros(self.beams, np.int32)
        for _ in range(self.max_tokens):
            beam = cache, last_W, source_W, logprob_W
            values, parents, tokens, cache = _step(self.params, *beam, config=self.config, ids=self.tokenizer.vocab)
            texts, logprob_W, last_W, source_W = self._select(texts, *map(np.asarray, (values, parents, tokens)))
            if self._settled(logprob_W):
                break
        live = (Hypothesis(text, float(value), False) for text, value in zip(texts, logprob_W) if value > -math.inf)
        at_end = [one for one in live if len(one.tokens) == self.max_tokens]
        return self._best([*self.finished, *at_end])

    def _select(
        self, texts: Sequence[tuple[int, ...]], values: NDArray[np.float32], parents: Ids, tokens: Ids
    ) -> tuple[list[tuple[int, ...]], NDArray[np.float32], Ids, Ids]:
        """The next beam: the likeliest candidates that go on; those that end are finished."""
        chosen: list[tuple[float, int, int]] = []
        for value, parent, token in zip(values.tolist(), parents.tolist(), tokens.tolist()):
            if value == -math.inf or len(chosen) == self.beams:
                continue
            if token == self.tokenizer.end_of_document:
                self.finished = self._best([*self.finished, Hypothesis(texts[parent], value, True)])
            else:
                chosen.append((value, parent, token))
        chosen += [(-math.inf, 0, 0)] * (self.beams - len(chosen))
        grown = [(*texts[parent], token) for _, parent, token in chosen]
        logprob_W = np.array([value for value, _, _ in chosen], np.float32)
        source_W, last_W = (np.array([each[place] for each in chosen], np.int32) for place in (1, 2))
        return grown, logprob_W, last_W, source_W

    def _best(self, hypotheses: list[Hypothesis]) -> list[Hypothesis]:
        return sorted(hypotheses, key=lambda one: -one.score(self.length_penalty))[: self.beams]

    def _settled(self, logprob_W: NDArray[np.float32]) -> bool:
        """Whether no continuation of the beam can come before the finished ones: its ln p only falls, and what length
        can make of it is most at the largest number of tokens, or for a negative penalty at once."""
        if logprob_W.max() == -math.inf:
            return True
        if len(self.finished) < self.beams:
            return False
        length = self.max_tokens if self.length_penalty > 0 else 1
        return float(logprob_W.max()) / length**self.length_penalty <= self.finished[-1].score(self.length_penalty)


@partial(jax.jit, static_argnames=("config", "beams"))
def _read(params: Params, prompt_1T: jax.Array, *, config: ModelConfig, beams: int) -> KVCache:
    """The cache of the prompt, one row per beam."""
    cache = kv_cache.init_cache(config, beams, config.context + 1)
    if prompt_1T.shape[1] == 0:
        return cache
    block = jnp.broadcast_to(prompt_1T, (beams, prompt_1T.shape[1]))
    return kv_cache.extend(params, cache, block, jnp.full(beams, prompt_1T.shape[1]), config)[1]


@partial(jax.jit, static_argnames=("config", "ids"), donate_argnames="cache")
def _step(
    params: Params,
    cache: KVCache,
    last_W: jax.Array,
    source_W: jax.Array,
    logprob_W: jax.Array,
    *,
    config: ModelConfig,
    ids: int,
) -> tuple[jax.Array, jax.Array, jax.Array, KVCache]:
    """ln p, parent and token of the 2 W likeliest candidates, the likeliest first, and the extended cache.

    Of 2 W candidates at most W end the document, so that W go on.
    """
    logits_W1V, cache = kv_cache.extend(params, cache, last_W[:, None], jnp.ones_like(last_W), config, source_W)
    logits_WV = jnp.where(jnp.arange(config.vocab) < ids, logits_W1V[:, -1], -jnp.inf)
    total_WV = logprob_W[:, None] + jax.nn.log_softmax(logits_WV, axis=-1)
    count = min(2 * total_WV.shape[0], total_WV.size)
    values, places = jax.lax.top_k(total_WV.reshape(-1), count)
    return values, places // config.vocab, places % config.vocab, cache
