"""Approximate search by a graph of all vectors (HNSW, Malkov 2016, arXiv 1603.09320), and its recall by exact search.

The graph takes as much memory as all vectors and their edges. How far it is searched (`efSearch`) is doubled until it
finds `RECALL` of the exact neighbours of a sample of the vectors.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import MemoryShortage
from lmscale.core.files import atomic_write, read_bytes
from lmscale.core.host import available_memory_bytes
from lmscale.lm.data.corpora.checksums import checksum
from lmscale.lm.retrieve.embed import Vectors
from lmscale.lm.retrieve.libraries import load_faiss
from lmscale.lm.retrieve.nearest import NOBODY, Nearest, Neighbours
from lmscale.lm.retrieve.shards import damaged

GRAPH_FILE = "graph.faiss"
LINKS = 32
"""Edges of a vector on every level but the lowest, which has twice as many."""
EF_CONSTRUCTION = 200
"""Candidates while the graph is built, as in the paper's experiments."""
RECALL, MOST_EF = 0.95, 1024
SAMPLE, SAMPLE_K = 256, 10
"""Vectors whose exact neighbours are compared, and how many of each."""


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """How the graph is searched, and what was measured of that."""

    ef_search: int
    recall: float
    """Share of the exact neighbours that it finds."""
    sample: int
    k: int
    graph_ms: float
    """Of one query among `sample` together."""
    exact_ms: float
    distances_per_query: float
    """Vectors that a query is compared with; exact search compares with all."""
    checksum: str

    def sentence(self, chunks: int) -> str:
        """What was measured, and which search that speaks for, in a sentence."""
        better = "" if self.graph_ms < self.exact_ms else "; exact search is as fast here: take `lmscale ask --exact`"
        return (
            f"the graph finds {self.recall:.1%} of the {self.k} exact neighbours ({self.sample} of the vectors asked, "
            f"efSearch {self.ef_search}), comparing {self.distances_per_query:,.0f} of {chunks:,} vectors per query: "
            f"{self.graph_ms:.3g} ms instead of {self.exact_ms:.3g} ms of exact search{better}"
        )


class Graph:
    """A graph in memory."""

    def __init__(self, graph: Any, ef_search: int) -> None:
        self._faiss, self._graph, self._ef = load_faiss(), graph, ef_search

    def search(self, vectors_QD: Vectors, k: int) -> Neighbours:
        """The k nearest, as far as they are found."""
        parameters = self._faiss.SearchParametersHNSW(efSearch=max(k, self._ef))
        return Neighbours(*self._graph.search(np.ascontiguousarray(vectors_QD, np.float32), k, params=parameters))


def build_graph(folder: Path, shards: Iterable[Vectors], chunks: int, dimension: int) -> GraphFacts:
    """Write the graph of all vectors, which come shard by shard, and measure it.

    Raises `MemoryShortage` where it does not fit into memory.
    """
    check_memory(chunks, dimension)
    faiss = load_faiss()
    graph = faiss.IndexHNSWFlat(dimension, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = EF_CONSTRUCTION
    for vectors_ND in shards:
        if len(vectors_ND):
            graph.add(vectors_ND)
    with atomic_write(folder / GRAPH_FILE, "wb") as file:
        file.write(faiss.serialize_index(graph))
    return _measured(graph, checksum(folder / GRAPH_FILE))


def check_memory(chunks: int, dimension: int) -> None:
    """Raise `MemoryShortage` for a graph that memory does not hold, twice while it is written."""
    needed, available = 2 * chunks * (4 * dimension + 8 * LINKS + 64), available_memory_bytes()
    if available is not None and needed > available:
        raise MemoryShortage(
            f"a graph of {chunks:,} vectors takes {needed / 1e9:.3g} GB of memory while it is written, and "
            f"{available / 1e9:.3g} GB are available; leave --kind at exact, which holds one shard at a time"
        )


def _measured(graph: Any, file_checksum: str) -> GraphFacts:
    """The smallest efSearch that reaches `RECALL`, with what was measured there."""
    faiss, sample = load_faiss(), min(SAMPLE, graph.ntotal)
    rows = np.linspace(0, graph.ntotal - 1, sample).astype(np.int64)
    queries_QD = np.stack([graph.reconstruct(int(row)) for row in rows])
    k = min(SAMPLE_K + 1, graph.ntotal)  # each finds itself as well, which counts for nothing
    vectors_ND = graph.reconstruct_n(0, graph.ntotal)
    exact, exact_ms = _timed(lambda: _exact(queries_QD, vectors_ND, k), sample)
    ef = k
    while True:
        faiss.cvar.hnsw_stats.reset()
        near, graph_ms = _timed(lambda: Graph(graph, ef).search(queries_QD, k), sample)  # noqa: B023
        share = recall(near, exact, rows)
        if share >= RECALL or 2 * ef > MOST_EF:
            break
        ef *= 2
    distances = faiss.cvar.hnsw_stats.ndis / sample
    return GraphFacts(
        ef_search=ef, recall=share, sample=sample, k=k - 1, graph_ms=graph_ms, exact_ms=exact_ms,
        distances_per_query=distances, checksum=file_checksum,
    )  # fmt: skip


def _exact(queries_QD: Vectors, vectors_ND: Vectors, k: int) -> Neighbours:
    nearest = Nearest(queries_QD, k, "inner product")
    nearest.add(vectors_ND, np.arange(len(vectors_ND)))
    return nearest.neighbours()


def _timed(search: Any, queries: int) -> tuple[Neighbours, float]:
    start = time.perf_counter()
    neighbours = search()
    return neighbours, 1e3 * (time.perf_counter() - start) / queries


def recall(approximate: Neighbours, exact: Neighbours, own_Q: NDArray[np.int64]) -> float:
    """The share of the exact neighbours of all queries that are among the approximate ones; no query is its own
    neighbour. 1 where there is none to find."""
    hits = total = 0
    for near, true, own in zip(approximate.labels_Qk, exact.labels_Qk, own_Q):
        others = np.setdiff1d(true, [own, NOBODY])
        hits += len(np.intersect1d(near, others))
        total += len(others)
    return hits / total if total else 1.0


def open_graph(folder: Path, facts: GraphFacts) -> Graph:
    """The graph of an index. Raises `UserError` where it is not as it was written."""
    path = folder / GRAPH_FILE
    try:
        if checksum(path) != facts.checksum:
            raise damaged(path)
        return Graph(load_faiss().deserialize_index(np.frombuffer(read_bytes(path), np.uint8)), facts.ef_search)
    except (OSError, RuntimeError):
        raise damaged(path) from None
