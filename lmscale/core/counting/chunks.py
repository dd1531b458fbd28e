"""The number of chunks into which attention on a CPU and the loss are cut, for the model and its memory estimate."""

import math

SHORTEST_CHUNK, MOST_CHUNKS = 64, 8
"""Queries of an attention chunk, chunks of a sequence. Short chunks waste less on scores above the diagonal; below 64
queries, or beyond 8 chunks, smaller matrix products and longer compilation cost more than that (lengths 64 to 2048
timed)."""
LOGITS_BYTES = 512 * 2**20
"""Float32 logits that a device holds at once where the loss chooses its chunks. Small beside an accelerator's memory,
and still thousands of rows of a matrix product, more than enough to keep it busy."""


def attention_chunks(length: int) -> int:
    """Chunks of queries, of equal size up to rounding, into which attention on a CPU cuts a sequence."""
    return min(MOST_CHUNKS, max(1, length // SHORTEST_CHUNK))


def loss_chunks(logits_bytes: float) -> int:
    """The fewest chunks with at most `LOGITS_BYTES` of logits each, on a device that needs `logits_bytes` in all."""
    return math.ceil(logits_bytes / LOGITS_BYTES)


def peak_logits_bytes(logits_bytes: int, devices: int) -> int:
    """Bytes of logits held at once on all devices together, of `logits_bytes` in the whole batch."""
    return min(logits_bytes, devices * LOGITS_BYTES)
