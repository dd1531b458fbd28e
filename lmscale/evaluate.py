"""Validation loss on a fixed set of windows, with its standard error."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from lmscale.config import RunConfig
from lmscale.data import ValidationSet
from lmscale.model import Params, token_losses
from lmscale.sharding import batch_sharding
from lmscale.tokenizer import bits_per_byte

TOKENS_PER_BATCH = 16_384
"""Enough to fill a device; the result does not depend on it."""


@dataclass(frozen=True)
class Validation:
    """Cross-entropy over the fixed validation windows."""

    loss_nats: float
    """Mean over tokens, natural log."""
    stderr: float | None
    """Standard error of the mean over windows, the unit that is drawn independently; None for a single one."""
    bits_per_byte: float
    """All nats, document ends included, over ln 2 times the bytes of text scored."""
    tokens: int


def make_validation(
    config: RunConfig, mesh: Mesh, windows: ValidationSet, like: Params
) -> Callable[[Params], Validation]:
    """A function from parameters to the loss on all of `windows`, compiled here for parameters placed as `like`."""
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    batch = rows * math.ceil(min(len(windows.windows), max(1, TOKENS_PER_BATCH // config.model.context)) / rows)
    sharding = batch_sharding(mesh)
    example = jax.ShapeDtypeStruct((batch, windows.windows.shape[1]), windows.windows.dtype, sharding=sharding)
    window_means = (
        jax.jit(lambda params, tokens_BS: token_losses(params, tokens_BS, config.model).mean(axis=1))
        .lower(like, example)
        .compile()
    )

    def validate(params: Params) -> Validation:
        means = [
            np.asarray(window_means(params, jax.device_put(_padded(part, batch), sharding)))[: len(part)]
            for part in (windows.windows[start : start + batch] for start in range(0, len(windows.windows), batch))
        ]
        losses = np.concatenate(means).astype(np.float64)
        return Validation(
            loss_nats=float(losses.mean()),
            stderr=float(losses.std(ddof=1) / math.sqrt(len(losses))) if len(losses) > 1 else None,
            bits_per_byte=bits_per_byte(float(losses.mean()) * windows.tokens, windows.bytes),
            tokens=windows.tokens,
        )

    return validate


def _padded(part: np.ndarray, rows: int) -> np.ndarray:
    """`part` with its first row repeated up to `rows`: one compiled shape for every batch."""
    return part if len(part) == rows else np.concatenate([part, np.repeat(part[:1], rows - len(part), axis=0)])
