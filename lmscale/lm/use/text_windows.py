"""The rule by which a text longer than the context is read: windows that overlap by half, each token scored once.

The stream of a document is the end of a document (the one before it, as in training), its tokens and, where that is
scored, its own end. A window reads up to `context` tokens of it and predicts the token after each. The first window
begins with the stream, each further one `stride` = context // 2 tokens later, and of its predictions those count that
no earlier window made. So every token is predicted from all tokens before it or from more than half a context, and
from the same tokens whatever follows.

Letters: D documents, W windows, B windows read together, T tokens predicted in a window.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmscale.lm.eval.batching import padded_length

TOKENS_PER_CALL = 16_384
"""Read together: enough to fill a device."""
PADDING = -1
"""Read as no token by `transformer.token_losses`."""
Integers = NDArray[np.int64]


class Windows(NamedTuple):
    """Windows over the streams of documents that lie one after the other."""

    start_W: Integers
    """The first token that is read, counted over the streams."""
    length_W: Integers
    """Tokens that the window predicts."""
    counted_from_W: Integers
    """The first of its predictions that counts: an earlier window made those before it."""
    target_W: Integers
    """The first token that it predicts, counted over the scored tokens."""


def text_windows(tokens_D: Integers, context: int) -> Windows:
    """The windows over documents of so many scored tokens each."""
    stride = max(1, context // 2)
    further_D = -(-np.maximum(0, tokens_D - context) // stride)
    windows_D = further_D + 1
    document_W = np.repeat(np.arange(len(tokens_D)), windows_D)
    number_W = np.arange(len(document_W)) - np.repeat(np.cumsum(windows_D) - windows_D, windows_D)
    target_W = (np.cumsum(tokens_D) - tokens_D)[document_W] + number_W * stride
    return Windows(
        start_W=target_W + document_W,  # every earlier stream has one token more than it has scored ones
        length_W=np.minimum(context, tokens_D[document_W] - number_W * stride),
        counted_from_W=np.where(number_W == 0, 0, context - stride),
        target_W=target_W,
    )


class Batch(NamedTuple):
    """Windows that are read together."""

    tokens_BS: NDArray[np.int32]
    """T + 1 tokens of every window, `PADDING` at the right and below."""
    counted_BT: NDArray[np.bool_]
    """Which of its predictions count."""
    target_N: Integers
    """The scored token of each prediction that counts, in their order."""


def batches(stream: NDArray[np.int32], windows: Windows, context: int, devices: int, most: int) -> Iterator[Batch]:
    """All windows, those of one padded length together: few shapes are compiled, and at most `most` rows are one batch.

    The rows of a batch are a power of two times `devices`.
    """
    lengths, kind_W = np.unique(windows.length_W, return_inverse=True)
    sizes_W = np.array([min(context, padded_length(length)) for length in lengths.tolist()])[kind_W]
    for size in np.unique(sizes_W).tolist():
        of_size = np.flatnonzero(sizes_W == size)
        step = rows_of(max(1, min(most, TOKENS_PER_CALL // size)) // 2 + 1, devices)
        for start in range(0, len(of_size), step):
            yield _batch(stream, windows, of_size[start : start + step], size, devices)


def rows_of(count: int, devices: int) -> int:
    """At least `count`, a power of two times `devices`: few shapes."""
    return devices * 2 ** max(0, -(-count // devices) - 1).bit_length()


def _batch(stream: NDArray[np.int32], windows: Windows, chosen: Integers, size: int, devices: int) -> Batch:
    start_B, length_B, counted_from_B, target_B = (array[chosen][:, None] for array in windows)
    index_S = np.arange(size + 1)
    read_BS = np.minimum(start_B + index_S, len(stream) - 1)
    rows = rows_of(len(chosen), devices)
    tokens_BS = np.full((rows, size + 1), PADDING, np.int32)
    tokens_BS[: len(chosen)] = np.where(index_S <= length_B, stream[read_BS], PADDING)
    counted_BT = np.zeros((rows, size), np.bool_)
    counted_BT[: len(chosen)] = (index_S[:-1] >= counted_from_B) & (index_S[:-1] < length_B)
    return Batch(tokens_BS, counted_BT, (target_B + index_S[:-1])[counted_BT[: len(chosen)]])
