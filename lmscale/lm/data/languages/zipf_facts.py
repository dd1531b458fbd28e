"""Facts drawn with p(x) ~ x^-gamma, each with one fixed answer: a language whose scaling law is known.

A window is an end of document and then fact after fact: the rank x as digits, the most significant first, and its
answer. Ranks are drawn independently, so the digits always cost their entropy; an answer costs nothing once its fact is
known, and ln(answers) before. A model with capacity for the F most frequent facts misses the mass of the others,
~ F^-(gamma - 1); one that has seen n draws misses the facts that were not among them, ~ n^-(1 - 1/gamma) (Hutter 2021,
arXiv 2102.04074; Michaud 2023, arXiv 2303.13506; Cabannes 2024, arXiv 2310.02984). So the excess loss has model
exponent gamma - 1 and data exponent 1 - 1/gamma, while the facts around rank x are learned at a scale of their own.

Letters: X facts, K digits.
"""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config.synthetic import ZipfFacts


@lru_cache(maxsize=8)
def counts(spec: ZipfFacts) -> NDArray[np.uint64]:
    """[X]: p(x) in units of 2^-32, exactly as it is sampled; the sum is 2^32."""
    mass = np.arange(1, spec.facts + 1, dtype=np.float64) ** -spec.gamma
    ends = np.round(np.cumsum(mass) / mass.sum() * 2.0**32).astype(np.uint64)
    return np.diff(ends, prepend=np.uint64(0))


def probabilities(spec: ZipfFacts) -> NDArray[np.float64]:
    """[X]: p(x), x = 1 ... X."""
    return counts(spec).astype(np.float64) / 2.0**32


def _hash(x: jax.Array) -> jax.Array:
    """A hash of 32 bits (the finaliser of MurmurHash3)."""
    for shift, odd in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * jnp.uint32(odd)
    return x ^ (x >> 16)


def answers(spec: ZipfFacts, x: jax.Array) -> jax.Array:
    """The answers, uint32 from 0 to answers - 1, to the facts `x`, which are counted from 0."""
    salt = jnp.uint32((spec.seed * 0x9E3779B1 + 0x5BD1E995) & 0xFFFFFFFF)
    return _hash(_hash(x ^ salt) + salt) % jnp.uint32(spec.answers)


def sampler(spec: ZipfFacts) -> Callable[[jax.Array, int], jax.Array]:
    """See `languages.Sampler`. Ids: digits, then answers, then the end of a document."""
    ends = np.cumsum(counts(spec))[:-1].astype(np.uint32)
    powers = np.array([spec.base**power for power in reversed(range(spec.digits))], np.uint32)

    def sample(key: jax.Array, length: int) -> jax.Array:
        number = -(-(length - 1) // (spec.digits + 1))
        x = jnp.searchsorted(ends, jax.random.bits(key, (number,), "uint32"), side="right").astype(jnp.uint32)
        digits = x[:, None] // powers[None] % jnp.uint32(spec.base)
        answer_ids = jnp.uint32(spec.base) + answers(spec, x)
        facts = jnp.concatenate([digits, answer_ids[:, None]], axis=1).ravel()
        start = jnp.full(1, spec.end_of_document, jnp.int32)
        return jnp.concatenate([start, facts.astype(jnp.int32)])[:length]

    return sample


def ranks(spec: ZipfFacts, windows: NDArray[np.int32]) -> NDArray[np.int64]:
    """[n, facts]: ranks, from 1, of the whole facts in windows [n, C + 1]; fact i is answered at (K + 1) (i + 1)."""
    facts = (windows.shape[1] - 1) // (spec.digits + 1)
    digits = windows[:, 1 : 1 + facts * (spec.digits + 1)].reshape(len(windows), facts, -1)[:, :, :-1]
    return digits.astype(np.int64) @ spec.base ** np.arange(spec.digits)[::-1] + 1


def digit_entropies(spec: ZipfFacts) -> NDArray[np.float64]:
    """[K]: nats of each digit, given those before it."""
    p = probabilities(spec)
    x, joint = np.arange(spec.facts), [0.0]
    for power in reversed(range(spec.digits)):
        mass = np.bincount(x // spec.base**power, weights=p)
        mass = mass[mass > 0]
        joint.append(float(-(mass * np.log(mass)).sum()))
    return np.diff(joint)


def entropy_nats(spec: ZipfFacts, context: int) -> float:
    """The mean over the C targets of a window of the loss of a model that knows every fact."""
    per_position = np.append(digit_entropies(spec), 0.0)
    return float(per_position[np.arange(context) % len(per_position)].mean())


def exponents(spec: ZipfFacts) -> tuple[float, float]:
    """The exponents of the excess loss in theory: of model size, of data."""
    return spec.gamma - 1, 1 - 1 / spec.gamma
