"""Every implementation of attention against one query at a time in float64, with all options and their gradients."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.counting import chunks
from lmscale.lm.model import attention
from lmscale.lm.model.attention import alibi_slopes, chunked, cudnn, plain, splash
from lmscale.lm.model.attention.alibi import as_features

QKV = tuple[jax.Array, jax.Array, jax.Array]
HEADS, FEATURES, SCALE = 4, 6, 0.3
OPTIONS = [
    {"kv_heads": kv_heads, "slopes": alibi_slopes(HEADS) if biased else None, "segmented": segmented}
    for kv_heads, biased, segmented in product((4, 2, 1), (False, True), (False, True))
]


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "SHORTEST_CHUNK", 6)


def random_qkv(time: int, kv_heads: int = HEADS, dtype: str = "float32", features: int = FEATURES) -> QKV:
    rng = np.random.default_rng(time)
    shapes = [(2, time, heads, features) for heads in (HEADS, kv_heads, kv_heads)]
    return tuple(jnp.asarray(2 * rng.standard_normal(shape), dtype) for shape in shapes)


def documents(time: int, segmented: bool) -> jax.Array | None:
    """Rows with documents that end at other places."""
    return jnp.asarray([np.arange(time) // 5, np.arange(time) // 7]) if segmented else None


def reference(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, slopes: tuple[float, ...] | None, segments: jax.Array | None
) -> np.ndarray:
    """One query at a time, in float64."""
    batch, time, heads, features = q.shape
    share, output = heads // k.shape[2], np.zeros((batch, time, heads, features))
    for b, t, h in np.ndindex(batch, time, heads):
        scores = SCALE * k[b, : t + 1, h // share] @ q[b, t, h]
        if slopes is not None:
            scores -= slopes[h] * (t - np.arange(t + 1))
        if segments is not None:
            scores[np.asarray(segments)[b, : t + 1] != int(segments[b, t])] = -np.inf
        weights = np.exp(scores - scores.max())
        output[b, t, h] = weights / weights.sum() @ v[b, : t + 1, h // share]
    return output


def exactly(qkv: QKV) -> list[np.ndarray]:
    return [np.asarray(part, np.float64) for part in qkv]


@pytest.mark.parametrize("option", OPTIONS, ids=str)
@pytest.mark.parametrize("attend", [chunked.attend, plain.attend], ids=["chunked", "plain"])
def test_what_one_query_at_a_time_gives(attend: Callable[..., jax.Array], option: dict[str, Any]) -> None:
    for time in (1, 19):
        qkv, segments = random_qkv(time, option["kv_heads"]), documents(time, option["segmented"])
        found = jax.jit(lambda *qkv, segments=segments: attend(*qkv, SCALE, option["slopes"], segments))(*qkv)
        np.testing.assert_allclose(found, reference(*exactly(qkv), option["slopes"], segments), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_the_hand_written_gradient_is_that_of_the_formula(option: dict[str, Any]) -> None:
    """19 queries do not divide into the chunks."""
    qkv, segments = random_qkv(19, option["kv_heads"]), documents(19, option["segmented"])

    def gradient(attend: Callable[..., jax.Array]) -> QKV:
        total = lambda qkv: jnp.sum(jnp.sin(attend(*qkv, SCALE, option["slopes"], segments)))
        return jax.jit(jax.grad(total))(qkv)

    assert len(chunked._chunks(19)) > 1
    for ours, theirs in zip(gradient(chunked.attend), gradient(plain.attend)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_public_function_is_the_same() -> None:
    qkv, segments = random_qkv(19, 2), documents(19, True)
    attend = jax.jit(partial(attention.causal_attention, scale=SCALE, slopes=alibi_slopes(HEADS)))
    found = attend(*qkv, segments_BT=segments)
    np.testing.assert_allclose(found, reference(*exactly(qkv), alibi_slopes(HEADS), segments), rtol=2e-3, atol=2e-3)


def test_half_precision_stays_within_its_own_rounding() -> None:
    qkv = random_qkv(11, dtype="bfloat16")
    output = chunked.attend(*qkv, SCALE)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(output, float), reference(*exactly(qkv), None, None), rtol=0.03, atol=0.03)
    grads = jax.grad(lambda qkv: jnp.sum(chunked.attend(*qkv, SCALE).astype(jnp.float32)))(qkv)
    assert all(grad.dtype == jnp.bfloat16 and bool(jnp.all(jnp.isfinite(grad))) for grad in grads)


def test_no_query_sees_a_later_key_or_value() -> None:
    qkv = random_qkv(19)
    of_one_query = jax.jit(jax.grad(lambda qkv, t: jnp.sum(jnp.take(chunked.attend(*qkv, SCALE), t, axis=1) ** 2)))
    for seen in (0, 5, 6, 17):  # inside a chunk and at its edges
        _, d_k, d_v = of_one_query(qkv, seen)
        for grad in (d_k, d_v):
            assert not np.any(grad[:, seen + 1 :])
            assert seen == 0 or np.any(grad[:, seen])
        assert np.any(d_v[:, : seen + 1])


def test_scores_far_apart_give_no_nan() -> None:
    q, k, v = random_qkv(19)
    grads = jax.jit(jax.grad(lambda qkv: jnp.sum(chunked.attend(*qkv, SCALE))))((1e4 * q, k, v))
    assert all(bool(jnp.all(jnp.isfinite(grad))) for grad in grads)


def test_dropout_keeps_the_mean_and_needs_a_key() -> None:
    qkv = random_qkv(19)
    call = jax.jit(partial(attention.causal_attention, *qkv, scale=SCALE, dropout=0.4))
    whole = jax.jit(partial(attention.causal_attention, scale=SCALE))(*qkv)
    np.testing.assert_allclose(call(), whole, rtol=1e-5)
    many = np.stack([call(key=jax.random.key(seed)) for seed in range(300)])
    assert not np.allclose(many[0], many[1])
    error = np.abs(many.mean(axis=0) - whole) / (many.std(axis=0) / np.sqrt(300) + 1e-6)
    assert np.quantile(error, 0.99) < 4
    np.testing.assert_array_equal(call(key=jax.random.key(3)), many[3])


def test_slopes_are_the_papers() -> None:
    """Press 2022, section 3: eight heads have 1/2 ... 1/256; others take every other one of the power of two above."""
    assert alibi_slopes(8) == tuple(2.0**-i for i in range(1, 9))
    assert alibi_slopes(2) == (1 / 16, 1 / 256)
    assert alibi_slopes(3) == (1 / 16, 1 / 256, 1 / 4)


def test_the_bias_of_a_kernel_without_bias() -> None:
    """The slopes as features of queries and keys: the same softmax, since it does not see what all keys share."""
    q, k, v = random_qkv(300, 2)
    slopes = alibi_slopes(HEADS)
    wide = plain.attend(*as_features(q, k, v, slopes, SCALE), SCALE)
    np.testing.assert_allclose(wide[..., :FEATURES], plain.attend(q, k, v, SCALE, slopes), rtol=1e-3, atol=1e-4)
    assert not np.any(wide[..., FEATURES:])


@pytest.mark.parametrize("option", [OPTIONS[0], OPTIONS[-1]], ids=str)
def test_the_kernel_of_a_tpu_interpreted(option: dict[str, Any]) -> None:
    qkv, segments = random_qkv(128, option["kv_heads"]), documents(128, option["segmented"])
    found = splash.attend(*qkv, SCALE, option["slopes"], segments, interpret=True)
    np.testing.assert_allclose(found, plain.attend(*qkv, SCALE, option["slopes"], segments), rtol=2e-3, atol=2e-3)


def test_what_a_kernel_cannot_do_is_left_to_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(backend: str, dtype: str, time: int, features: int, segmented: bool = False) -> str:
        q = jnp.zeros((2, time, 4, features), dtype)
        return attention.implementation(backend, q, 2, False, segmented)

    monkeypatch.setattr(cudnn, "capability", lambda: (9, 0))
    assert chosen("cpu", "float32", 19, 6) == "chunked"
    assert chosen("gpu", "bfloat16", 2048, 64) == "cudnn"
    assert chosen("gpu", "float32", 2048, 64) == "plain"
    assert chosen("gpu", "bfloat16", 2048, 60) == "plain"
    assert chosen("tpu", "bfloat16", 2048, 64) == "splash"
    assert chosen("tpu", "bfloat16", 2000, 64) == "plain"
