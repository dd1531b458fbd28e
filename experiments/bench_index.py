"""From how many vectors on does a graph (HNSW) find neighbours faster than exact search, and when has it repaid its
building?

    python experiments/bench_index.py                                  # both dimensions, up to 300,000 vectors
    python experiments/bench_index.py --counts 1000000 --dimensions 64

Vectors of length 1 in clusters, as those of chunks of a corpus: 1 in 100 is a centre, the others lie around one of
them. One query is asked at a time, as by `lmscale ask`, all vectors in memory; efSearch is the smallest power that
finds 95 % of the 10 exact neighbours. Times are those of one core, so that other programs on the machine change little.
From this `graph.GRAPH_FROM` is taken, the size from which on `lmscale index --kind auto` builds a graph.

Outcome (2026-11, one core of an AMD EPYC that others shared):

    D    vectors   building, CPU s   exact, ms   graph, ms   recall   building repaid after queries
    64     1,000         .5             .020        .034      .994    never
    64    10,000        3.0             .165        .055      .991    27,078
    64   100,000       74.6            2.059        .105      .992    38,178
    64   300,000      253.8            4.357        .109      .986    59,745
    256    1,000         .6             .033        .030      .989    209,527
    256   10,000        4.0             .686        .109      .987    6,895
    256   30,000       21.3            2.452        .128      .986    9,150

A question is found faster by the graph from 3,000 vectors on. But exact search takes .13 to .32 ns a number: a question
waits for a tenth of a second where all vectors have 3e8 to 8e8 numbers, and building a graph repays itself after 7,000
questions and more, at any size: what exact search costs and what building costs grow alike. So by default an index of
fewer than 3e8 numbers, 4.7 million vectors of 64, is searched exactly.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lmscale.lm.retrieve.embed import Vectors
from lmscale.lm.retrieve.graph import GraphFacts, build_graph

COUNTS, DIMENSIONS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000), (64, 256)
SPREAD = 0.5
"""Length of what is added to a centre, over that of the centre."""


def vectors(count: int, dimension: int, seed: int = 0) -> Vectors:
    """Clustered vectors, [N, D]."""
    rng = np.random.default_rng(seed)
    centres_CD = rng.standard_normal((max(1, count // 100), dimension), np.float32)
    values_ND = centres_CD[rng.integers(0, len(centres_CD), count)]
    values_ND = values_ND + SPREAD * rng.standard_normal((count, dimension), np.float32)
    return np.asarray(values_ND / np.linalg.norm(values_ND, axis=1, keepdims=True), np.float32)


def measured(count: int, dimension: int) -> GraphFacts:
    """What is measured of a graph of so many vectors."""
    with tempfile.TemporaryDirectory() as folder:
        return build_graph(Path(folder), [vectors(count, dimension)], count, dimension)


def repaid(facts: GraphFacts) -> float:
    """Queries after which a graph has saved the time that building it took."""
    return 1e3 * facts.building_cpu_s / (facts.exact_ms - facts.graph_ms) if facts.faster else np.inf


def rows(counts: list[int], dimensions: list[int]) -> Iterator[str]:
    """A table as Markdown, each row as soon as it is measured."""
    yield "| D | vectors | building, CPU s | exact, ms | graph, ms | recall | efSearch | repaid after | ns a number |"
    yield "|---" * 9 + "|"
    for dimension in dimensions:
        for count in sorted(counts):
            facts = measured(count, dimension)
            times = f"{facts.building_cpu_s:.2f} | {facts.exact_ms:.3f} | {facts.graph_ms:.3f} | {facts.recall:.3f}"
            waits = 1e6 * facts.exact_ms / (count * dimension)
            yield f"| {dimension} | {count:,} | {times} | {facts.ef_search} | {repaid(facts):,.0f} | {waits:.2f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="numbers of vectors")
    parser.add_argument("--dimensions", type=int, nargs="+", default=list(DIMENSIONS), help="numbers of each")
    arguments = parser.parse_args()
    for line in rows(arguments.counts, arguments.dimensions):
        print(line, flush=True)
