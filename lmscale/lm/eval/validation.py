"""Validation loss on a fixed set of windows, with its standard error and by position."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from lmscale.core.config import RunConfig
from lmscale.lm.data import ValidationSet
from lmscale.lm.data.tokenizer import bits_per_byte
from lmscale.lm.devices.collectives import make_global_array
from lmscale.lm.devices.sharding import batch_devices, batch_sharding, replicated
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.transformer import token_losses

TOKENS_PER_BATCH = 16_384
"""Enough to fill a device; the result does not depend on it."""


@dataclass(frozen=True)
class Validation:
    """Cross-entropy over the fixed validation windows."""

    loss_nats: float
    """Mean over tokens, natural log."""
    stderr: float | None
    """Standard error of the mean over windows, the unit that is drawn independently; None for a single one."""
    bits_per_byte: float | None
    """All nats, document ends included, over ln 2 times the bytes of text scored; None of pairs of answers, whose loss
    is one per pair."""
    tokens: int
    by_position: tuple[float, ...] | None
    """Mean nats of the tokens predicted from 1, 2 to 3, 4 to 7, ... tokens: element i from 2^i to 2^(i+1) - 1;
    None where only answers are scored."""
    reported: dict[str, float | None] = field(default_factory=dict)
    """What the objective reports besides, by name: means over the held-out pairs of answers; None
    where not finite."""


def make_validation(
    config: RunConfig, mesh: Mesh, windows: ValidationSet, like: Params
) -> Callable[[Params], Validation]:
    """A function from parameters to the loss on all of `windows`, compiled here for parameters placed as `like`."""
    batch = rows_at_once(len(windows.windows), config.model.context, mesh)
    sharding, shape = batch_sharding(mesh), (batch, windows.windows.shape[1])
    example = jax.ShapeDtypeStruct(shape, windows.windows.dtype, sharding=sharding)
    with jax.set_mesh(mesh):
        losses = window_losses(config, mesh).lower(like, example).compile()

    def batch_nats(params: Params, rows_WS: np.ndarray) -> np.ndarray:
        tokens = make_global_array(lambda start, stop: padded(rows_WS, batch)[start:stop], shape, sharding)
        return np.asarray(losses(params, tokens))[: len(rows_WS)]

    def validate(params: Params) -> Validation:
        starts = range(0, len(windows.windows), batch)
        batches = [batch_nats(params, windows.windows[start : start + batch]) for start in starts]
        nats_WT = np.concatenate(batches).astype(np.float64)
        if windows.scored is not None:
            return _of_answers(nats_WT, windows.scored, windows.bytes)
        means = nats_WT.mean(axis=1)
        return Validation(
            loss_nats=float(means.mean()),
            stderr=float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None,
            bits_per_byte=bits_per_byte(float(means.mean()) * windows.tokens, windows.bytes),
            tokens=windows.tokens,
            by_position=by_position(nats_WT),
        )

    return validate


def rows_at_once(rows: int, row_tokens: int, mesh: Mesh) -> int:
    """How many of `rows` rows are scored at once: `TOKENS_PER_BATCH` tokens of them, as many on every device."""
    devices = batch_devices(mesh)
    return devices * math.ceil(min(rows, max(1, TOKENS_PER_BATCH // row_tokens)) / devices)


def window_losses(config: RunConfig, mesh: Mesh) -> jax.stages.Wrapped:
    """The function from parameters and windows [B, S] to the nats of every token [B, S - 1]; lower it under
    `jax.set_mesh(mesh)`."""
    return jax.jit(
        lambda params, tokens_BS: token_losses(params, tokens_BS, config.model)[0], out_shardings=replicated(mesh)
    )


def _of_answers(nats_WT: NDArray[np.float64], scored_WT: NDArray[np.bool_], text_bytes: int) -> Validation:
    """The mean over scored tokens, a ratio of two sums over windows, with its linearised standard error
    (Cochran 1977, equation 6.13)."""
    nats_W, tokens_W = np.where(scored_WT, nats_WT, 0).sum(axis=1), scored_WT.sum(axis=1)
    windows, tokens = len(nats_W), int(tokens_W.sum())
    loss = float(nats_W.sum() / tokens)
    spread = math.sqrt(windows / (windows - 1) * ((nats_W - loss * tokens_W) ** 2).sum()) if windows > 1 else None
    return Validation(
        loss_nats=loss,
        stderr=None if spread is None else spread / tokens,
        bits_per_byte=bits_per_byte(float(nats_W.sum()), text_bytes),
        tokens=tokens,
        by_position=None,
    )


def by_position(nats_WT: NDArray[np.float64]) -> tuple[float, ...]:
    """Mean over windows and over positions 2^i to 2^(i+1) - 1, counted from 1; the last piece ends with the window."""
    ends = [2**i for i in range(nats_WT.shape[1].bit_length())] + [nats_WT.shape[1] + 1]
    return tuple(float(nats_WT[:, start - 1 : end - 1].mean()) for start, end in pairwise(ends))


def padded(part: NDArray[Any], rows: int) -> NDArray[Any]:
    """`part` with its first row repeated up to `rows`: one compiled shape for every batch."""
    return part if len(part) == rows else np.concatenate([part, np.repeat(part[:1], rows - len(part), axis=0)])
