"""Synthetic languages whose law is known, so that what a sweep measures can be compared with the truth.

- `zipf-facts`: facts of power-law frequency, each with one answer; both exponents of its law are known.
- `hidden-markov`: Zipfian symbols whose entropy rate is known exactly.
- `tasks`: copy, reverse, sort, ... as lines of text; abilities that appear at some scale.
- `repeats`: random words, each written several times; text in which induction heads pay.

Their text has no end and is generated on the device: window number i of a language, split and stream is a pure function
of these and of the context; it does not depend on the number of devices. The parameters of a language stand in
`lmscale.core.config.synthetic`.

Letters: C context, n windows.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from lmscale.core.config import synthetic
from lmscale.lm.data import tokenizer
from lmscale.lm.data.languages import hidden_markov, repeats, tasks, zipf_facts

SPLITS = ("train", "validation", "test")
Sampler = Callable[[jax.Array, int], jax.Array]
"""(key, length) -> int32 [length], beginning with an end of document."""


def sampler(spec: synthetic.Language) -> Sampler:
    """The function that samples a stretch of the language `spec` from a random key."""
    if isinstance(spec, synthetic.ZipfFacts):
        return zipf_facts.sampler(spec)
    if isinstance(spec, synthetic.HiddenMarkov):
        return hidden_markov.sampler(spec)
    if isinstance(spec, synthetic.Repeats):
        return repeats.sampler(spec)
    assert isinstance(spec, synthetic.Tasks)
    return tasks.sampler(spec)


def window_generator(
    spec: synthetic.Language, split: str, context: int, stream: int = 0
) -> Callable[[jax.Array | np.ndarray[Any, Any]], jax.Array]:
    """A jitted function from window numbers, uint32 [n, 2] (high and low half), to windows int32 [n, C + 1]."""
    root = jax.random.key(SPLITS.index(split), impl="threefry2x32")
    for number in (spec.seed, stream):
        root = jax.random.fold_in(root, number)
    return partial(_windows(spec, context), root)


@lru_cache(maxsize=16)
def _windows(spec: synthetic.Language, context: int) -> jax.stages.Wrapped:
    """(key of a text, window numbers) -> windows, compiled once for all splits and seeds."""
    sample = sampler(spec)

    def window(root: jax.Array, number: jax.Array) -> jax.Array:
        return sample(jax.random.fold_in(jax.random.fold_in(root, number[0]), number[1]), context + 1)

    return jax.jit(jax.vmap(window, in_axes=(None, 0)))


def documents(spec: synthetic.Language, start: int, stop: int) -> list[bytes]:
    """Documents `start` ... `stop` - 1 of a finite sample, as text."""
    numbers = np.arange(start, stop, dtype=np.uint32)
    rows = np.asarray(
        window_generator(spec, "train", spec.document_tokens)(np.stack([np.zeros_like(numbers), numbers], axis=1))
    )
    if spec.tokenizer == "bytes":
        # The last line of a window is cut short.
        return [b"\n".join(row.astype(np.uint8).tobytes().split(b"\xff")[1:-1]) for row in rows]
    symbols = tokenizer.SymbolTokenizer(spec.vocab)
    return [symbols.decode(row).encode() for row in rows]


def entropy_nats(spec: synthetic.Language, context: int) -> float | None:
    """The lowest possible mean loss per scored token on windows of this context, exactly.

    None for tasks, whose questions have no simple entropy, and for repeats, whose words may end anywhere.
    """
    if isinstance(spec, synthetic.ZipfFacts):
        return zipf_facts.entropy_nats(spec, context)
    return hidden_markov.entropy_nats(spec, context) if isinstance(spec, synthetic.HiddenMarkov) else None
