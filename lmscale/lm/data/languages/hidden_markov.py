"""A hidden Markov chain with Zipfian symbols whose entropy rate is known exactly.

In state s the symbol x comes with probability p(x|s), and the next state follows from s and x. A reader who knows where
a window began therefore knows every state, and no model can do better than the entropy of p(.|s) averaged over the
states in their order of time: a finite sum. (Of hidden Markov chains in general only bounds are known; this kind is
called unifilar.) Windows begin with an end of document, in state 0, to which the most frequent symbol always leads
back: so there is one stationary distribution, and memory fades.

p(x|s) ~ m_s(x) c(x), with log m_s(x) normal with standard deviation `spread`, and c(x) found so that the symbols of a
long text are Zipfian.

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
    """[X]: the probability that each symbol is meant to have, ~ rank^-zipf."""
    mass = np.arange(1, spec.symbols + 1, dtype=np.float64) ** -spec.zipf
    return np.asarray(mass / mass.sum())


@lru_cache(maxsize=8)
def chain(spec: HiddenMarkov) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """p(x|s) in units of 2^-32, the very numbers that are drawn from, and the next states, both [S, X]."""
    shape = (spec.states, spec.symbols)
    raw = np.random.Philox(spec.seed).random_raw(3 * spec.states * spec.symbols).reshape(3, *shape)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    likes = np.exp(spec.spread * np.sqrt(-2 * np.log(uniform[0])) * np.cos(2 * np.pi * uniform[1]))
    then = (raw[2] % np.uint64(spec.states)).astype(np.int32)
    then[:, 0] = 0
    wanted = zipfian(spec)
    scale, seen = wanted.copy(), np.full(spec.states, 1 / spec.states)
    for _ in range(ROUNDS):
        p = likes * scale
        p /= p.sum(axis=1, keepdims=True)
        seen = seen @ _transitions(p, then)
        found = seen @ p
        scale *= wanted / found
        if np.abs(found / wanted - 1).max() < TOLERANCE:
            break
    ends = np.round(np.cumsum(p, axis=1) / p.sum(axis=1, keepdims=True) * 2.0**32).astype(np.uint64)
    return np.diff(ends, axis=1, prepend=np.uint64(0)), then


def _transitions(p: NDArray[np.float64], then: NDArray[np.int32]) -> NDArray[np.float64]:
    """[S, S]: from state to state."""
    states = len(p)
    pairs = np.arange(states)[:, None] * states + then
    found = np.bincount(pairs.ravel(), weights=p.ravel(), minlength=states**2)
    return found.astype(np.float64).reshape(states, states)


def _exact(spec: HiddenMarkov) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """p(x|s) [S, X], transitions [S, S], nats of a symbol in each state [S]."""
    counts, then = chain(spec)
    p = counts.astype(np.float64) / 2.0**32
    nats = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1)
    return p, _transitions(p, then), nats


def entropy_nats(spec: HiddenMarkov, context: int) -> float:
    """Mean over the C targets of a window, which begins in state 0."""
    _, step, nats = _exact(spec)
    state, total = np.eye(spec.states)[0], 0.0
    for _ in range(context):
        total += float(state @ nats)
        state = state @ step
    return total / context


def writer(spec: HiddenMarkov) -> Callable[[jax.Array, int], jax.Array]:
    """See `languages.Writer`. Ids: symbols, then the end of a document."""
    counts, then = chain(spec)
    ends, following = np.cumsum(counts, axis=1)[:, :-1].astype(np.uint32), then

    def write(key: jax.Array, length: int) -> jax.Array:
        def step(state: jax.Array, draw: jax.Array) -> tuple[jax.Array, jax.Array]:
            symbol = jnp.searchsorted(jnp.asarray(ends)[state], draw, side="right").astype(jnp.int32)
            return jnp.asarray(following)[state, symbol], symbol

        draws: Any = jax.random.bits(key, (length - 1,), "uint32")
        _, symbols = jax.lax.scan(step, jnp.int32(0), draws)
        return jnp.concatenate([jnp.full(1, spec.end_of_document, jnp.int32), symbols])

    return write
