"""An index made: shard after shard of the corpus is embedded, while a thread reads and cuts the text of the next.

What a broken-off call has finished stays, and the same call goes on behind it. Several processes that make the same
call share the shards (`claims`).
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lmscale.core.config import DataConfig, check, from_json
from lmscale.core.errors import UserError
from lmscale.core.files import own_folder, write_json
from lmscale.lm.data.corpora import Progress, locked
from lmscale.lm.data.corpora.checksums import write_record
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.retrieve import shards
from lmscale.lm.retrieve.chunks import Chunk, check_chunk_tokens
from lmscale.lm.retrieve.claims import Claim, claims
from lmscale.lm.retrieve.embed import Embedder, Vectors, embedding_of
from lmscale.lm.retrieve.graph import GRAPH_FILE, GraphFacts, build_graph, has_memory, is_large, open_graph
from lmscale.lm.retrieve.index import (
    IDENTITY_FILE,
    INDEX_FILE,
    Identity,
    IndexFacts,
    differences,
    read_facts,
    read_identity,
)
from lmscale.lm.retrieve.libraries import load_faiss
from lmscale.lm.retrieve.shards import Shard, Summarise
from lmscale.lm.retrieve.text import CorpusSplit, IndexedCorpus

LOCK_FILE = ".lock"
POLL_SECONDS = 0.1
CHUNK_TOKENS = 64
"""Length of a chunk where none is given: that of RETRO (Borgeaud 2022, arXiv 2112.04426)."""


Search = Literal["auto", "exact", "hnsw"]


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """How an index is made."""

    layer: int | None = None
    """Counted from 0; None is the middle one."""
    pooling: str = "mean"
    chunk_tokens: int | None = None
    """None takes `CHUNK_TOKENS`, or what the context holds."""
    summary_tokens: int = 0
    """The most tokens of a summary that is embedded in place of each chunk; 0 embeds the chunks."""
    search: Search = "auto"
    """Exact, by a graph as well, or what was measured to be faster."""


@dataclass(frozen=True)
class Summariser:
    """A model that writes summaries (`lm.use.summaries`)."""

    write: Summarise
    flops: Callable[[], int]
    """What it has spent so far."""


@dataclass(frozen=True)
class BuiltIndex:
    """What there is."""

    facts: IndexFacts
    graph: GraphFacts | None
    reused: int
    """Shards that another call made, an earlier one or one at work at the same time."""
    search: Search = "exact"
    """What was asked for."""


def build_index(
    subject: Subject, step: int, indexed: IndexedCorpus, folder: Path, settings: IndexSettings,
    summariser: Summariser | None = None, progress: Progress = lambda what, share: None,
) -> BuiltIndex:  # fmt: skip
    """Make the index of a corpus in `folder`, or finish it.

    Raises `UserError` for a layer, a pooling or a length of chunks that the model does not have, for a folder with
    another index or other files, and for a corpus without text.
    """
    load_faiss()
    model = subject.config.model
    embedding = embedding_of(model, settings.layer, settings.pooling)
    chunk_tokens = settings.chunk_tokens
    if chunk_tokens is None:
        chunk_tokens = min(CHUNK_TOKENS, model.context - 1)
    check_chunk_tokens(chunk_tokens, model.context)
    identity = Identity(
        run_id=subject.config.run_id, step=step, tokenizer_fingerprint=subject.tokenizer.fingerprint,
        layer=embedding.layer, pooling=embedding.pooling, chunk_tokens=chunk_tokens,
        summary_tokens=settings.summary_tokens, data=_json(indexed.config), whole=indexed.whole,
        split=indexed.text.split, corpus_fingerprint=indexed.text.corpus.fingerprint,
    )  # fmt: skip
    with locked(folder / LOCK_FILE, progress):
        _begin(folder, identity)
    embedder = Embedder(subject, embedding)
    parts, written = _shards(folder, indexed.text, embedder, chunk_tokens, summariser, progress)
    check(any(part.chunks for part in parts), f"{indexed.text.corpus.source} has no text to index; name another corpus")
    with locked(folder / LOCK_FILE, progress):
        facts, graph = _finish(folder, parts, embedder.dimension, settings.search, progress)
    return BuiltIndex(facts, graph, len(parts) - written, settings.search)


def _json(config: DataConfig) -> dict[str, object]:
    """A configuration as JSON gives it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def _begin(folder: Path, identity: Identity) -> None:
    """Write what the index is of, unless the same stands there. Raises `UserError` where something else does."""
    own_folder(folder)
    if (folder / IDENTITY_FILE).exists():
        other = read_identity(folder)
        differing = differences(other, identity)
        check(
            not differing,
            f"{folder} holds an index made by run {other.run_id} after {other.step:,} updates, which differs in "
            f"{', '.join(differing)}; name another folder, or remove it",
        )
        return
    others = [path.name for path in folder.iterdir() if path.name != LOCK_FILE]
    check(
        not others, f"{folder} holds other files ({', '.join(sorted(others)[:3])}); name an empty folder or a new one"
    )
    write_json(folder / IDENTITY_FILE, asdict(identity))


def _shards(
    folder: Path, text: CorpusSplit, embedder: Embedder, chunk_tokens: int, summariser: Summariser | None,
    progress: Progress,
) -> tuple[list[Shard], int]:  # fmt: skip
    """All shards, and how many of them this call wrote: the others were there, or other processes wrote them."""
    jobs = shards.stretches(text)
    whole: dict[int, Shard] = {}
    written = 0
    write, flops = (None, lambda: 0) if summariser is None else (summariser.write, summariser.flops)
    while True:
        whole |= {
            number: shard
            for number in range(len(jobs))
            if number not in whole and (shard := shards.find_shard(folder, number)) is not None
        }
        missing = [number for number in range(len(jobs)) if number not in whole]
        if not missing:
            progress(f"indexing {text.corpus.source}", 1.0)
            return [whole[number] for number in range(len(jobs))], written
        before = written
        for number, parts in _read_ahead(folder, missing, jobs, text, embedder, chunk_tokens):
            progress(f"indexing {text.corpus.source}", len(whole) / len(jobs))
            documents = jobs[number][1] - jobs[number][0]
            whole[number] = shards.write_shard(folder, number, parts, documents, embedder, write, flops)
            written += 1
        if written == before:
            progress("waiting for shards that other processes make", len(whole) / len(jobs))
            time.sleep(POLL_SECONDS)


def _read_ahead(
    folder: Path, missing: list[int], jobs: list[tuple[int, int]], text: CorpusSplit, embedder: Embedder, most: int
) -> Iterator[tuple[int, list[Chunk]]]:
    """The chunks of every missing shard that no other process makes; those of the next are read while one is
    embedded."""
    tokenizer = embedder.subject.tokenizer
    free = claims(folder, missing)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:

        def begin() -> tuple[Claim, Future[list[Chunk]]] | None:
            for claim in free:
                stack.callback(claim.close)
                if shards.find_shard(folder, claim.number) is None:
                    return claim, pool.submit(shards.read_chunks, text, *jobs[claim.number], tokenizer, most)
                claim.close()  # another process has made it meanwhile
            return None

        waiting = begin()
        while waiting is not None:
            claim, reading = waiting
            parts = reading.result()
            waiting = begin()
            yield claim.number, parts
            claim.close()


def _finish(
    folder: Path, parts: list[Shard], dimension: int, search: Search, progress: Progress
) -> tuple[IndexFacts, GraphFacts | None]:
    """Write what there is, with the graph of all vectors where that is asked for, or measured to be faster."""
    facts = _sum(parts, dimension)
    graph = None
    size = facts.chunks, dimension
    if search == "hnsw" or (search == "auto" and is_large(*size) and has_memory(*size)):
        graph = _graph_there(folder, facts) or _graph(folder, facts, progress)
    facts = replace(facts, graph=None if graph is None or (search == "auto" and not graph.faster) else asdict(graph))
    write_record(folder / INDEX_FILE, asdict(facts))
    if facts.graph is None:
        (folder / GRAPH_FILE).unlink(missing_ok=True)
    return facts, graph


def _graph_there(folder: Path, facts: IndexFacts) -> GraphFacts | None:
    """The graph that another call made of the same shards, where it is as it was written."""
    try:
        earlier = read_facts(folder)
        if earlier.graph is None or replace(facts, graph=earlier.graph) != earlier:
            return None
        graph = from_json(GraphFacts, earlier.graph)
        open_graph(folder, graph)
    except UserError:
        return None
    return graph


def _sum(parts: list[Shard], dimension: int) -> IndexFacts:
    return IndexFacts(
        chunks_by_shard=tuple(part.chunks for part in parts),
        chunks=sum(part.chunks for part in parts),
        tokens=sum(part.tokens for part in parts),
        documents=sum(part.documents for part in parts),
        dimension=dimension,
        flops=sum(part.flops for part in parts),
        without_summary=sum(part.without_summary for part in parts),
    )


def _graph(folder: Path, facts: IndexFacts, progress: Progress) -> GraphFacts:
    """The graph of all shards' vectors."""

    def vectors() -> Iterator[Vectors]:
        for number, count in enumerate(facts.chunks_by_shard):
            progress("linking the graph", number / len(facts.chunks_by_shard))
            if count:
                yield np.asarray(shards.open_vectors(folder, number).reconstruct_n(0, count))

    return build_graph(folder, vectors(), facts.chunks, facts.dimension)
