"""Random words, each written several times: text in which looking back and copying pays, and nothing else does.

    wq4dwq4dwq4d      $ke$ke$ke      0zA!8xb0zA!8xb0zA!8xb

A window is an end of document and then line after line, each closed by an end of document. A word has `shortest` to
`longest` letters, all different and drawn uniformly from the first `letters` printable characters of ASCII, so that
what comes next after the first copy follows from the letter before it. It is the text on which induction heads are
scored (Olsson 2022, arXiv 2209.11895), with words of many lengths, so that no fixed distance leads back.

Mixed into text at a rate: `mix: 0.8 * stdlib + 0.2 * synthetic:repeats`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.core.config.synthetic import Repeats

FIRST = 33
"""The first printable character that is no space."""


def sampler(spec: Repeats) -> Callable[[jax.Array, int], jax.Array]:
    """See `languages.Sampler`. Ids are bytes; 0xFF ends a line."""
    least = spec.shortest * spec.copies + 1
    end = np.full(1, spec.end_of_document, np.int32)

    def sample(key: jax.Array, length: int) -> jax.Array:
        number = -(-(length - 1) // least)
        of_letters, of_sizes = jax.random.split(key)
        draws = jax.random.bits(of_letters, (number, spec.letters), "uint32")
        letters = FIRST + jnp.argsort(draws, axis=1).astype(jnp.int32)[:, : spec.longest]
        sizes = jax.random.randint(of_sizes, (number,), spec.shortest, spec.longest + 1)
        ends = jnp.cumsum(spec.copies * sizes + 1)
        position = jnp.arange(length - 1)
        row = jnp.searchsorted(ends, position, side="right")
        before_end = ends[row] - 1 - position
        in_word = (spec.copies * sizes[row] - before_end) % sizes[row]
        return jnp.concatenate([end, jnp.where(before_end > 0, letters[row, in_word], spec.end_of_document)])

    return sample
