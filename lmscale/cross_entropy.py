"""The loss of the next token from the last activations, without ever holding all logits where they would be large.

Letters: B batch, T time, N = B T positions laid flat, D width, V vocabulary, C positions of a chunk.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from lmscale.sharding import MESH_AXES, parts

CHUNK_BYTES = 512 * 2**20


def default_chunk(batch: int, time: int, vocab: int) -> int | None:
    """Positions of a chunk so that its float32 logits take at most 512 MiB on each device of the mesh that is set.

    None where all of them do. At this size a chunk still holds thousands of positions, enough to keep an accelerator
    busy, and is small beside the memory of one.
    """
    bytes_of_all = 4 * batch * time * vocab / math.prod(parts(axis) for axis in MESH_AXES)
    chunks = -(-int(bytes_of_all) // CHUNK_BYTES)
    if chunks <= 1:
        return None
    return max(1, time // chunks)


def cross_entropy(
    x_BTD: jax.Array,
    head_DV: jax.Array,
    targets_BT: jax.Array,
    *,
    scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy in nats [B, T] and log normaliser [B, T] of logits scale (x head), capped by c tanh(logits / c).

    Both are float32, and 0 with a gradient of 0 where the target is below 0. With `chunk`, that many positions of every
    sequence are scored at a time, and again for the gradient, so that logits of one chunk only exist at once.
    """
    batch, time, width = x_BTD.shape
    if chunk is None or chunk >= time:
        nats_N, log_z_N = _piece(x_BTD.reshape(-1, width), head_DV, targets_BT.reshape(-1), scale, softcap)
        return nats_N.reshape(batch, time), log_z_N.reshape(batch, time)
    chunks = -(-time // chunk)
    x_BTD = jnp.pad(x_BTD, ((0, 0), (0, -time % chunks), (0, 0)))
    targets_BT = jnp.pad(targets_BT, ((0, 0), (0, -time % chunks)), constant_values=-1)
    return tuple(part[:, :time] for part in _pieces(x_BTD, head_DV, targets_BT, scale, softcap, chunks))  # type: ignore


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _pieces(x_BTD, head_DV, targets_BT, scale, softcap, chunks):  # type: ignore[no-untyped-def]
    return _pieces_forward(x_BTD, head_DV, targets_BT, scale, softcap, chunks)[0]


def _cut(x_BT, chunks):  # type: ignore[no-untyped-def]
    """[B, T, ...] -> [chunks, B, C, ...]: every `chunks`-th position, so that a part of the time axis on each device
    gives its share of every chunk."""
    batch, time, *rest = x_BT.shape
    return jnp.moveaxis(x_BT.reshape(batch, time // chunks, chunks, *rest), 2, 0)


def _join(x, chunks):  # type: ignore[no-untyped-def]
    x = jnp.moveaxis(x, 0, 2)
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def _pieces_forward(x_BTD, head_DV, targets_BT, scale, softcap, chunks):  # type: ignore[no-untyped-def]
    def body(_, piece):  # type: ignore[no-untyped-def]
        x_BCD, targets_BC = piece
        logits_NV = _logits(x_BCD.reshape(-1, x_BCD.shape[-1]), head_DV, scale, softcap)
        (nats, log_z), log_z_N = _score(logits_NV, targets_BC.reshape(-1))
        return None, tuple(a.reshape(targets_BC.shape) for a in (nats, log_z, log_z_N))

    _, (nats, log_z, all_log_z) = jax.lax.scan(body, None, (_cut(x_BTD, chunks), _cut(targets_BT, chunks)))
    return (_join(nats, chunks), _join(log_z, chunks)), (x_BTD, head_DV, targets_BT, all_log_z)


def _pieces_backward(scale, softcap, chunks, saved, given):  # type: ignore[no-untyped-def]
    x_BTD, head_DV, targets_BT, all_log_z = saved

    def body(d_head_DV, piece):  # type: ignore[no-untyped-def]
        x_BCD, targets_BC, log_z_BC, *d = piece
        x_ND = x_BCD.reshape(-1, x_BCD.shape[-1])
        logits_NV = _logits(x_ND, head_DV, scale, softcap)
        flat = [a.reshape(-1) for a in (log_z_BC, targets_BC, *d)]
        d_NV = _d_logits(logits_NV, *flat, scale, softcap).astype(x_ND.dtype)
        d_head_DV += jnp.matmul(x_ND.T, d_NV, preferred_element_type=d_head_DV.dtype)
        return d_head_DV, (d_NV @ head_DV.T).reshape(x_BCD.shape)

    pieces = (_cut(x_BTD, chunks), _cut(targets_BT, chunks), all_log_z, *[_cut(d, chunks) for d in given])
    d_head_DV, d_x = jax.lax.scan(body, jnp.zeros(head_DV.shape, _exact(x_BTD)), pieces)
    return _join(d_x, chunks), d_head_DV.astype(head_DV.dtype), None


_pieces.defvjp(_pieces_forward, _pieces_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _piece(
    x_ND: jax.Array, head_DV: jax.Array, targets_N: jax.Array, scale: float, softcap: float | None
) -> tuple[jax.Array, jax.Array]:
    return _piece_forward(x_ND, head_DV, targets_N, scale, softcap)[0]


def _logits(x_ND: jax.Array, head_DV: jax.Array, scale: float, softcap: float | None) -> jax.Array:
    logits_NV = scale * jnp.matmul(x_ND, head_DV, preferred_element_type=_exact(x_ND))
    return logits_NV if softcap is None else softcap * jnp.tanh(logits_NV / softcap)


def _exact(x: jax.Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _score(logits_NV: jax.Array, targets_N: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    log_z_N = jax.nn.logsumexp(logits_NV, axis=-1)
    scored = targets_N >= 0
    target_N = jnp.take_along_axis(logits_NV, jnp.maximum(targets_N, 0)[:, None], axis=1)[:, 0]
    return (jnp.where(scored, log_z_N - target_N, 0), jnp.where(scored, log_z_N, 0)), log_z_N


def _piece_forward(x_ND, head_DV, targets_N, scale, softcap):  # type: ignore[no-untyped-def]
    logits_NV = _logits(x_ND, head_DV, scale, softcap)
    out, log_z_N = _score(logits_NV, targets_N)
    return out, (x_ND, head_DV, targets_N, logits_NV, log_z_N)


def _d_logits(logits_NV, log_z_N, targets_N, d_nats_N, d_log_z_N, scale, softcap):  # type: ignore[no-untyped-def]
    scored = targets_N >= 0
    d_nats_N, d_log_z_N = jnp.where(scored, d_nats_N, 0), jnp.where(scored, d_log_z_N, 0)
    onehot = jnp.arange(logits_NV.shape[1])[None, :] == targets_N[:, None]
    d = jnp.exp(logits_NV - log_z_N[:, None]) * (d_nats_N + d_log_z_N)[:, None] - jnp.where(
        onehot, d_nats_N[:, None], 0
    )
    if softcap is not None:
        d = d * (1 - (logits_NV / softcap) ** 2)
    return scale * d


def _piece_backward(scale, softcap, saved, given):  # type: ignore[no-untyped-def]
    x_ND, head_DV, targets_N, logits_NV, log_z_N = saved
    d_NV = _d_logits(logits_NV, log_z_N, targets_N, *given, scale, softcap).astype(x_ND.dtype)
    return d_NV @ head_DV.T, x_ND.T @ d_NV, None


_piece.defvjp(_piece_forward, _piece_backward)
