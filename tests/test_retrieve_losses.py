"""Losses with retrieval against the size of a datastore: right values, and nothing gained from planted copies."""

import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.retrieval import documents, nearly, subject_of, trained

from lmscale.core.config import DataConfig
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data.tokenizer import ByteTokenizer
from lmscale.lm.eval.batching import Ids
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.model.transformer import token_losses
from lmscale.lm.retrieve import knn, losses, passages
from lmscale.lm.retrieve.chunks import chunks
from lmscale.lm.retrieve.duplicates import Duplicates
from lmscale.lm.retrieve.embed import Embedder, embedding_of
from lmscale.lm.retrieve.knn import Interpolation, KnnMeasurement, best_interpolation, knn_probability, mixed
from lmscale.lm.retrieve.losses import WindowStream, batches_of
from lmscale.lm.retrieve.nearest import NOBODY, Neighbours
from lmscale.lm.retrieve.passages import ChunkStream, PassageMeasurement, Segment, row_of
from lmscale.lm.retrieve.text import grow, sizes_of, source_of, texts_of

MEASUREMENTS = [KnnMeasurement, PassageMeasurement]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory, compiled_programs: Path) -> Subject:
    return subject_of(trained(tmp_path_factory.mktemp("run"), steps=20))[0]


def ids(*numbers: int) -> Ids:
    return np.array(numbers, np.int32)


def test_a_datastore_grows_through_every_size() -> None:
    pieces = iter([3, 3, 3, 1])
    waiting = [next(pieces)]

    def add(most: int) -> int | None:
        if not waiting:
            return None
        if waiting[0] > most:
            return 0
        size = waiting.pop()
        waiting.extend([more] if (more := next(pieces, 0)) else [])
        return size

    assert list(grow(add, [0, 2, 4, 9, 100])) == [(0, 0), (4, 3), (9, 9), (10, 10)], "2 has no room, and 10 is all"


def test_the_usual_sizes_have_no_end() -> None:
    usual = iter(sizes_of(()))
    assert [next(usual) for _ in range(4)] == [0, 4096, 16384, 65536]
    assert list(sizes_of((9, 0, 9))) == [0, 9]


@pytest.mark.long
def test_windows_are_those_of_training(subject: Subject) -> None:
    corpus = texts_of(subject.config.data)
    stream = WindowStream(corpus.held_out.documents(), subject.tokenizer, 32)
    pieces = [stream.take(count) for count in (1, 7, 1, 10_000, 5)]
    windows = np.concatenate(pieces)
    tokens = data.prepare(subject.config.data)
    expected = data.ValidationSet(tokens, 32, 10**9).windows
    assert len(windows) == len(expected) and not len(pieces[-1])
    assert {tuple(row) for row in windows.tolist()} == {tuple(row) for row in expected.tolist()}


@pytest.mark.long
def test_windows_are_spread_over_the_text(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first to the last that are read, evenly; all of them where there are no more."""

    def stream() -> WindowStream:
        return WindowStream(texts_of(subject.config.data).held_out.documents(), subject.tokenizer, 32)

    whole = stream().take(10_000)
    np.testing.assert_array_equal(stream().spread(10_000), whole)
    monkeypatch.setattr(losses, "SPREAD", 4)
    assert len(whole) > 20
    np.testing.assert_array_equal(stream().spread(5), whole[[0, 5, 10, 14, 19]])


def test_batches_have_one_size() -> None:
    assert [batch.tolist() for batch in batches_of(5, 2)] == [[0, 1], [2, 3], [4, 4]]
    assert batches_of(0, 4) == []


def test_the_probability_of_neighbours_is_that_of_the_formula() -> None:
    scores = np.array([[1.0, 1 + math.log(2), np.inf]] * 3, np.float32)
    neighbours = Neighbours(scores, np.array([[5, 7, NOBODY]] * 3))
    np.testing.assert_allclose(knn_probability(neighbours, ids(5, 7, 9), 1.0), [2 / 3, 1 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(knn_probability(neighbours, ids(5, 7, 9), 1e6), [1 / 2, 1 / 2, 0], rtol=1e-5)
    nats = np.array([math.log(4)])
    np.testing.assert_allclose(mixed(nats, np.array([2 / 3]), 0.5), [-math.log(0.5 / 4 + 1 / 3)])
    np.testing.assert_array_equal(mixed(nats, np.array([0.0]), 0.0), nats)


def test_the_best_weight_is_that_of_the_chosen_tokens() -> None:
    """A neighbour that is always right is trusted as far as the choices go, one that is always wrong not at all."""
    nats, chosen = np.full(4, math.log(10)), np.array([True, True, False, False])
    right, wrong = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0, 1.0])
    assert best_interpolation(nats, {1.0: wrong, 2.0: right}, chosen) == Interpolation(0.95, 2.0)
    assert best_interpolation(nats, {1.0: wrong}, chosen).weight == 0.0


def test_each_half_of_the_windows_is_tuned_on_the_other() -> None:
    """Neighbours that are right in the even window and wrong in the odd one mislead both."""
    windows = np.array([[0, 1, 2], [0, 3, 4]], np.int32)
    queries = knn.Queries(windows, np.zeros((4, 2), np.float32), np.full(4, math.log(10)))
    neighbours = Neighbours(np.zeros((4, 1), np.float32), np.array([[1], [2], [9], [9]]))
    nats, settings = knn.interpolated(queries, neighbours)
    assert [one.weight for one in settings] == [0.95, 0.0], "of the odd and of the even window"
    np.testing.assert_allclose(nats, [math.log(10)] * 2 + [-math.log(0.05 / 10)] * 2)


@pytest.mark.long
def test_without_a_datastore_the_loss_is_the_models(subject: Subject) -> None:
    measured = KnnMeasurement(subject, texts_of(subject.config.data), 10_000)
    (alone,) = measured.losses((0,))
    windows = data.ValidationSet(data.prepare(subject.config.data), 32, 10**9).windows
    nats = token_losses(subject.params, jnp.asarray(windows), subject.config.model)[0]
    assert alone.loss_nats == pytest.approx(float(nats.mean()), abs=1e-5)
    assert alone.datastore_flops == alone.retrieval_flops == 0 and len(alone.nats_U) == len(windows)


@pytest.mark.long
def test_neighbours_help_a_model_that_has_learned_little(subject: Subject) -> None:
    """The corpus has fourteen words, which a datastore holds and twenty steps do not teach."""
    measured = KnnMeasurement(subject, texts_of(subject.config.data), 16)
    losses = list(measured.losses((0, 512, 8192)))
    assert [loss.datastore_tokens for loss in losses] == [0, 512, 8192]
    assert losses[2].loss_nats < losses[0].loss_nats - 0.1
    assert losses[2].retrieval_flops == 2 * 16 * 8192 and losses[2].datastore_flops == 16 * losses[1].datastore_flops
    settings = losses[2].details["settings"]
    assert len(settings) == 2 and all(one["weight"] > 0 for one in settings)


@pytest.mark.long
def test_the_loss_does_not_depend_on_the_blocks(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = texts_of(subject.config.data)
    (whole,) = KnnMeasurement(subject, corpus, 8).losses((2048,))
    monkeypatch.setattr(knn, "BLOCK_TOKENS", 96)
    (parts,) = KnnMeasurement(subject, corpus, 8).losses((2048,))
    assert parts.loss_nats == pytest.approx(whole.loss_nats, abs=0.02), "of equally near neighbours any may be taken"
    assert parts.datastore_tokens == whole.datastore_tokens == 2048


def write(folder: Path, texts: Sequence[str]) -> str:
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    return str(folder)


@pytest.mark.long
@pytest.mark.parametrize("kind", MEASUREMENTS)
def test_planted_copies_are_not_retrieved(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[KnnMeasurement]
) -> None:
    """The losses are those without them; where they are let in, neighbours predict them, and passages are others."""
    own, other = documents(0, 6), documents(1, 12)
    copies = [own[0], nearly(own[1]), f"{other[0]} {nearly(own[2], 3)}", *map(nearly, own[3:])]
    held_out = write(tmp_path / "held_out", own)
    clean = DataConfig(source=write(tmp_path / "clean", other), validation_source=held_out)
    planted = DataConfig(source=write(tmp_path / "planted", [*other, *copies]), validation_source=held_out)

    def whole(config: DataConfig) -> tuple[float, int, int]:
        measured = kind(subject, texts_of(config), 1000)
        last = list(measured.losses((10**9,)))[-1]
        return last.loss_nats, last.datastore_tokens, measured.datastore.left_out

    without, with_copies = whole(clean), whole(planted)
    assert with_copies == (pytest.approx(without[0], abs=1e-6), without[1], len(copies)) and not without[2]
    monkeypatch.setattr(Duplicates, "copied_by", lambda self, text: [])
    let_in, _, left_out = whole(planted)
    assert not left_out and let_in != pytest.approx(without[0], abs=1e-4), "the check above could fail"
    assert kind is PassageMeasurement or let_in < without[0] - 0.02


def test_a_passage_takes_room_from_the_text() -> None:
    segment = Segment(0, ids(1, 2, 3, 4, 5, 6), ids(7, 8))
    separator, passage = ids(50), ids(40, 41)
    row, cut = row_of(segment, None, separator, 99, 10)
    assert row.tolist() == [99, 1, 2, 3, 4, 5, 6, 7, 8] and cut == 0
    row, cut = row_of(segment, passage, separator, 99, 10)
    assert row.tolist() == [99, 40, 41, 50, 2, 3, 4, 5, 6, 7, 8] and cut == 1
    row, cut = row_of(segment, None, separator, 99, 6)
    assert row.tolist() == [2, 3, 4, 5, 6, 7, 8] and cut == 1, "amid the text no document begins"


@pytest.mark.long
def test_the_loss_of_a_segment_is_that_of_its_tokens(subject: Subject) -> None:
    row = np.array(list(b"a lazy dog jumps over"), np.int32)
    (nats,) = passages.segment_losses(subject, [row], 5)
    expected = token_losses(subject.params, jnp.asarray(row[None]), subject.config.model)[0][0, -5:]
    assert nats == pytest.approx(float(jnp.mean(expected)), abs=1e-5)


def test_segments_follow_each_other(subject: Subject) -> None:
    texts = [b"abcdefghijklmnopqrstuvwxyz", b"short", b"0123456789"]
    taken = passages.segments(texts, subject, 4, 2)
    assert [bytes(one.tokens.tolist()) for one in taken] == [b"efgh", b"ijkl", b"mnop", b"qrst", b"4567"]
    assert [one.document for one in taken] == [0, 0, 0, 0, 1] and bytes(taken[4].before.tolist()) == b"0123"


@pytest.mark.long
def test_the_nearest_chunk_stands_before_the_text(subject: Subject) -> None:
    """Nearest by the inner product with all chunks; as a control each segment gets the passage of another one."""
    corpus = texts_of(subject.config.data)
    measured, calls = PassageMeasurement(subject, corpus, 4), []
    real = measured._scored
    measured._scored = lambda given: calls.append(given) or real(given)  # type: ignore[method-assign, func-returns-value]
    alone, retrieved = measured.losses((0, 2048))
    nothing, nearest, exchanged = calls
    stream = ChunkStream(chunks(enumerate(corpus.datastore.documents()), subject.tokenizer, 8))
    block = stream.take(2048) or []
    assert sum(len(chunk.tokens) for chunk in block) == retrieved.datastore_tokens > 2040
    embedder = Embedder(subject, embedding_of(subject.config.model))
    queries = embedder([segment.before[-8:] for segment in measured._segments])
    scores = queries @ embedder([chunk.tokens for chunk in block]).T
    for row, passage in zip(scores, nearest, strict=True):
        own = next(n for n, chunk in enumerate(block) if np.array_equal(chunk.tokens, passage))
        assert row[own] == pytest.approx(row.max(), abs=1e-5)
    half = len(nearest) // 2
    assert nothing is None and [*map(bytes, exchanged)] == [*map(bytes, nearest[half:] + nearest[:half])]
    assert retrieved.details["exchanged_nats"] == pytest.approx(float(real(exchanged)[0].mean()), abs=1e-6)
    assert retrieved.retrieval_flops > alone.retrieval_flops == 0


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("mix: 0.5 * stdlib + 0.5 * stdlib:code", "is a mixture, and a datastore has one source"),
        ("synthetic:tasks(letters=3)", "is a language without end"),
        ("tokens:ids.bin", "holds ids, and passages are retrieved as text"),
        ("imported:gpt2", "is not here, so nothing can be retrieved from it"),
    ],
)
def test_what_has_no_documents_is_refused(source: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        source_of(DataConfig(source=source))


def test_text_that_is_too_short_is_refused(subject: Subject, tmp_path: Path) -> None:
    config = DataConfig(source=write(tmp_path / "short", [f"a {n} b" for n in range(4)]), validation_fraction=0.5)
    with pytest.raises(UserError, match="too little text for two windows of 32 tokens"):
        KnnMeasurement(subject, texts_of(config))
    with pytest.raises(UserError, match="fewer than two documents of 16 tokens"):
        PassageMeasurement(subject, texts_of(config))
    assert jax.process_count() == 1 and ByteTokenizer().name == subject.tokenizer.name
