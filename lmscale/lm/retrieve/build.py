"""An index made: shard after shard of the corpus is embedded, while a thread reads and cuts the text of the next.

What a broken-off call has finished stays, and the same call goes on behind it.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from lmscale.core.config import DataConfig, check
from lmscale.core.files import own_folder, write_json
from lmscale.lm.data.corpora import Progress, locked
from lmscale.lm.data.corpora.checksums import write_record
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.retrieve import shards
from lmscale.lm.retrieve.chunks import Chunk, check_chunk_tokens
from lmscale.lm.retrieve.embed import Embedder, Vectors, embedding_of
from lmscale.lm.retrieve.graph import GraphFacts, build_graph, check_memory
from lmscale.lm.retrieve.index import (
    IDENTITY_FILE,
    INDEX_FILE,
    Identity,
    IndexFacts,
    differences,
    read_identity,
)
from lmscale.lm.retrieve.libraries import load_faiss
from lmscale.lm.retrieve.shards import Shard, Summarise
from lmscale.lm.retrieve.text import CorpusSplit, IndexedCorpus

CHUNK_TOKENS = 64
"""Of a chunk, where nothing is said; as in RETRO (Borgeaud 2022, arXiv 2112.04426)."""


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
    graph: bool = False
    """Whether a graph for approximate search is added."""


@dataclass(frozen=True)
class Summariser:
    """A model that writes summaries (`lm.use.summaries`)."""

    write: Summarise
    flops: Callable[[], int]
    """What it has spent so far."""


@dataclass(frozen=True)
class BuiltIndex:
    """What was made, and what was there already."""

    facts: IndexFacts
    graph: GraphFacts | None
    reused: int
    """Shards of an earlier call."""


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
    chunk_tokens = settings.chunk_tokens or min(CHUNK_TOKENS, model.context - 1)
    check_chunk_tokens(chunk_tokens, model.context)
    identity = Identity(
        run_id=subject.config.run_id, step=step, tokenizer_fingerprint=subject.tokenizer.fingerprint,
        layer=embedding.layer, pooling=embedding.pooling, chunk_tokens=chunk_tokens,
        summary_tokens=settings.summary_tokens, data=_json(indexed.config), whole=indexed.whole,
        split=indexed.text.split, corpus_fingerprint=indexed.text.corpus.fingerprint,
    )  # fmt: skip
    _claim(folder, identity)
    with locked(folder / ".lock", progress):
        embedder = Embedder(subject, embedding)
        parts, reused = _shards(folder, indexed.text, embedder, chunk_tokens, summariser, progress)
        facts = _sum(parts, embedder.dimension)
        check(facts.chunks > 0, f"{indexed.text.corpus.source} has no text to index; name another corpus")
        graph = _graph(folder, facts, progress) if settings.graph else None
        facts = replace(facts, graph=None if graph is None else asdict(graph))
        write_record(folder / INDEX_FILE, asdict(facts))
    return BuiltIndex(facts, graph, reused)


def _json(config: DataConfig) -> dict[str, object]:
    """A configuration as JSON gives it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def _claim(folder: Path, identity: Identity) -> None:
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
    there = [path.name for path in folder.iterdir() if path.name != ".lock"]
    check(not there, f"{folder} holds other files ({', '.join(sorted(there)[:3])}); name an empty folder or a new one")
    write_json(folder / IDENTITY_FILE, asdict(identity))


def _shards(
    folder: Path, text: CorpusSplit, embedder: Embedder, chunk_tokens: int, summariser: Summariser | None,
    progress: Progress,
) -> tuple[list[Shard], int]:  # fmt: skip
    """All shards, those that are there as they are, and how many these were."""
    jobs = shards.stretches(text)
    there = {number: shard for number in range(len(jobs)) if (shard := shards.find_shard(folder, number)) is not None}
    missing = [number for number in range(len(jobs)) if number not in there]
    written = dict(there)
    for done, (number, parts) in enumerate(_read_ahead(missing, jobs, text, embedder, chunk_tokens)):
        progress(f"indexing {text.corpus.source}", (len(there) + done) / len(jobs))
        documents = jobs[number][1] - jobs[number][0]
        write, flops = (None, lambda: 0) if summariser is None else (summariser.write, summariser.flops)
        written[number] = shards.write_shard(folder, number, parts, documents, embedder, write, flops)
    progress(f"indexing {text.corpus.source}", 1.0)
    return [written[number] for number in range(len(jobs))], len(there)


def _read_ahead(
    numbers: list[int], jobs: list[tuple[int, int]], text: CorpusSplit, embedder: Embedder, most: int
) -> Iterator[tuple[int, list[Chunk]]]:
    """The chunks of every shard; those of the next are read while one is embedded."""
    tokenizer = embedder.subject.tokenizer
    with ThreadPoolExecutor(1) as pool:

        def begin(some: list[int]) -> list[Future[list[Chunk]]]:
            return [pool.submit(shards.read_chunks, text, *jobs[number], tokenizer, most) for number in some]

        waiting = begin(numbers[:1])
        for place, number in enumerate(numbers):
            parts = waiting.pop().result()
            waiting = begin(numbers[place + 1 : place + 2])
            yield number, parts


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
    check_memory(facts.chunks, facts.dimension)

    def vectors() -> Iterator[Vectors]:
        for number, count in enumerate(facts.chunks_by_shard):
            progress("linking the graph", number / len(facts.chunks_by_shard))
            if count:
                yield np.asarray(shards.open_vectors(folder, number).reconstruct_n(0, count))

    return build_graph(folder, vectors(), facts.chunks, facts.dimension)
