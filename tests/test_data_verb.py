"""What `lmscale data` counts, prints and draws."""

import dataclasses
import io
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lmscale.commands import data as data_verb
from lmscale.commands.report import corpus_baselines
from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.lm import data
from lmscale.lm.data import statistics

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def source(tmp_path: Path) -> DataConfig:
    """Words with p ~ 1 / rank in documents of 32 to about 2000 words."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "texts"
    folder.mkdir()
    words = [f"{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}{i}é" for i in range(300)]
    p = 1 / np.arange(1, 301)
    for number in range(40):
        text = " ".join(rng.choice(words, 32 + 50 * number, p=p / p.sum()))
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return DataConfig(source=str(folder), validation_fraction=0.3)


def shown(config: DataConfig, output: Path | None = None) -> str:
    console = Console(file=io.StringIO(), width=120)
    data_verb.show(config, console, output)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_baselines_of_a_text_drawn_from_a_known_chain_are_its_entropies() -> None:
    rng = np.random.default_rng(0)
    step = rng.dirichlet(np.full(5, 0.5), size=5)
    text = [0]
    for draw in rng.random(120_000):
        text.append(int(np.searchsorted(step[text[-1]].cumsum(), draw)))
    tokens = np.array(text, np.uint16)
    train, validation = tokens[:90_000], tokens[90_000:]
    unigram, bigram = statistics.baseline_nats(train, validation, 5)
    often = np.linalg.matrix_power(step, 200)[0]
    assert unigram / (len(validation) - 1) == pytest.approx(-(often * np.log(often)).sum(), rel=0.01)
    known = -np.log(step[validation[:-1], validation[1:]]).sum()  # of this very text: no estimate is much better
    assert known * 0.9999 < bigram < known * 1.002


@pytest.mark.long
def test_baselines_of_a_sweep_are_those_of_the_text_that_all_its_runs_share(source: DataConfig, tmp_path: Path) -> None:
    model, optimizer = ModelConfig(width=8, layers=1, heads=2), OptimizerConfig(peak_lr=0.01, batch_sequences=4)
    run = RunConfig(model=model, optimizer=optimizer, tokens=4 * 128, data=source)
    write_plan(tmp_path, "one", [PlannedRun(run), PlannedRun(replace(run, data=replace(source, unique_tokens=4096)))])
    assert corpus_baselines(tmp_path) == {}, "nothing is prepared"
    expected = statistics.corpus_statistics(data.prepare(source)).baselines
    assert corpus_baselines(tmp_path) == expected and len(expected) == 5
    write_plan(tmp_path, "two", [PlannedRun(run), PlannedRun(replace(run, data=DataConfig()))])
    assert corpus_baselines(tmp_path) == {}


def test_baselines_by_hand() -> None:
    train, validation = np.array([0, 1] * 50, np.uint8), np.array([0, 1, 0, 1], np.uint8)
    unigram, bigram = statistics.baseline_nats(train, validation, 4)
    counted = 95  # the last twentieth tunes
    single = {0: (48 + 0.5) / (counted + 2), 1: (47 + 0.5) / (counted + 2)}
    assert unigram == pytest.approx(-math.log(single[1] ** 2 * single[0]))
    best = statistics.PRIORS[0]
    pair = [(47 + best * single[1]) / (47 + best), (47 + best * single[0]) / (47 + best)]
    assert bigram == pytest.approx(-2 * math.log(pair[0]) - math.log(pair[1]))
    assert statistics.baseline_nats(train, np.array([2, 3], np.uint8), 4)[1] > 3  # pairs that never came cost, finitely


@pytest.mark.long
def test_statistics_are_those_of_the_text(source: DataConfig) -> None:
    tokens = data.prepare(source)
    stats = statistics.corpus_statistics(tokens)
    assert stats.token_counts[0] == np.bincount(tokens.train).max() and stats.token_ranks[0] == 1
    text = bytes(tokens.train).replace(b"\xff", b" ")
    assert stats.word_counts[0] == max(text.split().count(word) for word in set(text.split()))
    assert stats.word_ranks[-1] == len(set(text.split()))
    lengths = np.diff(tokens.train_starts)
    for (low, high), count in zip(itertools.pairwise(stats.length_edges), stats.length_counts):
        assert count == ((lengths >= low) & (lengths < high)).sum()
    assert sum(stats.length_counts) == len(lengths)
    validation_text = bytes(tokens.validation)
    own = np.bincount(tokens.validation[1:], minlength=256)
    share = own[own > 0] / own.sum()
    least = -(share * np.log2(share)).sum() * own.sum() / (own.sum() - own[255])
    assert least <= stats.unigram_bits_per_byte < 1.02 * least
    assert stats.bigram_bits_per_byte < 0.8 * stats.unigram_bits_per_byte
    assert stats.compressed_bytes == len(validation_text) - 1 and stats.scored_tokens == len(validation_text) - 1
    for name in ("zlib", "lzma", "zstd"):
        assert 0.5 < stats.baselines[name] < stats.unigram_bits_per_byte


@pytest.mark.long
def test_baselines_in_bits_per_byte_hardly_depend_on_the_tokenizer_for_compression(source: DataConfig) -> None:
    of_bytes = statistics.corpus_statistics(data.prepare(source))
    subwords = DataConfig(source=source.source, validation_fraction=0.3, tokenizer="bpe:500")
    of_bpe = statistics.corpus_statistics(data.prepare(subwords))
    for name in ("zlib", "lzma", "zstd"):
        assert of_bpe.baselines[name] == of_bytes.baselines[name]
    assert of_bpe.unigram_bits_per_byte < of_bytes.unigram_bits_per_byte  # longer tokens know more
    assert of_bpe.word_counts == of_bytes.word_counts


def test_statistics_are_counted_once_and_lie_beside_the_tokens(
    source: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = data.prepare(source)
    assert statistics.find_statistics(tokens.manifest) is None
    stats = statistics.corpus_statistics(tokens)
    monkeypatch.setattr(statistics, "baseline_nats", lambda *_: pytest.fail("counted again"))
    assert statistics.corpus_statistics(tokens) == stats == statistics.find_statistics(tokens.manifest)
    path = tokens.manifest.folder / "statistics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    assert statistics.find_statistics(tokens.manifest) is None
    path.write_text("{")
    assert statistics.find_statistics(tokens.manifest) is None
    assert data.find_manifest(source) == tokens.manifest


@pytest.mark.long
def test_what_is_shown_is_what_was_counted(source: DataConfig, tmp_path: Path) -> None:
    output = shown(source, tmp_path / "figures")
    manifest, stats = data.find_manifest(source), statistics.find_statistics(data.prepare(source).manifest)
    assert manifest is not None and stats is not None
    for number in (manifest.train_tokens, manifest.validation_bytes, manifest.train_documents):
        assert f"{number:,}" in output
    for name, bits in stats.baselines.items():
        assert f"{name} {bits:.4f}" in output
    drawing = [line for line in output.splitlines() if "│" in line]
    assert len(drawing) == data_verb.HEIGHT and {"o", "+"} <= set("".join(drawing))
    # Counts fall with rank: a lower line's words stand further to the right.
    places = [line.rfind("+") for line in drawing if "+" in line]
    assert places == sorted(places) and places[-1] > places[0] + data_verb.WIDTH // 2
    bars = [line for line in output.splitlines() if "█" in line]
    assert max(line.count("█") for line in bars) == data_verb.BAR
    figure = (tmp_path / "figures" / f"corpus_{manifest.fingerprint}.svg").read_text()
    assert "rank" in figure and "length of a document, tokens" in figure


def test_the_tokens_that_are_used_are_reported_and_too_many_refused(source: DataConfig) -> None:
    output = shown(dataclasses.replace(source, unique_tokens=1000))
    assert "of it the leading 896 training tokens are used, in sequences of 128" in output
    with pytest.raises(UserError, match="unique_tokens = 99,999,999 asks for"):
        shown(dataclasses.replace(source, unique_tokens=99_999_999))


def test_a_split_far_from_the_size_asked_for_is_reported(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"document {i} " * 20}) + "\n" for i in range(400)]
    (tmp_path / "many.jsonl").write_text("".join(lines))
    (tmp_path / "few.jsonl").write_text("".join(lines[:3]))
    many, few = (DataConfig(source=str(tmp_path / f"{name}.jsonl"), test_fraction=0.1) for name in ("many", "few"))
    assert "were asked for" not in shown(many)
    assert {"validation has 33.", "test has 33."} <= {
        line[: line.index("%") - 2] for line in shown(few).splitlines() if "were asked for: 3 documents" in line
    }


def test_a_validation_split_without_text_to_score_is_refused(tmp_path: Path) -> None:
    (tmp_path / "two.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(UserError, match="no text beyond its first token, so nothing can be scored; give more text"):
        shown(DataConfig(source=str(tmp_path / "two.jsonl")))


def test_mixtures_and_languages_are_shown_part_by_part(source: DataConfig) -> None:
    output = shown(DataConfig(source=f"mix: 3 * {source.source} + 1 * synthetic:tasks(letters=4)"))
    assert "0.75 of the training tokens" in output and "0.25 of the training tokens: endless" in output
    assert "brackets: chance 0.5 all or nothing, 0.5 graded" in output and "copy: chance 1.53e-05" in output
    output = shown(DataConfig(source="synthetic:zipf-facts(gamma=1.5)"))
    assert "exponents of the excess loss in theory: model 0.5, data 0.3333" in output and "nats per token" in output
