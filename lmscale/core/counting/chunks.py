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


def even_loss_chunks(length: int, logits_bytes: float) -> int:
    """Chunks of a sequence of `length` positions where a device would need `logits_bytes` for all: as few as
    `loss_chunks`, or the next number below twice as many that divides the length."""
    fewest = min(length, loss_chunks(logits_bytes))
    return next((chunks for chunks in range(fewest, 2 * fewest) if length % chunks == 0), fewest)


def peak_logits_bytes(position_bytes: int, length: int, devices: int) -> int:
    """Bytes of logits held at once on all devices together, where a position of all sequences has `position_bytes`."""
    return position_bytes * math.ceil(length / even_loss_chunks(length, position_bytes * length / devices))
