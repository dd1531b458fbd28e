"""The shards of an index: stretches of documents, each embedded once and kept, so that a broken-off call goes on.

00000.faiss     the vectors of its chunks, a flat FAISS index
00000.npy       int64 [chunks, 4]: document, first byte, last byte (not included), tokens
00000.jsonl     the summaries that were embedded instead of the chunks, where that was asked for
00000.json      how many chunks and tokens, and a checksum of each file: written last, so that a shard is
                whole or not there
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError
from lmscale.core.files import atomic_write, read_bytes
from lmscale.lm.data.corpora.checksums import checksum, read_record, write_record
from lmscale.lm.data.tokenizer import Tokenizer
from lmscale.lm.eval.batching import Ids
from lmscale.lm.retrieve.chunks import Chunk, chunks
from lmscale.lm.retrieve.embed import Embedder, Vectors
from lmscale.lm.retrieve.libraries import load_faiss
from lmscale.lm.retrieve.text import CorpusSplit

SHARD_BYTES = 1 << 20
"""Text of a shard: what is lost when a call is broken off, and what is in memory at once."""
ENDINGS = (".faiss", ".npy", ".jsonl")

Summarise = Callable[[Sequence[Chunk]], list[str]]
"""Chunks -> a summary of each; empty where the model writes none."""


@dataclass(frozen=True)
class Shard:
    """What one shard holds."""

    chunks: int
    tokens: int
    """Tokens in its chunks."""
    documents: int
    flops: int
    """FLOPs of embedding, and of writing summaries."""
    without_summary: int
    """Chunks that were embedded themselves, since the model wrote nothing about them."""
    checksums: dict[str, str]
    """Ending of a file -> its checksum."""


def stretches(text: CorpusSplit) -> list[tuple[int, int]]:
    """First document and last, not included, of every shard: they depend on the corpus alone."""
    documents, size = text.corpus.documents(text.split), text.corpus.text_bytes(text.split)
    step = max(1, SHARD_BYTES * documents // max(1, size))
    return [(start, min(documents, start + step)) for start in range(0, documents, step)]


def read_chunks(text: CorpusSplit, start: int, stop: int, tokenizer: Tokenizer, most: int) -> list[Chunk]:
    """The chunks of the documents `start` to `stop` - 1."""
    return list(chunks(enumerate(text.documents(start, stop), start), tokenizer, most))


def write_shard(
    folder: Path, number: int, parts: Sequence[Chunk], documents: int, embedder: Embedder, summarise: Summarise | None,
    summary_flops: Callable[[], int] = lambda: 0,
) -> Shard:  # fmt: skip
    """Embed some chunks and write them as shard `number`."""
    read_before, written_before = embedder.tokens, summary_flops()
    summaries = None if summarise is None else summarise(parts)
    vectors_ND = embedder(_embedded(parts, summaries, embedder))
    read = embedder.tokens - read_before
    shard = Shard(
        chunks=len(parts),
        tokens=sum(len(part.tokens) for part in parts),
        documents=documents,
        flops=read * embedder.flops_per_token(read // max(1, len(parts))) + summary_flops() - written_before,
        without_summary=sum(not summary for summary in summaries or []),
        checksums=_write_files(folder, number, parts, summaries, vectors_ND, embedder.dimension),
    )
    write_record(_record(folder, number), asdict(shard))
    return shard


def _embedded(parts: Sequence[Chunk], summaries: list[str] | None, embedder: Embedder) -> list[Ids]:
    """What is embedded: the chunks, or where there are some their summaries, as far as a context holds."""
    if summaries is None:
        return [part.tokens for part in parts]
    tokenizer, most = embedder.subject.tokenizer, embedder.subject.config.model.context - 1
    encoded = [np.asarray(tokenizer.encode(summary), np.int32)[:most] for summary in summaries]
    return [summary if len(summary) else part.tokens for summary, part in zip(encoded, parts)]


def _write_files(
    folder: Path, number: int, parts: Sequence[Chunk], summaries: list[str] | None, vectors_ND: Vectors, dimension: int
) -> dict[str, str]:
    """Write vectors, rows and summaries; the checksum of each file."""
    paths = {ending: folder / f"{number:05}{ending}" for ending in ENDINGS}
    _write_vectors(paths[".faiss"], vectors_ND, dimension)
    with atomic_write(paths[".npy"], "wb") as file:
        rows = [(*part.span, len(part.tokens)) for part in parts]
        np.save(file, np.array(rows, np.int64).reshape(-1, 4))
    if summaries is None:
        del paths[".jsonl"]
    else:
        with atomic_write(paths[".jsonl"]) as file:
            file.writelines(json.dumps(summary) + "\n" for summary in summaries)
    return {ending: checksum(path) for ending, path in paths.items()}


def _write_vectors(path: Path, vectors_ND: Vectors, dimension: int) -> None:
    faiss = load_faiss()
    flat = faiss.IndexFlatIP(dimension)
    if len(vectors_ND):
        flat.add(vectors_ND)
    with atomic_write(path, "wb") as file:
        file.write(faiss.serialize_index(flat))


def _record(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.json"


def find_shard(folder: Path, number: int) -> Shard | None:
    """Shard `number`; None unless it is there and every file is as it was written."""
    try:
        shard = Shard(**read_record(_record(folder, number)))
        for ending, expected in shard.checksums.items():
            if checksum(folder / f"{number:05}{ending}") != expected:
                return None
        return shard
    except (OSError, ValueError, TypeError):  # absent, damaged or of another version: made again
        return None


def open_vectors(folder: Path, number: int) -> Any:
    """The flat index of a shard. Raises `UserError` where it cannot be read."""
    path = folder / f"{number:05}.faiss"
    try:
        return load_faiss().deserialize_index(np.frombuffer(read_bytes(path), np.uint8))
    except (OSError, RuntimeError, AssertionError, ValueError):
        raise damaged(path) from None


def open_rows(folder: Path, number: int) -> NDArray[np.int64]:
    """[chunks, 4] of a shard, mapped. Raises `UserError` where it cannot be read."""
    path = folder / f"{number:05}.npy"
    try:
        rows: NDArray[np.int64] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        raise damaged(path) from None
    return rows


def damaged(path: Path) -> UserError:
    """The sentence for a file of an index that is not as it was written."""
    return UserError(f"{path} is not as it was written; the same call of `lmscale index` makes it again")
