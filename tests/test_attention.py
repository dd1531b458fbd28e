from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale import attention

QKV = tuple[jax.Array, jax.Array, jax.Array]
Attend = Callable[..., jax.Array]


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "QUERY_CHUNK", 8)


def chunked(*qkv: jax.Array) -> jax.Array:
    return jax.jit(attention._chunked)(*qkv)


def gradient(total: Callable[[jax.Array], jax.Array], qkv: QKV, attend: Attend = attention._chunked) -> QKV:
    return jax.jit(jax.grad(lambda qkv: total(attend(*qkv))))(qkv)


def random_qkv(time: int, heads: int = 2, dtype: str = "float32") -> QKV:
    values = 2 * np.random.default_rng(time).standard_normal((3, 2, time, heads, 6))
    return tuple(jnp.asarray(part, dtype) for part in values)


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """One query at a time, in float64."""
    batch, time, heads, features = q.shape
    output = np.zeros((batch, time, heads, features))
    for b, t, h in np.ndindex(batch, time, heads):
        scores = k[b, : t + 1, h] @ q[b, t, h] / np.sqrt(features)
        weights = np.exp(scores - scores.max())
        output[b, t, h] = weights / weights.sum() @ v[b, : t + 1, h]
    return output


def exactly(qkv: QKV) -> list[np.ndarray]:
    return [np.asarray(part, np.float64) for part in qkv]


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("time", [1, 5, 16, 19])
def test_chunks_give_what_one_query_at_a_time_gives(time: int, heads: int) -> None:
    qkv = random_qkv(time, heads)
    np.testing.assert_allclose(chunked(*qkv), reference(*exactly(qkv)), rtol=1e-5, atol=1e-5)


def test_on_this_machine_the_public_function_gives_the_same() -> None:
    qkv = random_qkv(19)
    np.testing.assert_allclose(attention.causal_attention(*qkv), reference(*exactly(qkv)), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("time", [5, 19])
def test_gradients_agree_with_finite_differences_of_the_reference(time: int) -> None:
    qkv = random_qkv(time)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(qkv[0].shape)
    grads = gradient(lambda output: jnp.sum(output * weight), qkv)
    point, step = exactly(qkv), 1e-5
    for number, grad in enumerate(grads):
        for _ in range(3):
            direction = rng.standard_normal(grad.shape)
            ends = []
            for sign in (1, -1):
                moved = [*point]
                moved[number] = point[number] + sign * step * direction
                ends.append(np.sum(reference(*moved) * weight))
            np.testing.assert_allclose(np.sum(grad * direction), (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("time", [8, 21])
def test_gradients_agree_with_jax_everywhere(time: int) -> None:
    qkv = random_qkv(time)

    def jax_own(*qkv: jax.Array) -> jax.Array:
        return jax.nn.dot_product_attention(*qkv, is_causal=True)

    both = [gradient(lambda output: jnp.sum(jnp.sin(output)), qkv, attend) for attend in (attention._chunked, jax_own)]
    for ours, theirs in zip(*both):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_half_precision_stays_within_its_own_rounding() -> None:
    qkv = random_qkv(11, dtype="bfloat16")
    output = chunked(*qkv)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(output, np.float64), reference(*exactly(qkv)), rtol=0.03, atol=0.03)
    grads = gradient(lambda output: jnp.sum(output.astype(jnp.float32)), qkv)
    assert all(grad.dtype == jnp.bfloat16 and bool(jnp.all(jnp.isfinite(grad))) for grad in grads)


def test_no_query_sees_a_later_key_or_value() -> None:
    qkv = random_qkv(19)
    of_one_query = jax.jit(jax.grad(lambda qkv, t: jnp.sum(jnp.take(attention._chunked(*qkv), t, axis=1) ** 2)))
    for seen in (0, 7, 8, 17):  # inside a chunk and at its edges
        _, d_k, d_v = of_one_query(qkv, seen)
        for grad in (d_k, d_v):
            assert not np.any(grad[:, seen + 1 :])
            assert seen == 0 or np.any(grad[:, seen])
        assert np.any(d_v[:, : seen + 1])


def test_scores_far_apart_give_no_nan() -> None:
    q, k, v = random_qkv(19)
    grads = gradient(jnp.sum, (1e4 * q, k, v))
    assert all(bool(jnp.all(jnp.isfinite(grad))) for grad in grads)
