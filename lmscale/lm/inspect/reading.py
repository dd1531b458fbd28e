"""A text as a model reads it: the attention of every head, and what each layer would predict.

Letters as in `transformer`; J = L + 1 points of the residual stream: the embedding and each layer's output; k likeliest
tokens.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmscale.core.config import ModelConfig
from lmscale.lm.model import transformer
from lmscale.lm.model.layers import norm
from lmscale.lm.model.parameters import Params, cast
from lmscale.lm.model.tap import record

LIKELIEST = 5
"""Tokens kept of each prediction."""


class Lens(NamedTuple):
    """What the residual stream predicts before the first layer and after each one, at every position."""

    tokens_JTk: jax.Array
    """The likeliest tokens, in order."""
    nats_JTk: jax.Array
    """-ln p of each."""
    next_nats_JT: jax.Array
    """-ln p of the token that follows in the text; 0 at the last position, which nothing follows."""
    kl_JT: jax.Array
    """KL divergence, in nats, of the model's own prediction from this one: 0 after the last layer."""


class Reading(NamedTuple):
    """One text."""

    attention_LHTS: jax.Array
    """How much the query at t reads of the key at s; rows sum to 1."""
    residual_JTD: jax.Array
    lens: Lens


@partial(jax.jit, static_argnames=("config", "vocab"))
def read(params: Params, tokens_T: jax.Array, config: ModelConfig, vocab: int) -> Reading:
    """Attention and logit lens of one text of at most a context; ids from `vocab` on, which mean no text, are not
    predicted."""
    tap = record("attention_weights", "embedding", "residual_post")
    _, _, activations, _ = transformer.final_residual(params, tokens_T[None], config, None, tap)
    stream_JTD = jnp.concatenate([activations["embedding"], activations["residual_post"][:, 0]])
    lens = logit_lens(params, stream_JTD, tokens_T, config, vocab)
    return Reading(activations["attention_weights"][:, 0], stream_JTD, lens)


def logit_lens(params: Params, residual_JTD: jax.Array, tokens_T: jax.Array, config: ModelConfig, vocab: int) -> Lens:
    """softmax(unembed(norm(residual))): each point of the stream read as though it were the last (nostalgebraist 2020,
    "interpreting GPT: the logit lens").

    One point after the other, so that only its logits [T, V] are held.
    """
    target_T = jnp.roll(tokens_T, -1)
    own_TV = lens_logprobs(params, residual_JTD[-1], config, vocab)

    def one(residual_TD: jax.Array) -> Lens:
        logprob_TV = lens_logprobs(params, residual_TD, config, vocab)
        likeliest_Tk, token_Tk = jax.lax.top_k(logprob_TV, min(LIKELIEST, vocab))
        next_T = -jnp.take_along_axis(logprob_TV, target_T[:, None], axis=1)[:, 0].at[-1].set(0)
        real_TV = jnp.isfinite(own_TV)
        gap_TV = jnp.where(real_TV, own_TV - jnp.where(real_TV, logprob_TV, 0), 0)
        kl_T = jnp.sum(jnp.where(real_TV, jnp.exp(own_TV), 0) * gap_TV, axis=1)
        return Lens(token_Tk, -likeliest_Tk, next_T, kl_T)

    return jax.lax.map(one, residual_JTD)


def lens_logprobs(params: Params, residual_TD: jax.Array, config: ModelConfig, vocab: int) -> jax.Array:
    """ln p [T, V] of the next token where this residual stream goes to the last norm and the head at once."""
    cast_params = cast(params, config)
    final_TD = norm(residual_TD[None], "final_norm", cast_params, config)
    logits_TV = transformer.unembed(final_TD, transformer.head(cast_params, config), config)[0]
    return jax.nn.log_softmax(jnp.where(jnp.arange(config.vocab) < vocab, logits_TV, -jnp.inf), axis=-1)
