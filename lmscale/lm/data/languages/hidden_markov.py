"""A hidden Markov chain with Zipfian symbols whose entropy rate is known exactly.

In state s the symbol x has probability p(x|s), and the next state follows from s and x. A reader who knows how a window
begins therefore knows every state, and no model can do better than the entropy of p(.|s) averaged over the states at
each time: a finite sum. (Of hidden Markov chains in general only bounds are known; this kind is
called unifilar.) Windows begin with an end of document, in state 0, to which the most frequent symbol always leads
back: so there is one stationary distribution, and memory fades.

p(x|s) ~ m_s(x) c(x), with log m_s(x) normal with standard deviation `spread`, and c(x) such that the symbols of a long
text are Zipfian.

Letters: S states, X symbols.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config.synthetic import HiddenMarkov

TOLERANCE = 1e-9
ROUNDS = 20_000


def zipfian(spec: HiddenMarkov) -> NDArray[np.float64]:
    """[X]: the probability of each symbol in a long text, ~ rank^-zipf."""
    mass = np.arange(1, spec.symbols + 1, dtype=np.float64) ** -spec.zipf
    return np.asarray(mass / mass.sum())


@lru_cache(maxsize=8)
def chain(spec: HiddenMarkov) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """p(x|s) in units of 2^-32, exactly as it is sampled, and the next states, both [S, X]."""
    shape = (spec.states, spec.symbols)
    raw = np.random.Philox(spec.seed).random_raw(3 * spec.states * spec.symbols).reshape(3, *shape)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    affinity = np.exp(spec.spread * np.sqrt(-2 * np.log(uniform[0])) * np.cos(2 * np.pi * uniform[1]))
    next_state = (raw[2] % np.uint64(spec.states)).astype(np.int32)
    next_state[:, 0] = 0
    target = zipfian(spec)
    scale, states = target.copy(), np.full(spec.states, 1 / spec.states)
    for _ in range(ROUNDS):
        p = affinity * scale
        p /= p.sum(axis=1, keepdims=True)
        states = states @ _transitions(p, next_state)
        symbols = states @ p
        scale *= target / symbols
        if np.abs(symbols / target - 1).max() < TOLERANCE:
            break
    ends = np.round(np.cumsum(p, axis=1) / p.sum(axis=1, keepdims=True) * 2.0**32).astype(np.uint64)
    return np.diff(ends, axis=1, prepend=np.uint64(0)), next_state


def _transitions(p: NDArray[np.float64], next_state: NDArray[np.int32]) -> NDArray[np.float64]:
    """[S, S]: the probability of going from one state to another."""
    states = len(p)
    pairs = np.arange(states)[:, None] * states + next_state
    flat = np.bincount(pairs.ravel(), weights=p.ravel(), minlength=states**2)
    return flat.astype(np.float64).reshape(states, states)


def _exact(spec: HiddenMarkov) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """p(x|s) [S, X], transitions [S, S], nats of a symbol in each state [S]."""
    counts, next_state = chain(spec)
    p = counts.astype(np.float64) / 2.0**32
    nats = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1)
    return p, _transitions(p, next_state), nats


def entropy_nats(spec: HiddenMarkov, context: int) -> float:
    """Mean entropy of the C targets of a window, which begins in state 0."""
    _, step, nats = _exact(spec)
    state, total = np.eye(spec.states)[0], 0.0
    for _ in range(context):
        total += float(state @ nats)
        state = state @ step
    return total / context


def sampler(spec: HiddenMarkov) -> Callable[[jax.Array, int], jax.Array]:
    """See `languages.Sampler`. Ids: symbols, then the end of a document."""
    counts, next_state = chain(spec)
    ends = np.cumsum(counts, axis=1)[:, :-1].astype(np.uint32)

    def sample(key: jax.Array, length: int) -> jax.Array:
        def step(state: jax.Array, draw: jax.Array) -> tuple[jax.Array, jax.Array]:
            symbol = jnp.searchsorted(jnp.asarray(ends)[state], draw, side="right").astype(jnp.int32)
            return jnp.asarray(next_state)[state, symbol], symbol

        draws: Any = jax.random.bits(key, (length - 1,), "uint32")
        _, symbols = jax.lax.scan(step, jnp.int32(0), draws)
        return jnp.concatenate([jnp.full(1, spec.end_of_document, jnp.int32), symbols])

    return sample
