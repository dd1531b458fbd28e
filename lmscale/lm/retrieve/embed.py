"""Texts as vectors: the residual stream after one layer, averaged over a text or at its last token, of length 1.

A text is read as in training, after the end of a document, which itself is not averaged. Letters as in `transformer`;
N texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, check
from lmscale.core.counting import flops_per_token_forward
from lmscale.lm.devices.sharding import batch_devices, batch_sharding
from lmscale.lm.eval.batching import Ids, padded_length
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.model import transformer
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.tap import Tap

Vectors = NDArray[np.float32]
Pooling = Literal["mean", "last"]
POOLINGS: tuple[Pooling, ...] = ("mean", "last")
SITE = "residual_post"
TOKENS_PER_CALL = 16_384
"""Read together: enough to fill a device."""


@dataclass(frozen=True)
class Embedding:
    """Which values of a model stand for a text."""

    layer: int
    pooling: Pooling = "mean"


def embedding_of(config: ModelConfig, layer: int | None = None, pooling: str = "mean") -> Embedding:
    """The embedding by a layer, counted from 0; None is the middle one. Raises `UserError` for what does not exist."""
    last = config.layers - 1
    layer = config.layers // 2 if layer is None else layer
    check(0 <= layer <= last, f"layer {layer}: this model has the layers 0 to {last}")
    matching = [one for one in POOLINGS if one == pooling]
    check(bool(matching), f"pooling {pooling!r}: take mean, of all tokens of a text, or last, its last token")
    return Embedding(layer, matching[0])


class PooledBatch(NamedTuple):
    """Texts that are read together, padded at the right and below."""

    tokens_BT: NDArray[np.int32]
    weight_BT: NDArray[np.float32]
    """Share of every position in the vector of its text."""
    rows: NDArray[np.int64]
    """Which texts they are."""


class Embedder:
    """A model that turns texts into vectors, and counts what that costs."""

    def __init__(self, subject: Subject, embedding: Embedding) -> None:
        self.subject, self.embedding = subject, embedding
        self.tokens = 0
        """Tokens read so far."""

    @property
    def dimension(self) -> int:
        """Numbers of a vector."""
        return self.subject.config.model.width

    def __call__(self, texts: Sequence[Ids]) -> Vectors:
        """[N, D] of texts shorter than the context. Raises `UserError` for a model whose values are not finite."""
        vectors_ND = np.zeros((len(texts), self.dimension), np.float32)
        model, params, mesh = self.subject.config.model, self.subject.params, self.subject.mesh
        with jax.set_mesh(mesh):
            for batch in self._batches(texts):
                placed = [jax.device_put(array, batch_sharding(mesh)) for array in (batch.tokens_BT, batch.weight_BT)]
                pooled = pooled_vectors(params, *placed, config=model, layer=self.embedding.layer)
                vectors_ND[batch.rows] = np.asarray(pooled)[: len(batch.rows)]
        check(
            bool(np.isfinite(vectors_ND).all()),
            "the model's activations are not finite, so nothing can be compared by them; take an earlier checkpoint",
        )
        self.tokens += sum(len(text) + 1 for text in texts)
        return vectors_ND

    def flops_per_token(self, length: int) -> int:
        """What reading a token of texts of so many costs."""
        return reading_flops_per_token(self.subject.config.model, length)

    def _batches(self, texts: Sequence[Ids]) -> Iterator[PooledBatch]:
        """Texts of one padded length together, in few shapes."""
        context, devices = self.subject.config.model.context, batch_devices()
        size_N = np.array([min(context, padded_length(len(text) + 1)) for text in texts], np.int64)
        for size in np.unique(size_N).tolist():
            of_size = np.flatnonzero(size_N == size)
            most = devices * max(1, TOKENS_PER_CALL // (size * devices))
            few = devices * 2 ** max(0, -(-len(of_size) // devices) - 1).bit_length()
            step = min(most, few)
            for start in range(0, len(of_size), step):
                yield self._batch(texts, of_size[start : start + step], step, size)

    def _batch(self, texts: Sequence[Ids], chosen: NDArray[np.int64], rows: int, size: int) -> PooledBatch:
        tokens_BT = np.zeros((rows, size), np.int32)
        tokens_BT[:, 0] = self.subject.tokenizer.end_of_document
        weight_BT = np.zeros((rows, size), np.float32)
        for row, number in enumerate(chosen.tolist()):
            text = texts[number]
            assert 0 < len(text) < size, "an empty text, or one as long as the context"
            tokens_BT[row, 1 : len(text) + 1] = text
            if self.embedding.pooling == "mean":
                weight_BT[row, 1 : len(text) + 1] = 1 / len(text)
            else:
                weight_BT[row, len(text)] = 1
        return PooledBatch(tokens_BT, weight_BT, chosen)


@partial(jax.jit, static_argnames=("config", "layer"))
def pooled_vectors(
    params: Params, tokens_BT: jax.Array, weight_BT: jax.Array, *, config: ModelConfig, layer: int
) -> jax.Array:
    """[B, D]: the weighted mean over positions of the residual stream after a layer, scaled to length 1."""

    def pool(site: str, residual_BTD: jax.Array, _: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        return residual_BTD, jnp.einsum("btd,bt->bd", residual_BTD.astype(jnp.float32), weight_BT)

    pooled_BD = transformer.final_residual(params, tokens_BT, config, None, Tap((SITE,), pool))[2][SITE][layer]
    length_B1 = jnp.sqrt(jnp.sum(pooled_BD**2, axis=-1, keepdims=True))
    return pooled_BD / jnp.maximum(length_B1, jnp.finfo(jnp.float32).tiny)


def reading_flops_per_token(model: ModelConfig, context: int) -> int:
    """Forward FLOPs of a token of a text of `context` tokens without the head, whose logits nobody needs."""
    head = model.width * (1 if model.scalar_head else model.vocab)
    return flops_per_token_forward(replace(model, context=max(1, context))) - 2 * head
