"""A loss at one size of a datastore, with what retrieval cost, and windows of text read document after document."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.lm.data.tokenizer import Tokenizer

Floats = NDArray[np.float64]
DOCUMENTS_AT_ONCE = 64
"""Tokenized together."""
SPREAD = 64
"""Windows that are read for each that is evaluated."""


@dataclass(frozen=True)
class LossAtSize:
    """The loss with a datastore."""

    size: int
    """In tokens, as in `Grown`."""
    datastore_tokens: int
    """What the datastore holds."""
    nats_U: Floats
    """Mean nats per token of every unit: windows, or documents."""
    datastore_flops: int
    """Spent once: the datastore was read by the model."""
    retrieval_flops: float
    """Spent for every scored token, beside what the model spends without retrieval."""
    details: dict[str, Any] = field(default_factory=dict)
    """What else was chosen or measured."""

    @property
    def loss_nats(self) -> float:
        """Mean over units."""
        return float(self.nats_U.mean())

    @property
    def stderr(self) -> float | None:
        """Standard error of that mean; None of a single unit."""
        units = len(self.nats_U)
        return float(self.nats_U.std(ddof=1) / np.sqrt(units)) if units > 1 else None


class WindowStream:
    """Documents joined as in training, each closed by its end, in windows of context + 1 tokens that start every
    context tokens."""

    def __init__(self, documents: Iterable[bytes], tokenizer: Tokenizer, context: int) -> None:
        self._documents, self._tokenizer, self._context = iter(documents), tokenizer, context
        self._row, self._start = np.zeros(0, np.int32), 0

    def take(self, most: int) -> NDArray[np.int32]:
        """The next windows [n, context + 1], n at most `most`; fewer only at the end of the text."""
        context = self._context
        while len(self._row) - self._start < most * context + 1 and (texts := self._next_texts()):
            tokens = self._tokenizer.encode_documents(texts)[0].astype(np.int32)
            self._row, self._start = np.concatenate([self._row[self._start :], tokens]), 0
        count = min(most, max(0, len(self._row) - self._start - 1) // context)
        if not count:
            return np.zeros((0, context + 1), np.int32)
        first, self._start = self._start, self._start + count * context
        row = self._row[first : self._start + 1]
        return np.lib.stride_tricks.sliding_window_view(row, context + 1)[::context].copy()

    def spread(self, most: int) -> NDArray[np.int32]:
        """At most so many windows, as far apart from each other as the next `SPREAD` times as many allow: neighbours
        are of one document, whose likeness to the datastore would decide the loss."""
        windows_WS = self.take(SPREAD * most)
        chosen_W = np.linspace(0, len(windows_WS) - 1, min(most, len(windows_WS))).round().astype(np.int64)
        return windows_WS[chosen_W]

    def _next_texts(self) -> list[bytes]:
        return list(itertools.islice(self._documents, DOCUMENTS_AT_ONCE))


class Recorded:
    """An iterator over documents that remembers those that were read."""

    def __init__(self, documents: Iterable[bytes]) -> None:
        self._documents = iter(documents)
        self.read: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        document = next(self._documents)
        self.read.append(document)
        return document


def batches_of(count: int, size: int) -> list[NDArray[np.int64]]:
    """The numbers 0 to `count` - 1 in batches of one size, which the last repeats its last number to fill."""
    if not count:
        return []
    padded = np.minimum(np.arange(-(-count // size) * size), count - 1)
    return list(padded.reshape(-1, size))
