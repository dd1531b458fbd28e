"""The loss of held-out text with a retrieved passage in the context (Ram 2023, arXiv 2302.00083), by datastore size.

The last tokens before a segment are the query, the nearest chunk is put before the text, and the segment is scored. A
passage takes room: the text loses as much of its beginning where both do not fit into the context, and a datastore of 0
tokens leaves all of it to the text. So the loss falls only where a passage is worth more than what it displaces. As a
control every segment is also read with the passage of another one (`exchanged_nats`).

Letters: D documents, I segments, B rows of a batch, S tokens of a row.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, check
from lmscale.core.counting import flops_per_token_forward
from lmscale.lm.data.document_windows import PADDING
from lmscale.lm.devices.sharding import batch_devices, batch_sharding
from lmscale.lm.eval.batching import Ids
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.transformer import token_losses
from lmscale.lm.retrieve.chunks import Chunk, chunks
from lmscale.lm.retrieve.embed import TOKENS_PER_CALL, Embedder, embedding_of
from lmscale.lm.retrieve.losses import Floats, LossAtSize, Recorded, batches_of
from lmscale.lm.retrieve.nearest import NOBODY, Nearest
from lmscale.lm.retrieve.text import Datastore, RetrievalCorpus, grow, sizes_of

SHARE = 4
"""A passage, a query and a segment have a quarter of the context each, so that as much is left to the text."""
DOCUMENTS, SEGMENTS = 64, 4
"""Held-out documents where nobody says how many, and the most segments of each."""
BLOCK_CHUNKS = 1024
"""Chunks of the datastore that are in memory at once."""
SEPARATOR = "\n\n"
"""Between passage and text. The end of a document would hide the passage from a model that reads documents apart."""
LEAST_CONTEXT = 16


class Segment(NamedTuple):
    """Tokens that are scored, and all of their document before them."""

    document: int
    before: Ids
    """Without the end of the document before."""
    tokens: Ids


class PassageMeasurement:
    """The loss against the size of the datastore, and what was left out of that."""

    def __init__(self, subject: Subject, corpus: RetrievalCorpus, documents: int | None = None) -> None:
        """Raises `UserError` for a context that is too short, and where no held-out document is long enough."""
        model = subject.config.model
        check(
            model.context >= LEAST_CONTEXT,
            f"a context of {model.context} tokens has no room for a passage, a query and a text; take at least "
            f"{LEAST_CONTEXT}",
        )
        self.part = model.context // SHARE
        self._subject, self._embedder = subject, Embedder(subject, embedding_of(model))
        held_out = Recorded(corpus.held_out.documents())
        self._segments = segments(held_out, subject, self.part, documents or DOCUMENTS)
        check(
            len({segment.document for segment in self._segments}) > 1,
            f"{corpus.held_out.corpus.source} holds out fewer than two documents of {2 * self.part:,} tokens, a "
            f"query and a segment of {self.part:,} each; take a model with a shorter context or longer documents",
        )
        self.datastore = Datastore(corpus.datastore, held_out.read)
        self._separator = np.asarray(subject.tokenizer.encode(SEPARATOR), np.int32)

    def losses(self, sizes: Sequence[int] = ()) -> Iterator[LossAtSize]:
        """The loss at every size, ascending; where the text ends before one, with all of it, and then no more."""
        queries = self._embedder([segment.before[-self.part :] for segment in self._segments])
        nearest, store = Nearest(queries, 1, "inner product"), _Winners()
        stream = ChunkStream(chunks(self.datastore.documents(), self._subject.tokenizer, self.part))

        def add(most: int) -> int | None:
            block = stream.take(most)
            if block:
                vectors = self._embedder([chunk.tokens for chunk in block])
                nearest.add(vectors, np.arange(nearest.added, nearest.added + len(block)))
                store.update(block, nearest.neighbours().labels_Qk[:, 0])
            return None if block is None else sum(len(chunk.tokens) for chunk in block)

        per_token = self._embedder.flops_per_token(self.part + 1)
        for size, tokens in grow(add, sizes_of(sizes)):
            passages = store.passages(nearest.neighbours().labels_Qk[:, 0]) if tokens else None
            nats_D, cut = self._scored(passages)
            flops = self._flops_per_token(nearest.flops_per_query) if tokens else 0.0
            details: dict[str, float] = {"segments_cut": cut, "chunks": nearest.added}
            if passages is not None:
                half = len(passages) // 2
                details["exchanged_nats"] = float(self._scored(passages[half:] + passages[:half])[0].mean())
            yield LossAtSize(size, tokens, nats_D, tokens * per_token, flops, details)

    def _flops_per_token(self, search_flops: int) -> float:
        """Embedding the query, the search and reading the passage, over the tokens of a segment."""
        model = self._subject.config.model
        read = self.part * self._embedder.flops_per_token(self.part + 1)
        return (read + search_flops + self.part * flops_per_token_forward(model)) / self.part

    def _scored(self, passages: list[Ids] | None) -> tuple[Floats, int]:
        """Mean nats of every document, and how many segments lost a part of the text before them."""
        end, context = self._subject.tokenizer.end_of_document, self._subject.config.model.context
        rows = [
            row_of(segment, None if passages is None else passages[i], self._separator, end, context)
            for i, segment in enumerate(self._segments)
        ]
        nats_I = segment_losses(self._subject, [tokens for tokens, _ in rows], self.part)
        documents, which = np.unique([segment.document for segment in self._segments], return_inverse=True)
        sums = np.bincount(which, nats_I, len(documents))
        return sums / np.bincount(which, minlength=len(documents)), sum(cut > 0 for _, cut in rows)


def segments(documents: Iterable[bytes], subject: Subject, length: int, most: int) -> list[Segment]:
    """Segments of up to `most` documents: behind the first `length` tokens, and behind every segment the next."""
    taken: list[Segment] = []
    number = 0
    for text in documents:
        tokens = np.asarray(subject.tokenizer.encode_documents([text])[0], np.int32)
        starts = range(length, len(tokens) - length + 1, length)[:SEGMENTS]
        taken += [Segment(number, tokens[:start], tokens[start : start + length]) for start in starts]
        number += bool(starts)
        if number == most:
            break
    return taken


def row_of(segment: Segment, passage: Ids | None, separator: Ids, end: int, context: int) -> tuple[Ids, int]:
    """What is read, at most context + 1 tokens that end with the segment, and how many tokens of the text were cut.

    It begins with the end of a document, as text does in training, unless it begins in the middle of the text.
    """
    if passage is None and len(segment.before) + len(segment.tokens) > context:
        whole = np.concatenate([segment.before, segment.tokens])
        return whole[-(context + 1) :], max(0, len(whole) - context - 1)
    retrieved = [] if passage is None else [passage, separator]
    room = context - len(segment.tokens) - sum(map(len, retrieved))
    cut = max(0, len(segment.before) - room)
    before = segment.before[cut:]
    start = [np.array([end], np.int32)]
    return np.concatenate([*start, *retrieved, before, segment.tokens]), cut


def segment_losses(subject: Subject, rows: Sequence[Ids], length: int) -> Floats:
    """Mean nats of the last `length` tokens of every row."""
    model, mesh = subject.config.model, subject.mesh
    tokens_IS = np.full((len(rows), model.context + 1), PADDING, np.int32)
    scored_IT = np.zeros((len(rows), model.context), np.bool_)
    for number, row in enumerate(rows):
        tokens_IS[number, : len(row)] = row
        scored_IT[number, len(row) - 1 - length : len(row) - 1] = True
    devices, nats_I = batch_devices(mesh), np.empty(len(rows))
    size = devices * max(1, TOKENS_PER_CALL // (model.context * devices))
    with jax.set_mesh(mesh):
        for batch in batches_of(len(rows), min(size, devices * -(-len(rows) // devices))):
            arrays = [jax.device_put(array[batch], batch_sharding(mesh)) for array in (tokens_IS, scored_IT)]
            nats_I[batch] = np.asarray(scored_losses(subject.params, *arrays, config=model)).sum(axis=1) / length
    return nats_I


@partial(jax.jit, static_argnames=("config",))
def scored_losses(params: Params, tokens_BS: jax.Array, scored_BT: jax.Array, *, config: ModelConfig) -> jax.Array:
    """[B, S - 1]: nats of the tokens that are scored, 0 of the others."""
    return token_losses(params, tokens_BS, config, scored_BT=scored_BT)[0]


class ChunkStream:
    """Chunks, taken by their tokens."""

    def __init__(self, stream: Iterable[Chunk]) -> None:
        self._stream = iter(stream)
        self._next: Chunk | None = next(self._stream, None)

    def take(self, most: int) -> list[Chunk] | None:
        """The next chunks, at most `BLOCK_CHUNKS` and so many tokens of them; None where there are no more."""
        if self._next is None:
            return None
        block: list[Chunk] = []
        while self._next is not None and len(block) < BLOCK_CHUNKS and len(self._next.tokens) <= most:
            block.append(self._next)
            most -= len(self._next.tokens)
            self._next = next(self._stream, None)
        return block


class _Winners:
    """The chunks that are the nearest of some query; all others are forgotten."""

    def __init__(self) -> None:
        self._added = 0
        self._tokens: dict[int, NDArray[np.int32]] = {}

    def update(self, block: Sequence[Chunk], labels_Q: NDArray[np.int64]) -> None:
        """Further chunks, and the numbers of the nearest among all."""
        fresh = {self._added + number: chunk.tokens for number, chunk in enumerate(block)}
        self._added += len(block)
        known = self._tokens | fresh
        self._tokens = {label: known[label] for label in set(labels_Q.tolist()) if label != NOBODY}

    def passages(self, labels_Q: NDArray[np.int64]) -> list[Ids]:
        """The nearest chunk of every query."""
        return [self._tokens[label] for label in labels_Q.tolist()]
