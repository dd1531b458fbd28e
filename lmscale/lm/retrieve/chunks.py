"""Documents cut into chunks of at most so many tokens, each with the bytes of its document that it stands for.

A chunk begins and ends with a whole character. Letters: T tokens of a document, C chunks.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from lmscale.core.config import check
from lmscale.lm.data.tokenizer import Tokenizer
from lmscale.lm.eval.batching import Ids


class ByteSpan(NamedTuple):
    """Where the text of a chunk stands: bytes `start` to `stop`, without `stop`, of a document of a split."""

    document: int
    start: int
    stop: int


class Chunk(NamedTuple):
    """A part of a document."""

    span: ByteSpan
    text: bytes
    tokens: Ids


def check_chunk_tokens(chunk_tokens: int, context: int) -> None:
    """Raise `UserError` for chunks that a model cannot read after the end of a document."""
    check(
        1 <= chunk_tokens < context,
        f"chunks of {chunk_tokens:,} tokens: a model with a context of {context:,} reads 1 to {context - 1:,} after "
        f"the token that begins a document; take a number in between",
    )


def chunks(documents: Iterable[tuple[int, bytes]], tokenizer: Tokenizer, most: int) -> Iterator[Chunk]:
    """The chunks of numbered documents, in order; those of nothing but white space are left out."""
    for number, text in documents:
        tokens_T = np.asarray(tokenizer.encode_documents([text])[0][:-1], np.int32)  # without the document's end
        for first, last, start, stop in cuts(text, tokens_T, tokenizer, most):
            if text[start:stop].strip():
                yield Chunk(ByteSpan(number, start, stop), text[start:stop], tokens_T[first:last])


def cuts(text: bytes, tokens_T: Ids, tokenizer: Tokenizer, most: int) -> Iterator[tuple[int, int, int, int]]:
    """(first token, last, first byte, last) of every chunk, without the last ones."""
    end_T = np.cumsum(tokenizer.byte_lengths[tokens_T])
    start_T = np.append(0, end_T)
    content = np.frombuffer(text + b" ", np.uint8)
    whole_T = (content[start_T] & 0xC0) != 0x80  # UTF-8 continues a character with 10xxxxxx
    first = 0
    while first < len(tokens_T):
        last = min(first + most, len(tokens_T))
        while last > first + 1 and not whole_T[last]:
            last -= 1
        yield first, last, int(start_T[first]), int(start_T[last])
        first = last
