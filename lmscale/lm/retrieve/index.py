"""An index of a corpus on disk: whose it is, which chunks are nearest to a vector, and where each of them stands.

    identity.json   the run and its checkpoint, the layer, the corpus: written first, and the same in every later call
    00000.*, ...    shards (`shards`)
    graph.faiss     a graph of all vectors for approximate search (`graph`), where that was asked for
    index.json      what there is, once it is whole

The number of a chunk is its place in the order of all shards.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import DataConfig, check, check_types, from_json
from lmscale.core.errors import UserError
from lmscale.core.files import parse_json, read_bytes
from lmscale.lm.data import corpora
from lmscale.lm.data.corpora import Progress, Whole
from lmscale.lm.data.corpora.checksums import read_record
from lmscale.lm.data.corpora.corpus import Corpus
from lmscale.lm.retrieve import shards
from lmscale.lm.retrieve.chunks import ByteSpan
from lmscale.lm.retrieve.embed import Vectors
from lmscale.lm.retrieve.graph import Graph, GraphFacts, open_graph
from lmscale.lm.retrieve.nearest import NOBODY, Nearest, Neighbours

IDENTITY_FILE, INDEX_FILE = "identity.json", "index.json"
FORMAT = 1
"""Counts up when what lies on disk or its meaning changes."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What an index is of. Two with equal identities hold the same vectors."""

    run_id: str
    step: int
    tokenizer_fingerprint: str
    layer: int
    pooling: str
    chunk_tokens: int
    summary_tokens: int
    """The most tokens of a summary that is embedded in place of a chunk; 0 embeds the chunks themselves."""
    data: dict[str, object]
    """The `DataConfig` of the corpus."""
    whole: Whole
    split: str
    corpus_fingerprint: str
    format: int = FORMAT

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class IndexFacts:
    """What a whole index holds."""

    chunks_by_shard: tuple[int, ...]
    chunks: int
    tokens: int
    documents: int
    dimension: int
    flops: int
    """FLOPs of embedding all chunks, and of writing their summaries."""
    without_summary: int
    graph: dict[str, object] | None = None
    """`GraphFacts`, where there is a graph."""

    def __post_init__(self) -> None:
        check_types(self)


class Passage(NamedTuple):
    """A chunk with its text."""

    number: int
    document: str
    """The id of its document in the source, as a rule a path."""
    span: ByteSpan
    """Where it stands in the split of the corpus."""
    text: str
    """What is no whole character at an end is U+FFFD."""
    score: float
    """Cosine of its vector and the query's."""

    @property
    def source(self) -> str:
        """Document and bytes in words."""
        return f"{self.document}, bytes {self.span.start:,} to {self.span.stop:,}"


class Index:
    """A whole index of a corpus, read shard by shard."""

    def __init__(self, folder: Path, identity: Identity, facts: IndexFacts, corpus: Corpus) -> None:
        self.folder, self.identity, self.facts, self.corpus = folder, identity, facts, corpus
        self._rows: dict[int, NDArray[np.int64]] = {}

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The number of the first chunk of every shard, and at the end that of all chunks."""
        return np.concatenate([[0], np.cumsum(self.facts.chunks_by_shard)]).astype(np.int64)

    @cached_property
    def graph(self) -> Graph | None:
        """The graph for approximate search, None where there is none."""
        return None if self.facts.graph is None else open_graph(self.folder, from_json(GraphFacts, self.facts.graph))

    def search(self, vectors_QD: Vectors, k: int, *, exact: bool = False) -> Neighbours:
        """The k chunks nearest to each vector by the cosine; by the graph where there is one, unless `exact`."""
        k = min(k, self.facts.chunks)
        if self.graph is not None and not exact:
            return self.graph.search(vectors_QD, k)
        nearest = Nearest(vectors_QD, k, "inner product")
        for number, count in enumerate(self.facts.chunks_by_shard):
            vectors = shards.open_vectors(self.folder, number)
            labels = np.arange(self.starts[number], self.starts[number + 1])
            nearest.add(vectors.reconstruct_n(0, count) if count else np.zeros((0, vectors.d), np.float32), labels)
        return nearest.neighbours()

    def span(self, number: int) -> ByteSpan:
        """Where a chunk stands. Raises `UserError` for a number that no chunk has."""
        check(
            0 <= number < self.facts.chunks,
            f"{self.folder} has no chunk {number:,}; it has {self.facts.chunks:,}, counted from 0",
        )
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        if shard not in self._rows:
            self._rows[shard] = shards.open_rows(self.folder, shard)
        row = self._rows[shard][number - int(self.starts[shard])]
        return ByteSpan(*(int(value) for value in row[:3]))

    def passage(self, number: int, score: float) -> Passage:
        """A chunk with its text. Raises `UserError` as `span` does."""
        span = self.span(number)
        document = self.corpus.document(self.identity.split, span.document)
        text = document.text[span.start : span.stop].decode("utf-8", "replace")
        return Passage(number, document.id, span, text, score)

    def passages(self, neighbours: Neighbours) -> list[Passage]:
        """The chunks that are nearest to the first query."""
        pairs = zip(neighbours.labels_Qk[0].tolist(), neighbours.scores_Qk[0].tolist())
        return [self.passage(number, score) for number, score in pairs if number != NOBODY]


def open_index(folder: Path, progress: Progress | None = None) -> Index:
    """The index in `folder`.

    Raises `UserError` for a folder without one, for one that is unfinished, empty or damaged, and where its corpus is
    another now.
    """
    identity, facts = read_identity(folder), read_facts(folder)
    check(facts.chunks > 0, f"the index {folder} is empty: its corpus has no text to look up; index another")
    for number in range(len(facts.chunks_by_shard)):
        if shards.find_shard(folder, number) is None:
            raise shards.damaged(folder / f"{number:05}.faiss")
    corpus = corpora.prepare(from_json(DataConfig, identity.data), identity.whole, progress=progress)
    check(
        corpus.fingerprint == identity.corpus_fingerprint,
        f"the corpus {corpus.source} has changed since the index {folder} was made, so its bytes are others; make the "
        f"index again in another folder",
    )
    return Index(folder, identity, facts, corpus)


def read_identity(folder: Path) -> Identity:
    """What the index in `folder` is of. Raises `UserError` for a folder without one."""
    try:
        value = parse_json(read_bytes(folder / IDENTITY_FILE))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is no index: it has no {IDENTITY_FILE}; make one with `lmscale index RUN`") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / IDENTITY_FILE} cannot be read ({error}); make the index again") from None
    identity = from_json(Identity, value, str(folder / IDENTITY_FILE))
    check(
        identity.format == FORMAT,
        f"the index {folder} is of another version of lmscale (format {identity.format}, now {FORMAT}); make it again",
    )
    return identity


def read_facts(folder: Path) -> IndexFacts:
    """What the index in `folder` holds. Raises `UserError` for one that is unfinished or damaged."""
    try:
        return from_json(IndexFacts, read_record(folder / INDEX_FILE), str(folder / INDEX_FILE))
    except FileNotFoundError:
        raise UserError(f"the index {folder} is unfinished; the same call of `lmscale index` goes on") from None
    except UserError:
        raise
    except (OSError, ValueError):
        raise shards.damaged(folder / INDEX_FILE) from None


def differences(one: Identity, other: Identity) -> list[str]:
    """Names of the fields in which two identities differ."""
    return [name for name, value in asdict(one).items() if value != asdict(other)[name]]


def check_made_by(identity: Identity, run_id: str, step: int, tokenizer_fingerprint: str, folder: Path) -> None:
    """Raise `UserError` for an index that another run made, or another checkpoint: its vectors mean something else."""
    check(
        identity.run_id == run_id and identity.tokenizer_fingerprint == tokenizer_fingerprint,
        f"the index {folder} was made by run {identity.run_id}, and {run_id} cannot read its vectors; name that "
        f"run, or make an index by this one",
    )
    check(
        identity.step == step,
        f"the index {folder} was made by this run after {identity.step:,} updates, and the checkpoint is of {step:,}; "
        f"give --step {identity.step}, or make the index again",
    )
