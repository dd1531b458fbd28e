"""Continuations of prompts: drawn token by token, with a cache of keys and values, in batches.

The model never sees more than its context. A prompt that is longer loses its left end; when what has been read and
written fills the context, its last half is read anew and the text goes on, so that every token is drawn from at least
half a context. A row's continuation depends on its own prompt, seed and number only, not on the rows beside it.

Letters as in `transformer`.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, check
from lmscale.lm.data.tokenizer import Tokenizer
from lmscale.lm.eval.batching import padded_length
from lmscale.lm.model import kv_cache
from lmscale.lm.model.kv_cache import CastParams, KVCache, cast_params
from lmscale.lm.model.parameters import Params
from lmscale.lm.use.load import TrainedRun
from lmscale.lm.use.sampling import Filters, Sampling, choose, filters

Ids = NDArray[np.int32]
STEPS_PER_CALL = 8
"""Tokens drawn between two looks at the texts: what a terminal shows at once, and what may be drawn in vain."""


@dataclass(frozen=True)
class Completion:
    """How one prompt went on."""

    prompt: str
    text: str
    """The text of `tokens`, up to a stop string."""
    tokens: list[int]
    """The tokens that were drawn, without the end of the document."""
    finish_reason: Literal["stop", "length"]
    """`stop`: at the end of a document or a stop string; `length`: at the largest number of tokens."""


@dataclass(frozen=True)
class Generated:
    """Completions in the order of their prompts, and how fast they were written."""

    completions: list[Completion]
    tokens_per_second: float
    """Tokens drawn per second, those of all rows counted; prompts and compilation left out where there is more than one
    block of tokens."""


Show = Callable[[int, str], None]
"""Called with the number of a completion and the text that was added to it."""


def encode_prompt(prompt: str, tokenizer: Tokenizer) -> Ids:
    """Tokens of a prompt; an empty one is the end of the document before it. Raises `UserError` as `encode` does."""
    tokens = np.asarray(tokenizer.encode(prompt), np.int32)
    return tokens if len(tokens) else np.array([tokenizer.end_of_document], np.int32)


def generate(
    run: TrainedRun,
    prompts: Sequence[str],
    *,
    max_tokens: int = 128,
    sampling: Sampling = Sampling(),  # noqa: B008
    seed: int = 0,
    stop: Sequence[str] = (),
    mesh: Mesh | None = None,
    show: Show | None = None,
) -> Generated:
    """Continue every prompt by at most `max_tokens` tokens. `show` is told what was added, as soon as it is known.

    Raises `UserError` for a prompt that the tokenizer cannot encode and for no tokens.
    """
    check(max_tokens >= 1, f"max_tokens = {max_tokens}: at least 1")
    check("" not in stop, "a stop string is empty: it would stop every text before its first character")
    writer = Writer(run.params, run.config.model, run.tokenizer, sampling, seed)
    rows = [encode_prompt(prompt, run.tokenizer) for prompt in prompts]
    texts = [_Text(prompt, run.tokenizer, max_tokens, tuple(stop)) for prompt in prompts]
    with nullcontext() if mesh is None else jax.set_mesh(mesh):
        writer.start(rows)
        seconds = []
        while not all(text.done for text in texts):
            started = time.perf_counter()
            block_BT = writer.write()
            seconds.append(time.perf_counter() - started)
            for number, (text, tokens) in enumerate(zip(texts, block_BT)):
                added = text.take(tokens.tolist())
                if added and show is not None:
                    show(number, added)
    timed = seconds[1:] or seconds  # the first call compiles
    speed = len(texts) * writer.steps * len(timed) / max(sum(timed), 1e-9)
    return Generated([text.completion() for text in texts], speed)


class _Text:
    """One completion as it grows: its tokens, and where it ends."""

    def __init__(self, prompt: str, tokenizer: Tokenizer, max_tokens: int, stop: tuple[str, ...]) -> None:
        self.prompt, self.tokenizer, self.max_tokens, self.stop = prompt, tokenizer, max_tokens, stop
        self.tokens: list[int] = []
        self.text = ""
        self.shown = 0
        self.finish_reason: Literal["stop", "length", ""] = ""

    @property
    def done(self) -> bool:
        return self.finish_reason != ""

    def take(self, tokens: Sequence[int]) -> str:
        """Append tokens up to the end; what can be shown of the text by now and has not been."""
        for token in map(int, tokens):
            if self.done:
                break
            if token == self.tokenizer.end_of_document:
                self.finish_reason = "stop"
                break
            self.tokens.append(token)
            if self.stop and self._stopped():
                break
            if len(self.tokens) == self.max_tokens:
                self.finish_reason = "length"
        if not (self.stop and self.finish_reason == "stop"):
            self.text = self.tokenizer.decode(self.tokens)
        return self._unshown()

    def _stopped(self) -> bool:
        text = self.tokenizer.decode(self.tokens)
        ends = [at for at in map(text.find, self.stop) if at >= 0]
        self.text = text[: min(ends)] if ends else text
        self.finish_reason = "stop" if ends else ""
        return bool(ends)

    def _unshown(self) -> str:
        """A character of several tokens, or what may become a stop string, waits until it is whole."""
        text = self.text
        if not self.done:
            text = text.rstrip("\N{REPLACEMENT CHARACTER}")
            waiting = max((n for stop in self.stop for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
            text = text[: len(text) - waiting]
        added, self.shown = text[self.shown :], max(self.shown, len(text))
        return added

    def completion(self) -> Completion:
        assert self.finish_reason
        return Completion(self.prompt, self.text, self.tokens, self.finish_reason)


class Writer:
    """Draws the next tokens of a batch of rows, with one compiled program whatever their lengths and the sampling."""

    def __init__(
        self, params: Params, config: ModelConfig, tokenizer: Tokenizer, sampling: Sampling, seed: int
    ) -> None:
        self.params, self.config, self.filters = cast_params(params, config), config, filters(sampling, config.vocab)
        self.allowed_V = jnp.arange(config.vocab) < tokenizer.vocab  # rows that pad the table stand for no token
        self.key = jax.random.key(seed)
        self.half = max(1, config.context // 2)
        self.steps = min(STEPS_PER_CALL, config.context + 1 - self.half)
        self.room = max(config.context + STEPS_PER_CALL, padded_length(config.context))

    def start(self, rows: Sequence[Ids]) -> None:
        """Read these rows of tokens."""
        self.texts = [row[-self.config.context :] for row in rows]
        self.drawn = 0
        seen_BV = np.zeros((len(rows), self.config.vocab), bool)
        for number, row in enumerate(rows):
            seen_BV[number, row] = True
        self.seen_BV = jnp.asarray(seen_BV)
        self.cache = self._cache_of(self.texts)

    def _cache_of(self, texts: Sequence[Ids]) -> KVCache:
        """The cache after all but the last token of every text."""
        block = np.zeros((len(texts), padded_length(max(1, *(len(text) - 1 for text in texts), 1))), np.int32)
        for number, text in enumerate(texts):
            block[number, : len(text) - 1] = text[:-1]
        counts = np.array([len(text) - 1 for text in texts], np.int32)
        return _read(self.params, block, counts, config=self.config, room=self.room)

    def _make_room(self) -> None:
        """Read the last half of a text anew that would not fit with its next tokens, the last of which is not read."""
        most = self.config.context + 1 - self.steps
        full = [number for number, text in enumerate(self.texts) if len(text) > most]
        if not full:
            return
        for number in full:
            self.texts[number] = self.texts[number][-self.half :]
        fresh = self._cache_of(self.texts)
        chosen_B = np.isin(np.arange(len(self.texts)), full)
        self.cache = _merged(self.cache, fresh, chosen_B)

    def write(self) -> NDArray[np.int32]:
        """The next tokens of every row [B, steps]."""
        self._make_room()
        last_B = np.array([text[-1] for text in self.texts], np.int32)
        arguments = self.params, self.cache, last_B, self.seen_BV, self.allowed_V, self.key, self.drawn, self.filters
        drawn_BT, self.cache, self.seen_BV = _write(*arguments, config=self.config, steps=self.steps)
        drawn_BT = np.asarray(drawn_BT)
        self.texts = [np.concatenate([text, drawn]) for text, drawn in zip(self.texts, drawn_BT)]
        self.drawn += self.steps
        return drawn_BT


@partial(jax.jit, static_argnames=("config", "room"))
def _read(params: CastParams, block_BT: jax.Array, counts_B: jax.Array, *, config: ModelConfig, room: int) -> KVCache:
    cache = kv_cache.init_cache(config, block_BT.shape[0], room)
    return kv_cache.extend_cast(params, cache, block_BT, counts_B, config)[1]


@partial(jax.jit, static_argnames=("config", "steps"), donate_argnames=("cache", "seen_BV"))
def _write(
    params: CastParams,
    cache: KVCache,
    last_B: jax.Array,
    seen_BV: jax.Array,
    allowed_V: jax.Array,
    key: jax.Array,
    drawn: jax.Array,
    numbers: Filters,
    *,
    config: ModelConfig,
    steps: int,
) -> tuple[jax.Array, KVCache, jax.Array]:
    """Draw `steps` tokens per row. Token t of row b is drawn with a key that follows from (seed, b, t)."""
    rows_B = jnp.arange(last_B.shape[0])
    keys_B = jax.vmap(partial(jax.random.fold_in, key))(rows_B)

    def step(
        state: tuple[jax.Array, KVCache, jax.Array], number: jax.Array
    ) -> tuple[tuple[jax.Array, KVCache, jax.Array], jax.Array]:
        last_B, cache, seen_BV = state
        logits_B1V, cache = kv_cache.extend_cast(params, cache, last_B[:, None], jnp.ones_like(last_B), config)
        step_keys_B = jax.vmap(lambda row_key: jax.random.fold_in(row_key, number))(keys_B)
        logits_BV = jnp.where(allowed_V, logits_B1V[:, -1], -jnp.inf)
        next_B = choose(logits_BV, seen_BV, step_keys_B, numbers)
        return (next_B, cache, seen_BV.at[rows_B, next_B].set(True)), next_B

    state, drawn_TB = jax.lax.scan(step, (last_B, cache, seen_BV), drawn + jnp.arange(steps))
    return drawn_TB.T, state[1], state[2]


def _merged(old: KVCache, fresh: KVCache, chosen_B: NDArray[np.bool_]) -> KVCache:
    """The cache with the chosen rows of `fresh` and the other rows of `old`."""

    def choose_rows(ours: jax.Array, theirs: jax.Array) -> jax.Array:
        by_layer = ours.ndim in (3, 5)  # those of experts [L, B, E], keys and values [L, B, G, S, K]
        shape = [1] * ours.ndim
        shape[by_layer] = len(chosen_B)
        return jnp.where(chosen_B.reshape(shape), theirs, ours)

    return jax.tree.map(choose_rows, old, fresh)
