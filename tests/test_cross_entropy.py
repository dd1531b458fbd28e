"""The loss against the log-softmax, its gradients, and that chunks change nothing but memory."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.counting import chunks
from lmscale.lm.model.cross_entropy import cross_entropy, default_chunk

B, T, D, V = 3, 11, 8, 40
OPTIONS: list[dict[str, Any]] = [{}, {"scale": 0.3}, {"softcap": 2.0}, {"scale": 3.0, "softcap": 1.5}]


def given() -> tuple[jax.Array, jax.Array, jax.Array]:
    """Activations, head, and targets of which some are not scored."""
    keys = jax.random.split(jax.random.key(0), 3)
    targets = jax.random.randint(keys[2], (B, T), 0, V).at[1, 6:].set(-1)
    return jax.random.normal(keys[0], (B, T, D)), jax.random.normal(keys[1], (D, V)), targets


def by_hand(
    x: jax.Array, head: jax.Array, targets: jax.Array, scale: float = 1.0, softcap: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """Plain JAX, differentiated by JAX."""
    logits = scale * (x @ head)
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    own = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(targets >= 0, log_z - own, 0), jnp.where(targets >= 0, log_z, 0)


def value_and_gradients(function: Callable[..., Any]) -> Any:
    """Both outputs, and the gradients of a total that weighs every position of both differently."""
    x, head, targets = given()
    weight = jnp.arange(1.0, B * T + 1).reshape(B, T) / 7

    def total(x: jax.Array, head: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        nats, log_z = function(x, head, targets)
        return jnp.sum(weight * nats) + 0.1 * jnp.sum(weight * log_z**2), (nats, log_z)

    gradients, outputs = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(x, head)
    return outputs, gradients


@cache
def expected(number: int) -> Any:
    """`value_and_gradients` by hand under OPTIONS[number]."""
    return value_and_gradients(lambda *a: by_hand(*a, **OPTIONS[number]))


@pytest.mark.long
@pytest.mark.parametrize("option", OPTIONS, ids=str)
@pytest.mark.parametrize("chunk", [None, 1, 4, 11, 50])
def test_values_and_gradients_are_those_of_the_log_softmax(option: dict[str, Any], chunk: int | None) -> None:
    """Chunks of 4 do not divide 11 positions."""
    values, gradients = value_and_gradients(lambda *a: cross_entropy(*a, chunk=chunk, **option))
    for ours, theirs in zip(values, expected(OPTIONS.index(option))[0]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients, expected(OPTIONS.index(option))[1]):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-4)


@pytest.mark.long
def test_what_is_not_scored_costs_nothing_and_moves_nothing() -> None:
    x, head, targets = given()
    nats, log_z = cross_entropy(x, head, targets)
    assert not np.any(nats[1, 6:]) and not np.any(log_z[1, 6:]) and np.all(nats[0] > 0)
    grad = jax.grad(lambda x: cross_entropy(x, head, targets)[0].sum())(x)
    assert not np.any(grad[1, 6:]) and np.any(grad[1, 5])


def test_chunks_never_hold_all_logits() -> None:
    """The compiled gradient's working memory: less than half of one set of logits, where whole it is more than one."""
    shape, vocab = (4, 256, 16), 4096
    logits = 4 * 4 * 256 * vocab

    def working(chunk: int | None) -> int:
        def total(x: jax.Array, head: jax.Array, targets: jax.Array) -> jax.Array:
            return cross_entropy(x, head, targets, chunk=chunk)[0].sum()

        arguments = (
            jax.ShapeDtypeStruct(shape, jnp.float32),
            jax.ShapeDtypeStruct((shape[2], vocab), jnp.float32),
            jax.ShapeDtypeStruct(shape[:2], jnp.int32),
        )
        return jax.jit(jax.grad(total, argnums=(0, 1))).lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    assert working(16) < logits / 2 < logits <= working(None)


@pytest.mark.long
def test_half_precision_keeps_a_float32_loss() -> None:
    x, head, targets = given()
    nats, _ = cross_entropy(x.astype(jnp.bfloat16), head.astype(jnp.bfloat16), targets)
    assert nats.dtype == jnp.float32
    np.testing.assert_allclose(nats, by_hand(x, head, targets)[0], atol=0.2)


def test_chunks_are_taken_where_logits_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_chunk(16, 256, 256) is None
    assert default_chunk(16, 2048, 50_257) == 2048 // 16  # 6.6 GB: 13 parts of 512 MiB would do, 16 divide the length
    monkeypatch.setattr(chunks, "LOGITS_BYTES", 4 * 8 * 32)
    assert default_chunk(1, 32, 8) is None and default_chunk(1, 64, 8) == 32
