"""Every implementation of attention against one query at a time in float64, with all options and their gradients."""

from collections.abc import Callable
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.counting import chunks
from lmscale.lm.model import attention
from lmscale.lm.model.attention import alibi_slopes, chunked, cudnn, plain, splash
from lmscale.lm.model.attention.alibi import as_features
from lmscale.lm.model.attention.documents import as_features as documents_as_features

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


@pytest.mark.long
@pytest.mark.parametrize("option", OPTIONS, ids=str)
@pytest.mark.parametrize("attend", [chunked.attend, plain.attend], ids=["chunked", "plain"])
def test_what_one_query_at_a_time_gives(attend: Callable[..., jax.Array], option: dict[str, Any]) -> None:
    for time in (1, 19):
        qkv, segments = random_qkv(time, option["kv_heads"]), documents(time, option["segmented"])
        output = jax.jit(lambda *qkv, segments=segments: attend(*qkv, SCALE, option["slopes"], segments))(*qkv)
        np.testing.assert_allclose(output, reference(*exactly(qkv), option["slopes"], segments), rtol=1e-5, atol=1e-5)


@pytest.mark.long
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


@pytest.mark.long
def test_the_public_function_is_the_same() -> None:
    qkv, segments = random_qkv(19, 2), documents(19, True)
    attend = jax.jit(partial(attention.causal_attention, scale=SCALE, slopes=alibi_slopes(HEADS)))
    output = attend(*qkv, segments_BT=segments)
    np.testing.assert_allclose(output, reference(*exactly(qkv), alibi_slopes(HEADS), segments), rtol=2e-3, atol=2e-3)


@pytest.mark.long
def test_half_precision_stays_within_its_own_rounding() -> None:
    qkv = random_qkv(11, dtype="bfloat16")
    output = chunked.attend(*qkv, SCALE)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(output, float), reference(*exactly(qkv), None, None), rtol=0.03, atol=0.03)
    grads = jax.grad(lambda qkv: jnp.sum(chunked.attend(*qkv, SCALE).astype(jnp.float32)))(qkv)
    assert all(grad.dtype == jnp.bfloat16 and bool(jnp.all(jnp.isfinite(grad))) for grad in grads)


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
def test_the_bias_of_a_kernel_without_bias() -> None:
    """The slopes as features of queries and keys: the same softmax, since it does not see what all keys share."""
    q, k, v = random_qkv(300, 2)
    slopes = alibi_slopes(HEADS)
    wide = plain.attend(*as_features(q, k, v, slopes, SCALE), SCALE)
    np.testing.assert_allclose(wide[..., :FEATURES], plain.attend(q, k, v, SCALE, slopes), rtol=1e-3, atol=1e-4)
    assert not np.any(wide[..., FEATURES:])


@pytest.mark.long
@pytest.mark.parametrize("option", [OPTIONS[0], OPTIONS[-1]], ids=str)
def test_the_kernel_of_a_tpu_interpreted(option: dict[str, Any]) -> None:
    qkv, segments = random_qkv(128, option["kv_heads"]), documents(128, option["segmented"])
    output = splash.attend(*qkv, SCALE, option["slopes"], segments, interpret=True)
    np.testing.assert_allclose(output, plain.attend(*qkv, SCALE, option["slopes"], segments), rtol=2e-3, atol=2e-3)


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


@pytest.mark.long
@pytest.mark.parametrize("option", [OPTIONS[0], OPTIONS[-1]], ids=str)
def test_cudnns_arguments_compute_the_formula(option: dict[str, Any]) -> None:
    """With XLA's implementation of the same interface in the kernel's place."""
    qkv, segments = random_qkv(12, option["kv_heads"]), documents(12, option["segmented"])
    output = cudnn.attend(*qkv, SCALE, option["slopes"], segments, implementation="xla")
    np.testing.assert_allclose(output, plain.attend(*qkv, SCALE, option["slopes"], segments), rtol=2e-3, atol=2e-3)


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_documents_of_a_kernel_without_a_mask(dtype: str) -> None:
    """Their numbers as features: what the formula with a mask gives, forward and backward, for one document, for as
    many as there are tokens, and for numbers of several digits."""
    time = 300
    q, k, v = random_qkv(time, 2, dtype)
    numbers = np.stack([np.arange(time), np.sort(np.random.default_rng(0).integers(0, 40, time))]).astype(np.int32)
    for segments in (jnp.asarray(numbers), jnp.zeros((2, time), jnp.int32)):

        def total(attend: Callable[..., jax.Array], segments: jax.Array = segments) -> Any:
            squares = lambda q, k, v: jnp.sum(attend(q, k, v, segments).astype(jnp.float32) ** 2)
            return jax.jit(jax.value_and_grad(squares, argnums=(0, 1, 2)))(q, k, v)

        wide = lambda q, k, v, segments: plain.attend(*documents_as_features(q, k, v, segments), SCALE)
        masked = lambda q, k, v, segments: plain.attend(q, k, v, SCALE, None, segments)
        extra = wide(q, k, v, segments)[..., FEATURES:]
        assert extra.shape[-1] == 16 and not np.any(extra)
        tolerance = 1e-5 if dtype == "float32" else 1e-2
        for ours, theirs in zip(jax.tree.leaves(total(wide)), jax.tree.leaves(total(masked))):
            np.testing.assert_allclose(
                np.asarray(ours, np.float32), np.asarray(theirs, np.float32), rtol=tolerance, atol=tolerance
            )


def test_cudnn_is_called_with_wider_heads_and_a_mask_only_where_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def kernel(q: jax.Array, k: jax.Array, v: jax.Array, **options: Any) -> jax.Array:
        calls.append({"features": (q.shape[-1], k.shape[-1], v.shape[-1]), **options})
        return q

    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    qkv, segments = random_qkv(12, 2, features=8), documents(12, True)
    assert cudnn.attend(*qkv, SCALE).shape == qkv[0].shape
    always = {"scale": SCALE, "is_causal": True, "implementation": "cudnn"}
    assert calls.pop() == {"features": (8, 8, 8), **always}
    assert cudnn.attend(*qkv, SCALE, alibi_slopes(HEADS), segments).shape == qkv[0].shape
    assert calls.pop() == {"features": (24, 24, 24), **always}
    monkeypatch.setattr(cudnn, "capability", lambda: AMPERE)
    assert cudnn.attend(*random_qkv(12, 2, features=128), SCALE, None, segments).shape == (2, 12, HEADS, 128)
    call = calls.pop()
    assert call["features"] == (128, 128, 128) and call["mask"].shape == (2, 1, 12, 12)
    assert np.array_equal(call["mask"][0, 0], np.arange(12)[:, None] // 5 == np.arange(12)[None] // 5)


HOPPER, AMPERE, TURING = (9, 0), (8, 6), (7, 5)


@pytest.mark.parametrize(
    ("capability", "dtype", "time", "features", "segmented", "reason"),
    [
        (HOPPER, "bfloat16", 11, 256, False, None),
        (AMPERE, "float16", 12, 128, True, None),
        (None, "bfloat16", 12, 64, False, "needs an NVIDIA GPU of compute capability 8.0 or more"),
        (TURING, "float16", 12, 64, False, "needs an NVIDIA GPU of compute capability 8.0 or more"),
        (HOPPER, "float32", 12, 64, False, "takes bfloat16 or float16, not float32"),
        (AMPERE, "bfloat16", 12, 136, False, "a multiple of 8 up to 128 features, not 136"),
        (HOPPER, "bfloat16", 12, 264, False, "a multiple of 8 up to 256 features, not 264"),
        (HOPPER, "bfloat16", 12, 60, False, "a multiple of 8 up to 256 features, not 60"),
        (HOPPER, "bfloat16", 11, 64, True, None),
        (HOPPER, "bfloat16", 11, 256, True, "takes a mask for even lengths only, not 11"),
        (AMPERE, "bfloat16", 11, 128, True, "takes a mask for even lengths only, not 11"),
    ],
)
def test_why_cudnn_is_not_used(
    capability: tuple[int, int] | None, dtype: str, time: int, features: int, segmented: bool, reason: str | None
) -> None:
    restriction = cudnn.restriction(capability, jnp.dtype(dtype), time, features, segmented)
    assert restriction is None if reason is None else restriction is not None and restriction.endswith(reason)


@pytest.mark.parametrize(("version", "expected"), [("PJRT C API\ncuda 13000", (9, 0)), ("rocm 60300", None)])
def test_the_capability_of_a_gpu(
    version: str, expected: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = SimpleNamespace(client=SimpleNamespace(platform_version=version), compute_capability="9.0")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert cudnn.capability() == expected
