"""`lmscale index` and `lmscale ask`: what lies on disk leads back to the text, and goes on when it was broken off."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command_line import call
from helpers.retrieval import subject_of, train_in, trained
from helpers.tiny_runs import run, strictly
from helpers.xla_flags import simulated_devices

import lmscale
from lmscale.commands.index import search_sentences
from lmscale.core.errors import UserError
from lmscale.lm.data import corpora
from lmscale.lm.data.tokenizer import ByteTokenizer
from lmscale.lm.model import transformer
from lmscale.lm.model.tap import record
from lmscale.lm.retrieve import build, graph, shards
from lmscale.lm.retrieve.chunks import ByteSpan
from lmscale.lm.retrieve.embed import Embedder, embedding_of
from lmscale.lm.retrieve.graph import GRAPH_FILE
from lmscale.lm.retrieve.index import INDEX_FILE, Passage, open_index
from lmscale.lm.retrieve.search import Searcher
from lmscale.lm.use.ask import fitting, prompt_of, room_for_prompt
from lmscale.lm.use.citations import CitedSentence, cite

pytestmark = pytest.mark.usefixtures("compiled_programs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, compiled_programs: Path) -> Path:
    return trained(tmp_path_factory.mktemp("run"), steps=3)


@pytest.fixture(scope="module")
def index(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In several shards, of the training text."""
    path = tmp_path_factory.mktemp("index") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 4000)
        lmscale.index(folder, path, chunk_tokens=16)
    return path


@pytest.mark.long
def test_every_chunk_leads_back_to_its_document(folder: Path, index: Path) -> None:
    opened = open_index(index)
    corpus = corpora.prepare(subject_of(folder)[0].config.data)
    texts = [text for part in corpus.texts("train") for text in part]
    assert len(opened.facts.chunks_by_shard) > 2 and opened.facts.documents == len(texts)
    covered: dict[int, bytes] = {}
    for number in range(opened.facts.chunks):
        passage = opened.passage(number, 0.0)
        own = texts[passage.span.document][passage.span.start : passage.span.stop]
        assert passage.text == own.decode("utf-8", "replace")
        assert passage.document == corpus.document("train", passage.span.document).id
        covered[passage.span.document] = covered.get(passage.span.document, b"") + own
    assert covered == dict(enumerate(texts)), "no document has a chunk of white space alone"


@pytest.mark.long
def test_a_chunk_finds_itself(folder: Path, index: Path) -> None:
    subject, step = subject_of(folder)
    opened = open_index(index)
    searcher = Searcher(opened, subject, step)
    for number in (0, opened.facts.chunks // 2, opened.facts.chunks - 1):
        first = searcher.passages(opened.passage(number, 0.0).text, 1)[0]
        assert first.score == pytest.approx(1, abs=1e-5)
        assert first.text == opened.passage(number, 0.0).text


@pytest.mark.long
def test_a_vector_is_the_mean_or_the_last_of_the_stream(folder: Path) -> None:
    """Without the end of the document before a text, and whatever is read beside it."""
    subject, _ = subject_of(folder)
    text = np.asarray(subject.tokenizer.encode("a lazy dog"), np.int32)
    tokens_1T = np.concatenate([[subject.tokenizer.end_of_document], text])[None]
    tapped = transformer.forward(subject.params, tokens_1T, subject.config.model, record("residual_post"))[1]
    stream_TD = np.asarray(tapped["residual_post"][1, 0, 1:])
    for pooling, value_D in (("mean", stream_TD.mean(axis=0)), ("last", stream_TD[-1])):
        embedder = Embedder(subject, embedding_of(subject.config.model, 1, pooling))
        vector_D = embedder([text[:4], text])[1]
        np.testing.assert_allclose(vector_D, value_D / np.linalg.norm(value_D), atol=1e-5)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file() and path.name != ".lock"
    }


def test_a_broken_off_index_goes_on(folder: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was finished stays, and the end is that of a call in one piece, byte for byte."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 4000)
    real, calls = Embedder.__call__, iter(range(100))

    def broken(self: Embedder, texts: Sequence[Any]) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(self, texts)

    monkeypatch.setattr(Embedder, "__call__", broken)
    with pytest.raises(KeyboardInterrupt):
        lmscale.index(folder, tmp_path / "index", chunk_tokens=16)
    with pytest.raises(UserError, match="is unfinished; the same call of `lmscale index` goes on"):
        open_index(tmp_path / "index")
    monkeypatch.setattr(Embedder, "__call__", real)
    assert lmscale.index(folder, tmp_path / "index", chunk_tokens=16).reused == 2
    assert content(tmp_path / "index") == content(index)


def test_a_damaged_shard_is_made_again(
    folder: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 4000)
    copy = shutil.copytree(index, tmp_path / "index")
    (copy / "00001.faiss").write_bytes((copy / "00001.faiss").read_bytes()[:-1])
    with pytest.raises(UserError, match=r"00001.faiss is not as it was written"):
        open_index(copy)
    assert lmscale.index(folder, copy, chunk_tokens=16).reused == len(open_index(index).facts.chunks_by_shard) - 1
    assert content(copy) == content(index)


def test_an_index_of_something_else_is_left_alone(folder: Path, index: Path, tmp_path: Path) -> None:
    before = content(index)
    with pytest.raises(UserError, match=r"holds an index made by run .* which differs in chunk_tokens; name another"):
        lmscale.index(folder, index, chunk_tokens=8)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(notes.txt\)"):
        lmscale.index(folder, tmp_path)
    with pytest.raises(UserError, match="this model has the layers 0 to 1"):
        lmscale.index(folder, tmp_path / "new", layer=2)
    assert content(index) == before and not (tmp_path / "new").exists()


@pytest.mark.long
def test_an_index_of_another_run_is_refused(folder: Path, index: Path, tmp_path: Path) -> None:
    config = subject_of(folder)[0].config
    other = train_in(tmp_path, run(config.data.source, 3, model=config.model, seed=1))
    with pytest.raises(UserError, match=f"was made by run {config.run_id}, and .* cannot read its vectors"):
        lmscale.ask(other, index, "the fox?")
    with pytest.raises(UserError, match="is no index: it has no identity"):
        lmscale.ask(folder, tmp_path, "the fox?")


@pytest.mark.long
def test_chunks_of_no_tokens_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"index\(chunk_tokens=0\): must be a whole number of at least 1"):
        lmscale.index(folder, tmp_path / "index", chunk_tokens=0)
    assert not (tmp_path / "index").exists()


def test_an_empty_index_is_refused(folder: Path, index: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(index, tmp_path / "index")
    facts = shards.read_record(copy / INDEX_FILE)
    shards.write_record(copy / INDEX_FILE, {**facts, "chunks": 0, "chunks_by_shard": []})
    with pytest.raises(UserError, match="is empty: its corpus has no text to look up"):
        open_index(copy)


@pytest.mark.long
def test_several_devices_embed_the_same_vectors(folder: Path, index: Path, tmp_path: Path) -> None:
    program = (
        "import jax, lmscale, sys\n"
        "from lmscale.lm.retrieve import shards\n"
        "assert jax.device_count() == 4\n"
        "shards.SHARD_BYTES = 4000\n"
        "lmscale.index(sys.argv[1], sys.argv[2], chunk_tokens=16)\n"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "index")]
    done = subprocess.run(command, capture_output=True, text=True, env=simulated_devices(4))
    assert done.returncode == 0, done.stderr
    for number, count in enumerate(open_index(index).facts.chunks_by_shard):
        ours, theirs = (shards.open_vectors(path, number) for path in (index, tmp_path / "index"))
        np.testing.assert_allclose(ours.reconstruct_n(0, count), theirs.reconstruct_n(0, count), atol=1e-5)


SHARING = """
import json, sys, time
from pathlib import Path
import lmscale
from lmscale.lm.retrieve import shards
from lmscale.lm.retrieve.embed import Embedder
shards.SHARD_BYTES = 4000
run, index, end, name = sys.argv[1:]
own, real = [], shards.write_shard
def write(folder, number, *rest):
    own.append(number)
    Path(index + name + "begun").write_text(str(number))
    if name == end:
        time.sleep(600)
    time.sleep(0.2)
    return real(folder, number, *rest)
shards.write_shard = write
while len([*Path(index).parent.glob("index*ready")]) < 3:
    Path(index + name + "ready").touch()
    time.sleep(0.01)
reused = lmscale.index(run, index, chunk_tokens=16).reused
print(json.dumps([own, reused]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", "b"])
def test_processes_share_the_shards_of_an_index(folder: Path, index: Path, tmp_path: Path, end: str) -> None:
    """Three at once: none makes what another does, one that is killed at its work leaves it to the others, and the
    index is that of a single call, byte for byte."""
    path = tmp_path / "index"
    workers = {
        name: subprocess.Popen([sys.executable, "-c", SHARING, folder, path, end, name], stdout=subprocess.PIPE)
        for name in "abc"
    }
    if end:
        begun = tmp_path / "indexbbegun"
        while not begun.exists():
            assert workers["b"].poll() is None
            time.sleep(0.05)
        workers["b"].kill()
        workers.pop("b").communicate()
    shards_by_worker = {name: json.loads(worker.communicate(timeout=300)[0]) for name, worker in workers.items()}
    number = len(open_index(index).facts.chunks_by_shard)
    assert sorted(shard for own, _ in shards_by_worker.values() for shard in own) == list(range(number))
    assert all(len(own) + reused == number for own, reused in shards_by_worker.values())
    assert sum(bool(own) for own, _ in shards_by_worker.values()) > 1, "more than one process did a part"
    assert content(path) == content(index)


@pytest.mark.long
def test_a_graph_is_added_to_an_index_and_measured(folder: Path, index: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(index, tmp_path / "index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 4000)
        built = lmscale.index(folder, copy, chunk_tokens=16, search="hnsw")
    assert built.graph is not None and built.graph.recall >= 0.95 and built.reused == len(built.facts.chunks_by_shard)
    opened = open_index(copy)
    searcher = Searcher(opened, *subject_of(folder))
    by_graph, exact = (searcher.passages("the quick brown fox", 3, exact=how) for how in (False, True))
    assert [one.number for one in by_graph] == [one.number for one in exact]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 4000)
        patch.setattr(build, "build_graph", lambda *arguments: pytest.fail("the graph is there"))
        assert lmscale.index(folder, copy, chunk_tokens=16, search="hnsw").graph == built.graph
        left = lmscale.index(folder, copy, chunk_tokens=16)
    assert left.graph is None and open_index(copy).graph is None and not (copy / GRAPH_FILE).exists()


@pytest.mark.long
@pytest.mark.parametrize(("search_ms", "faster"), [(0.0, True), (1e9, False)])
def test_the_search_of_an_index_is_chosen_by_measurement(
    folder: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search_ms: float, faster: bool
) -> None:
    """A small index is searched exactly; a large one by its graph, where that is measured to be faster."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 4000)
    built = lmscale.index(folder, shutil.copytree(index, tmp_path / "index"), chunk_tokens=16)
    (sentence,) = search_sentences(built)
    assert (
        built.facts.graph is None and "search is exact: recall 1; a graph pays from about 18,750,000 chunks" in sentence
    )
    monkeypatch.setattr(graph, "GRAPH_FROM", built.facts.chunks * built.facts.dimension)
    measured = graph.build_graph

    def build_graph(*arguments: Any) -> graph.GraphFacts:
        return replace(measured(*arguments), graph_ms=search_ms, exact_ms=1.0)

    monkeypatch.setattr(build, "build_graph", build_graph)
    built = lmscale.index(folder, tmp_path / "index", chunk_tokens=16)
    assert (built.facts.graph is not None) == faster == (tmp_path / "index" / GRAPH_FILE).exists()
    last = search_sentences(built)[-1]
    assert last == "search is by the graph" if faster else "the graph is not faster here, and is not kept" in last
    monkeypatch.setattr(build, "has_memory", lambda *size: False)
    built = lmscale.index(folder, shutil.copytree(index, tmp_path / "again"), chunk_tokens=16)
    assert built.graph is None and "memory holds no graph" in search_sentences(built)[-1]


@pytest.mark.long
def test_summaries_are_embedded_in_place_of_chunks(folder: Path, tmp_path: Path) -> None:
    built = lmscale.index(folder, tmp_path / "index", chunk_tokens=16, summary_tokens=8)
    summaries = [json.loads(line) for line in (tmp_path / "index" / "00000.jsonl").read_text("utf-8").splitlines()]
    assert len(summaries) == built.facts.chunks_by_shard[0] and built.facts.without_summary == summaries.count("")
    number = next(i for i, summary in enumerate(summaries) if len(summary) > 2)
    searcher = Searcher(open_index(tmp_path / "index"), *subject_of(folder))
    assert searcher.passages(summaries[number], 1)[0].score == pytest.approx(1, abs=1e-5)
    alone = lmscale.index(folder, tmp_path / "chunks", chunk_tokens=16).facts.flops
    assert built.facts.flops > alone, "what writing costs is counted"


def passage(text: str) -> Passage:
    return Passage(0, "a.txt", ByteSpan(0, 0, len(text)), text, 1.0)


def test_as_many_passages_are_read_as_fit() -> None:
    passages = [passage("first one"), passage("second one")]
    tokenizer, whole = ByteTokenizer(), len(prompt_of(passages, "Why?"))
    assert prompt_of(passages, "Why?") == "[1] first one\n\n[2] second one\n\nQuestion: Why?\nAnswer:"
    assert [fitting(passages, "Why?", tokenizer, room) for room in (whole, whole - 1, whole - 17)] == [2, 1, 0]
    assert fitting(passages, "Why?", tokenizer, len("Question: Why?\nAnswer:")) == 0
    with pytest.raises(UserError, match="the question has 22 tokens with its frame, and 21 of the context are left"):
        fitting(passages, "Why?", tokenizer, 21)
    assert [room_for_prompt(64, tokens) for tokens in (1, 8, 9)] == [57, 57, 49]


def test_an_answer_cites_what_it_rests_on() -> None:
    passages = ["bisect locates the insertion point for a value and returns it", "a list in sorted order"]
    assert cite("Bisect returns the insertion point. So it is [2][9]. Zebra moonlight.\n", passages) == [
        CitedSentence("Bisect returns the insertion point.", (1,)),
        CitedSentence("So it is.", (2,)),
        CitedSentence("Zebra moonlight.", ()),
    ]
    assert str(cite("Sorted order.", passages)[0]) == "Sorted order. [2]" and cite("", passages) == []


@pytest.mark.long
def test_a_question_is_answered_from_passages(
    folder: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("ask", folder, index, "Who?", "--passages", 2, "--max-tokens", 2, "--json", tmp_path / "a.json") == 0
    value = strictly((tmp_path / "a.json").read_text("utf-8"))
    printed = capsys.readouterr().out
    assert len(value["passages"]) + len(value["not_read"]) == 2 and value["answer_tokens"] <= 2
    assert value["prompt_tokens"] <= room_for_prompt(32, 2) == 25
    assert "of 2 passages fit the context of 32 tokens" in printed
    assert value == json.loads(json.dumps(lmscale.ask(folder, index, "Who?", passages=2, max_tokens=2).to_json()))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("Who?", "--passages", 0), "0 passages: at least 1"),
        (("  ",), "the question is empty"),
        (("W" * 40,), "ask a shorter one"),
        (("Who?", "--temperature", -1), "temperature"),
    ],
)
def test_bad_questions_get_a_sentence(
    folder: Path, index: Path, words: tuple[object, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("ask", folder, index, *words) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.long
def test_the_verb_says_what_it_made(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("index", folder, tmp_path / "index", "--chunk-tokens", 8, "--pooling", "last", "--kind", "hnsw") == 0
    printed = capsys.readouterr().out
    assert "the graph finds" in printed and f"next: lmscale ask {folder} {tmp_path / 'index'}" in printed
    assert call("index", tmp_path, tmp_path / "other") == 2
    assert "is no run folder" in capsys.readouterr().err
    assert build.CHUNK_TOKENS == 64
