"""Texts as vectors and their nearest neighbours: each value from its definition, whatever the blocks and batches."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.retrieval import documents, nearly, subject_of, trained

from lmscale.core.errors import UserError
from lmscale.lm.data.tokenizer import ByteTokenizer
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.model import transformer
from lmscale.lm.model.tap import record
from lmscale.lm.retrieve.chunks import check_chunk_tokens, chunks
from lmscale.lm.retrieve.duplicates import Duplicates
from lmscale.lm.retrieve.embed import Embedder, embedding_of
from lmscale.lm.retrieve.graph import GraphFacts, build_graph, open_graph, recall
from lmscale.lm.retrieve.nearest import NOBODY, Nearest, Neighbours

TEXT = "Grüße 🙂 an alle, die das lesen. " * 5


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory, compiled_programs: Path) -> Subject:
    return subject_of(trained(tmp_path_factory.mktemp("run"), steps=2))[0]


@pytest.mark.long
@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_vector_is_the_residual_stream_after_a_layer(subject: Subject, pooling: str, layer: int) -> None:
    texts = [np.array(list(text), np.int32) for text in (b"the quick", b"a lazy dog jumps over it", b"b")]
    vectors = Embedder(subject, embedding_of(subject.config.model, layer, pooling))(texts)
    for text, vector in zip(texts, vectors):
        tokens = jnp.concatenate([jnp.array([subject.tokenizer.end_of_document]), jnp.asarray(text)])[None]
        values = transformer.forward(subject.params, tokens, subject.config.model, record("residual_post"))[1]
        own = np.asarray(values["residual_post"][layer, 0, 1:])
        expected = own.mean(axis=0) if pooling == "mean" else own[-1]
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.long
def test_what_a_model_does_not_have_is_refused(subject: Subject) -> None:
    model = subject.config.model
    with pytest.raises(UserError, match="this model has the layers 0 to 1"):
        embedding_of(model, 2)
    with pytest.raises(UserError, match="take mean, of all tokens of a text, or last"):
        embedding_of(model, 0, "max")
    with pytest.raises(UserError, match="reads 1 to 31 after the token that begins a document"):
        check_chunk_tokens(32, model.context)
    assert embedding_of(model).layer == 1


@pytest.mark.parametrize("most", [1, 2, 7, 64, 1000])
def test_chunks_are_a_document_in_whole_characters(most: int) -> None:
    text = TEXT.encode()
    parts = list(chunks([(3, text)], ByteTokenizer(), most))
    assert b"".join(part.text for part in parts).replace(b" ", b"") == text.replace(b" ", b"")
    for part in parts:
        assert part.text == text[part.span.start : part.span.stop] == bytes(part.tokens.tolist())
        assert len(part.tokens) <= most and part.span.document == 3
        if most >= 4:  # no character has more bytes
            part.text.decode()


def test_white_space_alone_is_no_chunk() -> None:
    assert [part.span for part in chunks([(0, b"ab" + b" " * 8 + b"cd")], ByteTokenizer(), 4)] == [
        (0, 0, 4), (0, 8, 12),
    ]  # fmt: skip


@pytest.mark.parametrize("metric", ["inner product", "squared distance"])
def test_neighbours_do_not_depend_on_the_blocks(metric: str) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(50, 8)).astype(np.float32), rng.normal(size=(3, 8)).astype(np.float32)
    nearest = Nearest(queries, 5, metric)  # type: ignore[arg-type]
    for start, stop in ((0, 2), (2, 2), (2, 30), (30, 50)):
        nearest.add(vectors[start:stop], np.arange(start, stop) + 100)
    neighbours = nearest.neighbours()
    if metric == "inner product":
        scores = queries @ vectors.T
        order = np.argsort(-scores, axis=1)[:, :5]
    else:
        scores = ((queries[:, None] - vectors[None]) ** 2).sum(axis=2)
        order = np.argsort(scores, axis=1)[:, :5]
    np.testing.assert_array_equal(neighbours.labels_Qk, order + 100)
    np.testing.assert_allclose(neighbours.scores_Qk, np.take_along_axis(scores, order, 1), rtol=1e-4)
    assert nearest.flops_per_query == 2 * 8 * 50


def test_where_there_are_fewer_vectors_nobody_is_a_neighbour() -> None:
    nearest = Nearest(np.eye(2, dtype=np.float32), 3, "inner product")
    nearest.add(np.eye(2, dtype=np.float32), np.array([4, 9]))
    np.testing.assert_array_equal(nearest.neighbours().labels_Qk, [[4, 9, NOBODY], [9, 4, NOBODY]])
    assert nearest.neighbours().scores_Qk[0, 2] == -np.inf


def test_a_graph_finds_what_exact_search_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(400, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    facts = build_graph(tmp_path, [vectors[:150], vectors[150:150], vectors[150:]], 400, 16)
    assert facts.recall >= 0.95 and facts.k == 10 and facts.sample == 256
    neighbours = open_graph(tmp_path, facts).search(vectors[:20], 3)
    np.testing.assert_array_equal(neighbours.labels_Qk[:, 0], np.arange(20))
    (tmp_path / "graph.faiss").write_bytes(b"cut")
    with pytest.raises(UserError, match="not as it was written"):
        open_graph(tmp_path, facts)


def test_a_graph_is_faster_where_it_finds_as_much_in_less_time() -> None:
    facts = GraphFacts(
        ef_search=16, recall=0.96, sample=256, k=10, graph_ms=0.1, exact_ms=1.0, distances_per_query=300.0, checksum=""
    )
    assert facts.faster and facts.sentence(400).endswith("0.1 ms instead of 1 ms of exact search")
    assert not replace(facts, graph_ms=2.0).faster and not replace(facts, recall=0.9).faster


def test_a_graph_of_one_vector_has_nothing_to_measure(tmp_path: Path) -> None:
    facts = build_graph(tmp_path, [np.ones((1, 4), np.float32) / 2], 1, 4)
    assert facts.sentence(1) == "the only chunk has no neighbours that a graph could miss"
    assert open_graph(tmp_path, facts).search(np.ones((1, 4), np.float32), 3).labels_Qk.tolist() == [[0, -1, -1]]


def test_recall_counts_neither_the_query_nor_nobody() -> None:
    scores = np.zeros((2, 3), np.float32)
    exact = Neighbours(scores, np.array([[0, 1, 2], [1, 0, NOBODY]]))
    near = Neighbours(scores, np.array([[0, 2, 7], [1, 5, 6]]))
    assert recall(near, exact, np.array([0, 1])) == pytest.approx(1 / 3)
    assert recall(exact, exact, np.array([0, 1])) == 1


def test_copies_are_told_from_other_texts() -> None:
    texts = documents(0, 6)
    own = [text.encode() for text in texts[:3]]
    duplicates = Duplicates(own)
    assert duplicates.copied_by(own[1]) == [1]
    assert duplicates.copied_by(nearly(texts[1]).encode()) == [1], "every fifteenth word is another"
    assert duplicates.copied_by(" ".join(texts[3:5] + texts[2:3]).encode()) == [2], "inside of a longer text"
    assert duplicates.copied_by(" ".join(texts[0].split()[:40]).encode()) == [0], "a part of it"
    assert duplicates.copied_by(texts[4].encode()) == []
    swapped = texts[0].split()
    swapped[::3] = ["other"] * len(swapped[::3])
    assert duplicates.copied_by(" ".join(swapped).encode()) == [], "every third word is another"
