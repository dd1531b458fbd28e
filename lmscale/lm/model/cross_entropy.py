"""Cross-entropy of every next token from the last activations, in chunks where all logits would be large.

Letters: B batch, T time, D width, V vocabulary; N stands for the positions scored together, laid flat or, where the
mesh divides time, as [B, T]; P for the devices that positions are divided over.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from lmscale.core.counting.chunks import even_loss_chunks
from lmscale.lm.devices.sharding import MESH_AXES, batch_devices, constrain, mesh_axis_size

Pair = tuple[jax.Array, jax.Array]
DIVIDED = ("batch", "time")
"""Logical axes of the positions scored together, of which a flat array has the first alone."""


def default_chunk(batch: int, time: int, vocab: int) -> int | None:
    """Positions of a chunk whose float32 logits take at most `LOGITS_BYTES` on each device of the mesh that is set.

    None where all logits do. Arguments are those of the whole batch.
    """
    bytes_on_a_device = 4 * batch * time * vocab / math.prod(mesh_axis_size(axis) for axis in MESH_AXES)
    chunks = even_loss_chunks(time, bytes_on_a_device)
    return None if chunks <= 1 else -(-time // chunks)


def cross_entropy(
    x_BTD: jax.Array,
    head_DV: jax.Array,
    targets_BT: jax.Array,
    *,
    scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
) -> Pair:
    """Cross-entropy in nats and log normaliser, both [B, T], of the logits scale x head.

    Logits are float32 and, with a softcap c, c tanh(logits / c) (Gemma 2, 2024). A target below 0 is not scored: both
    results are 0 there, and so are their gradients. A target of V or more gives NaN.

    With `chunk`, at most that many positions of every row are scored at a time, and again for the gradient.
    """
    time, width = x_BTD.shape[1:]
    if chunk is not None and chunk < time:
        chunks = -(-time // chunk)
        padding = -time % chunks
        x_BTD = jnp.pad(x_BTD, ((0, 0), (0, padding), (0, 0)))
        targets_BT = jnp.pad(targets_BT, ((0, 0), (0, padding)), constant_values=-1)
        nats_BT, log_z_BT = _by_chunks(x_BTD, head_DV, targets_BT, chunks, scale, softcap)
        return nats_BT[:, :time], log_z_BT[:, :time]
    shape = targets_BT.shape
    if _flat():
        x_BTD, targets_BT = x_BTD.reshape(-1, width), targets_BT.reshape(-1)
    nats_N, log_z_N = _at_once(x_BTD, head_DV, targets_BT, scale, softcap)
    return nats_N.reshape(shape), log_z_N.reshape(shape)


def _flat() -> bool:
    """Whether positions may lie along one axis. XLA's CPU backend has its fast product for that alone."""
    return mesh_axis_size("sequence") == 1


def _logits(x_ND: jax.Array, head_DV: jax.Array, scale: float, softcap: float | None) -> jax.Array:
    exact = jnp.promote_types(x_ND.dtype, jnp.float32)
    logits_NV = scale * jnp.matmul(x_ND, head_DV, preferred_element_type=exact)
    logits_NV = constrain(logits_NV, "batch", *["time"] * (x_ND.ndim - 2), "vocab")
    return logits_NV if softcap is None else softcap * jnp.tanh(logits_NV / softcap)


def _is_target(logits_NV: jax.Array, targets_N: jax.Array) -> jax.Array:
    # A comparison, because a gather would bring together a vocabulary that is divided over devices.
    return jax.lax.broadcasted_iota(targets_N.dtype, logits_NV.shape, logits_NV.ndim - 1) == targets_N[..., None]


def _scores(logits_NV: jax.Array, targets_N: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Nats and log normaliser; exp(logits - their maximum), and its sum."""
    most_N = jnp.max(logits_NV, axis=-1)
    exps_NV = jnp.exp(logits_NV - most_N[..., None])
    sum_N = jnp.sum(exps_NV, axis=-1)
    log_z_N = most_N + jnp.log(sum_N)
    target_N = jnp.sum(jnp.where(_is_target(logits_NV, targets_N), logits_NV, 0), axis=-1)
    target_N = jnp.where(targets_N < logits_NV.shape[-1], target_N, jnp.nan)
    scored_N = targets_N >= 0
    return jnp.where(scored_N, log_z_N - target_N, 0), jnp.where(scored_N, log_z_N, 0), exps_NV, sum_N


def _gradients(
    x_ND: jax.Array,
    head_DV: jax.Array,
    targets_N: jax.Array,
    exps_NV: jax.Array,
    sum_N: jax.Array | float,
    capped_NV: jax.Array | None,
    cotangents: Pair,
    scale: float,
    softcap: float | None,
    shares: tuple[int, ...] = (),
) -> Pair:
    """Gradients of x and, in float32, of the head from those of nats and log normaliser: softmax less target.

    That of the head is `_head_gradient`.
    """
    d_nats_N, d_log_z_N = (jnp.where(targets_N >= 0, d_N, 0) for d_N in cotangents)
    softmax_NV = exps_NV * ((d_nats_N + d_log_z_N) / sum_N)[..., None]
    d_logits_NV = softmax_NV - jnp.where(_is_target(exps_NV, targets_N), d_nats_N[..., None], 0)
    if softcap is not None and capped_NV is not None:
        d_logits_NV *= 1 - jnp.square(capped_NV / softcap)
    d_logits_NV = (scale * d_logits_NV).astype(x_ND.dtype)
    d_head = _head_gradient(x_ND, d_logits_NV, exps_NV.dtype, shares)
    # The barrier keeps the transposition of a tied head out of this product: with it XLA's CPU backend takes 1.4 times
    # as long.
    return d_logits_NV @ head_DV.T, jax.lax.optimization_barrier(d_head)


def _head_gradient(x_ND: jax.Array, d_logits_NV: jax.Array, dtype: Any, shares: tuple[int, ...]) -> jax.Array:
    """[D, V], or [P, D, V] with the share of every device where `shares` tells how many each axis of N is divided into.

    A sum over shares is the gradient; added up over chunks first, it is sent once instead of once per chunk.
    """
    if not shares:
        axes = list(range(x_ND.ndim - 1))
        return jnp.tensordot(x_ND, d_logits_NV, (axes, axes), preferred_element_type=dtype)
    x_PnD, d_logits_PnV = _by_share(x_ND, shares, None), _by_share(d_logits_NV, shares, "vocab")
    d_head_PDV = jnp.einsum("...nd,...nv->...dv", x_PnD, d_logits_PnV, preferred_element_type=dtype)
    return constrain(d_head_PDV, *DIVIDED[: len(shares)], None, "vocab")


def _by_share(x: jax.Array, shares: tuple[int, ...], last: str | None) -> jax.Array:
    """[N, ...] -> [P, N / P, ...], with an axis of P for each axis of N."""
    *sizes, width = x.shape
    split = [size for share, whole in zip(shares, sizes) for size in (share, whole // share)]
    devices, positions = range(0, 2 * len(sizes), 2), range(1, 2 * len(sizes), 2)
    ordered = x.reshape(*split, width).transpose(*devices, *positions, 2 * len(sizes))
    return constrain(ordered.reshape(*shares, -1, width), *DIVIDED[: len(shares)], None, last)


def _shares(rows: int, time: int) -> tuple[int, ...]:
    """Devices that each axis of N is divided over, in a chunk of `rows` rows and `time` positions; none where one
    device has all, or where devices have unequal shares."""
    devices = batch_devices(), mesh_axis_size("sequence")
    if math.prod(devices) == 1 or rows % devices[0] or time % devices[1]:
        return ()
    return devices[:1] if _flat() else devices


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _at_once(x_ND: jax.Array, head_DV: jax.Array, targets_N: jax.Array, scale: float, softcap: float | None) -> Pair:
    return _at_once_forward(x_ND, head_DV, targets_N, scale, softcap)[0]


def _at_once_forward(
    x_ND: jax.Array, head_DV: jax.Array, targets_N: jax.Array, scale: float, softcap: float | None
) -> tuple[Pair, Any]:
    logits_NV = _logits(x_ND, head_DV, scale, softcap)
    nats_N, log_z_N, exps_NV, sum_N = _scores(logits_NV, targets_N)
    capped_NV = None if softcap is None else logits_NV
    return (nats_N, log_z_N), (x_ND, head_DV, targets_N, exps_NV, sum_N, capped_NV)


def _at_once_backward(
    scale: float, softcap: float | None, saved: Any, cotangents: Pair
) -> tuple[jax.Array, jax.Array, None]:
    x_ND, head_DV, targets_N, exps_NV, sum_N, capped_NV = saved
    d_x_ND, d_head_DV = _gradients(x_ND, head_DV, targets_N, exps_NV, sum_N, capped_NV, cotangents, scale, softcap)
    return d_x_ND, d_head_DV.astype(head_DV.dtype), None


_at_once.defvjp(_at_once_forward, _at_once_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _by_chunks(
    x_BTD: jax.Array, head_DV: jax.Array, targets_BT: jax.Array, chunks: int, scale: float, softcap: float | None
) -> Pair:
    return _by_chunks_forward(x_BTD, head_DV, targets_BT, chunks, scale, softcap)[0]


def _split(x_BT: jax.Array, chunks: int) -> jax.Array:
    """[B, T, ...] -> [chunks, N, ...]. Chunk c takes the times c, c + chunks, ...: a share of every device's."""
    batch, time, *rest = x_BT.shape
    chunked = jnp.moveaxis(x_BT.reshape(batch, time // chunks, chunks, *rest), 2, 0)
    return chunked.reshape(chunks, -1, *rest) if _flat() else chunked


def _merge(chunked: jax.Array, batch: int) -> jax.Array:
    """The inverse of `_split`."""
    chunks, rest = chunked.shape[0], chunked.shape[2 if _flat() else 3 :]
    return jnp.moveaxis(chunked.reshape(chunks, batch, -1, *rest), 0, 2).reshape(batch, -1, *rest)


def _by_chunks_forward(
    x_BTD: jax.Array, head_DV: jax.Array, targets_BT: jax.Array, chunks: int, scale: float, softcap: float | None
) -> tuple[Pair, Any]:
    def score_chunk(_: None, chunk: Pair) -> tuple[None, Pair]:
        x_ND, targets_N = chunk
        return None, _scores(_logits(x_ND, head_DV, scale, softcap), targets_N)[:2]

    _, scores = jax.lax.scan(score_chunk, None, (_split(x_BTD, chunks), _split(targets_BT, chunks)))
    nats_BT, log_z_BT = _merge(scores[0], len(x_BTD)), _merge(scores[1], len(x_BTD))
    return (nats_BT, log_z_BT), (x_BTD, head_DV, targets_BT, log_z_BT)


def _by_chunks_backward(
    chunks: int, scale: float, softcap: float | None, saved: Any, cotangents: Pair
) -> tuple[jax.Array, jax.Array, None]:
    x_BTD, head_DV, targets_BT, log_z_BT = saved
    shares = _shares(len(x_BTD), x_BTD.shape[1] // chunks)

    def add_gradients(total: jax.Array, chunk: tuple[jax.Array, ...]) -> Pair:
        x_ND, targets_N, log_z_N, d_nats_N, d_log_z_N = chunk
        logits_NV = _logits(x_ND, head_DV, scale, softcap)
        # The normaliser of a position that is not scored is stored as 0: its exponentials could be infinite.
        softmax_NV = jnp.exp(logits_NV - jnp.where(targets_N >= 0, log_z_N, jnp.inf)[..., None])
        cotangents_N = (d_nats_N, d_log_z_N)
        d_x_ND, d_head = _gradients(
            x_ND, head_DV, targets_N, softmax_NV, 1.0, logits_NV, cotangents_N, scale, softcap, shares
        )
        return total + d_head, d_x_ND

    zero = jnp.zeros((*shares, *head_DV.shape), log_z_BT.dtype)
    if shares:
        zero = constrain(zero, *DIVIDED[: len(shares)], None, "vocab")
    chunked = tuple(_split(array, chunks) for array in (x_BTD, targets_BT, log_z_BT, *cotangents))
    total, d_x = jax.lax.scan(add_gradients, zero, chunked)
    d_head_DV = constrain(total.sum(axis=range(len(shares))), "embed", "vocab") if shares else total
    return _merge(d_x, len(x_BTD)), d_head_DV.astype(head_DV.dtype), None


_by_chunks.defvjp(_by_chunks_forward, _by_chunks_backward)
