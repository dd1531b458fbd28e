"""Approximate search by a graph of all vectors (HNSW, Malkov 2016, arXiv 1603.09320), and its recall by exact search.

The graph takes as much memory as all vectors and their edges. How far it is searched (`efSearch`) is doubled until it
finds `RECALL` of the exact neighbours of a sample of the vectors. Which search an index has by default is measured: a
graph is built from `GRAPH_FROM` numbers on, and stays where it is faster.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
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
from lmscale.lm.retrieve.nearest import NOBODY, Neighbours
from lmscale.lm.retrieve.shards import damaged

GRAPH_FILE = "graph.faiss"
LINKS = 32
"""Edges of a vector on every level but the lowest, which has twice as many."""
EF_CONSTRUCTION = 200
"""Candidates while the graph is built, as in the paper's experiments."""
RECALL, MOST_EF = 0.95, 1024
GRAPH_FROM = 300_000_000
"""Numbers of all vectors together from which on exact search lets a question wait for a tenth of a second, on one core.
Building a graph repays itself after 7,000 questions at the earliest, at any size (`experiments/bench_index.py`)."""
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
    """Time of one query by itself, on one core."""
    exact_ms: float
    """Time of one exact query by itself, on one core, with all vectors in memory."""
    distances_per_query: float
    """Vectors that a query is compared with; exact search compares with all."""
    checksum: str
    building_cpu_s: float = 0.0
    """What building took, of all cores together."""

    @property
    def faster(self) -> bool:
        """Whether a query takes less time by the graph, which finds `RECALL` of what exact search does."""
        return self.recall >= RECALL and self.graph_ms < self.exact_ms

    def sentence(self, chunks: int) -> str:
        """What was measured, in a sentence."""
        if not self.k:
            return "the only chunk has no neighbours that a graph could miss"
        return (
            f"the graph finds {self.recall:.1%} of the {self.k} exact neighbours ({self.sample} of the vectors asked, "
            f"efSearch {self.ef_search}), comparing {self.distances_per_query:,.0f} of {chunks:,} vectors per query: "
            f"{self.graph_ms:.3g} ms instead of {self.exact_ms:.3g} ms of exact search"
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
    start = time.process_time()
    for vectors_ND in shards:
        if len(vectors_ND):
            graph.add(vectors_ND)
    seconds = time.process_time() - start
    with atomic_write(folder / GRAPH_FILE, "wb") as file:
        file.write(faiss.serialize_index(graph))
    return replace(_measured(graph, checksum(folder / GRAPH_FILE)), building_cpu_s=seconds)


def is_large(chunks: int, dimension: int) -> bool:
    """Whether an index has enough vectors for a graph to pay."""
    return chunks * dimension >= GRAPH_FROM


def needed_bytes(chunks: int, dimension: int) -> int:
    """Memory of a graph while it is written: twice itself."""
    return 2 * chunks * (4 * dimension + 8 * LINKS + 64)


def has_memory(chunks: int, dimension: int) -> bool:
    """Whether memory holds a graph while it is written."""
    available = available_memory_bytes()
    return available is None or needed_bytes(chunks, dimension) <= available


def check_memory(chunks: int, dimension: int) -> None:
    """Raise `MemoryShortage` for a graph that memory does not hold."""
    if not has_memory(chunks, dimension):
        needed, available = needed_bytes(chunks, dimension), available_memory_bytes() or 0
        raise MemoryShortage(
            f"a graph of {chunks:,} vectors takes {needed / 1e9:.3g} GB of memory while it is written, and "
            f"{available / 1e9:.3g} GB are available; take --kind exact, which holds one shard at a time"
        )


def _measured(graph: Any, file_checksum: str) -> GraphFacts:
    """The smallest efSearch that reaches `RECALL`, with what was measured there."""
    faiss, sample = load_faiss(), min(SAMPLE, graph.ntotal)
    rows = np.linspace(0, graph.ntotal - 1, sample).astype(np.int64)
    queries_QD = np.stack([graph.reconstruct(int(row)) for row in rows])
    k = min(SAMPLE_K + 1, graph.ntotal)  # each finds itself as well, which counts for nothing
    vectors_ND = graph.reconstruct_n(0, graph.ntotal)
    inner_product = faiss.METRIC_INNER_PRODUCT
    exact, exact_ms = _one_by_one(
        lambda query_1D: Neighbours(*faiss.knn(query_1D, vectors_ND, k, inner_product)), queries_QD
    )
    ef = k
    while True:
        faiss.cvar.hnsw_stats.reset()
        near, graph_ms = _one_by_one(partial(Graph(graph, ef).search, k=k), queries_QD)
        share = recall(near, exact, rows)
        if share >= RECALL or 2 * ef > MOST_EF:
            break
        ef *= 2
    distances = faiss.cvar.hnsw_stats.ndis / sample
    return GraphFacts(
        ef_search=ef, recall=share, sample=sample, k=k - 1, graph_ms=graph_ms, exact_ms=exact_ms,
        distances_per_query=distances, checksum=file_checksum,
    )  # fmt: skip


def _one_by_one(search: Callable[[Vectors], Neighbours], queries_QD: Vectors) -> tuple[Neighbours, float]:
    """The neighbours of every query, asked alone as `lmscale ask` does, and the milliseconds of one core that it takes,
    whatever else the machine does."""
    load_faiss().omp_set_num_threads(1)
    start = time.process_time()
    each = [search(query_D[None]) for query_D in queries_QD]
    milliseconds = 1e3 * (time.process_time() - start) / len(queries_QD)
    load_faiss()  # takes all cores again
    return Neighbours(*(np.concatenate(parts) for parts in zip(*each))), milliseconds


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
