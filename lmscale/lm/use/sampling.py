"""How the next token is chosen from logits: filters, each as its paper has it, and the draw.

In order, as in the library transformers: repetition penalty, temperature, top-k, top-p, min-p. Each filter sees what
the one before left, renormalised. Letters: B rows, V vocabulary.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmscale.core.config import check, check_types

REMOVED = -jnp.inf
"""Log-probability of a token that a filter has removed."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn. Raises `UserError` for values out of range."""

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the likeliest token, whatever the filters."""
    top_k: int | None = None
    """Keep the k likeliest tokens (Fan 2018); ties with the last of them stay."""
    top_p: float = 1.0
    """Keep the fewest likeliest tokens whose probability together is at least p (nucleus sampling, Holtzman 2020)."""
    min_p: float = 0.0
    """Keep tokens at least this fraction as likely as the likeliest (Nguyen 2024)."""
    repetition_penalty: float = 1.0
    """A positive logit of a token that has been read or written is divided by it, a negative one multiplied (Keskar
    2019)."""

    def __post_init__(self) -> None:
        check_types(self)
        check(0 <= self.temperature < float("inf"), f"temperature = {self.temperature}: at least 0, which is greedy")
        check(self.top_k is None or self.top_k >= 1, f"top_k = {self.top_k}: at least 1; leave it out to keep all")
        check(0 < self.top_p <= 1, f"top_p = {self.top_p}: above 0 and at most 1; 1 keeps all tokens")
        check(0 <= self.min_p <= 1, f"min_p = {self.min_p}: from 0, which keeps all tokens, to 1")
        check(
            0 < self.repetition_penalty < float("inf"),
            f"repetition_penalty = {self.repetition_penalty}: above 0; 1 changes nothing, more makes repeats rarer",
        )


class Filters(NamedTuple):
    """`Sampling` as numbers of a compiled program, so that one program serves them all."""

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    repetition_penalty: jax.Array


def filters(sampling: Sampling, vocab: int) -> Filters:
    """The numbers of `sampling`."""
    return Filters(
        jnp.float32(sampling.temperature),
        jnp.int32(min(sampling.top_k or vocab, vocab)),
        jnp.float32(sampling.top_p),
        jnp.float32(sampling.min_p),
        jnp.float32(sampling.repetition_penalty),
    )


def penalised(logits_BV: jax.Array, seen_BV: jax.Array, penalty: jax.Array) -> jax.Array:
    """Logits after the repetition penalty; `seen_BV` says which tokens have occurred."""
    rarer_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return jnp.where(seen_BV, rarer_BV, logits_BV)


def filtered_logprobs(logits_BV: jax.Array, f: Filters) -> jax.Array:
    """ln p [B, V] of the tokens that temperature, above 0, and filters leave; -inf for the others."""
    scaled_BV = logits_BV / f.temperature
    ordered_BV = jnp.sort(scaled_BV, axis=-1, descending=True)
    last_B1 = jnp.take_along_axis(ordered_BV, jnp.full((logits_BV.shape[0], 1), f.top_k - 1), axis=-1)
    scaled_BV = jnp.where(scaled_BV >= last_B1, scaled_BV, REMOVED)
    ordered_BV = jnp.where(ordered_BV >= last_B1, ordered_BV, REMOVED)
    # a token stays while those before it have less than p together; the likeliest always does
    probability_BV = jax.nn.softmax(ordered_BV, axis=-1)
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    stays_BV = (before_BV < f.top_p) | (f.top_p >= 1)
    least_B1 = jnp.min(jnp.where(stays_BV, ordered_BV, jnp.inf), axis=-1, keepdims=True)
    scaled_BV = jnp.where(scaled_BV >= least_B1, scaled_BV, REMOVED)
    likeliest_B1 = jnp.max(scaled_BV, axis=-1, keepdims=True)
    scaled_BV = jnp.where(scaled_BV >= likeliest_B1 + jnp.log(f.min_p), scaled_BV, REMOVED)
    return jax.nn.log_softmax(scaled_BV, axis=-1)


def choose(logits_BV: jax.Array, seen_BV: jax.Array, keys_B: jax.Array, f: Filters) -> jax.Array:
    """The next token of every row [B], drawn with a key of its own, or the likeliest where the temperature is 0."""
    logits_BV = penalised(logits_BV, seen_BV, f.repetition_penalty)

    def drawn() -> jax.Array:
        return jax.vmap(jax.random.categorical)(keys_B, filtered_logprobs(logits_BV, f))

    chosen_B: jax.Array = jax.lax.cond(f.temperature > 0, drawn, lambda: jnp.argmax(logits_BV, axis=-1))
    return chosen_B.astype(jnp.int32)
