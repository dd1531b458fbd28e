"""Corpora of prompts and answers: which tokens are scored, on disk, in batches, in validation and in the usage."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from helpers.tiny_runs import BATCH, MODEL, outcome, run

from lmscale.core.config import Completion, DataConfig, MeshConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data import corpora
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.eval.validation import make_validation
from lmscale.lm.model.parameters import init
from lmscale.lm.model.transformer import token_losses
from lmscale.lm.train.loop import train

RECORDS = [
    {"prompt": f"add {n} and {n % 7}: é ", "text": f"the sum is {n + n % 7}" + " indeed" * (n % 5)} for n in range(60)
]
ASKED = {"prompt_field": "prompt", "validation_fraction": 0.3}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    return path


def by_hand(tokens: data.Tokens, split: str) -> list[tuple[bytes, bytes]]:
    """(prompt, answer) of each document, from the tokens on disk and what they say is scored."""
    row, starts = tokens.split(split)
    scored = tokens.scored(split)
    assert scored is not None and len(scored) == len(row)
    pairs = []
    for start, stop in itertools.pairwise(starts):
        assert row[stop - 1] == tokens.manifest.end_of_document and scored[stop - 1]
        document, answer = row[start : stop - 1].astype(np.uint8), scored[start : stop - 1]
        assert (np.diff(answer.astype(int)) >= 0).all(), "a prompt comes before its answer"
        pairs.append((bytes(document[~answer]), bytes(document[answer])))
    return pairs


def test_every_token_of_an_answer_is_scored_and_no_token_of_a_prompt(file: Path) -> None:
    tokens = data.prepare(DataConfig(source=str(file), **ASKED))
    pairs = by_hand(tokens, "train") + by_hand(tokens, "validation")
    assert sorted(pairs) == sorted((record["prompt"].encode(), record["text"].encode()) for record in RECORDS)
    assert tokens.manifest.train_scored_tokens == sum(len(answer) + 1 for _, answer in by_hand(tokens, "train"))
    assert data.find_manifest(DataConfig(source=str(file), **ASKED)) == tokens.manifest


def test_no_token_of_a_bpe_belongs_to_a_prompt_and_an_answer(file: Path) -> None:
    tokens = data.prepare(DataConfig(source=str(file), tokenizer="bpe:300", **ASKED))
    tokenizer = data.load_tokenizer(tokens.manifest)
    row, starts = tokens.split("train")
    scored = tokens.scored("train")
    assert scored is not None
    texts = {(record["prompt"], record["text"]) for record in RECORDS}
    for start, stop in itertools.pairwise(starts):
        document, answer = row[start : stop - 1], scored[start : stop - 1]
        assert (tokenizer.decode(document[~answer]), tokenizer.decode(document[answer])) in texts


def test_parquet_and_jsonl_give_the_same_corpus_and_a_moved_boundary_another(file: Path, tmp_path: Path) -> None:
    table = pyarrow.table({name: [record[name] for record in RECORDS] for name in ("prompt", "text")})
    pyarrow.parquet.write_table(table, tmp_path / "pairs.parquet")
    first = corpora.prepare(DataConfig(source=str(file), **ASKED))
    assert corpora.prepare(DataConfig(source=str(tmp_path / "pairs.parquet"), **ASKED)).fingerprint == first.fingerprint
    moved = [{"prompt": r["prompt"] + r["text"][:3], "text": r["text"][3:]} for r in RECORDS]
    (tmp_path / "moved.jsonl").write_text("".join(json.dumps(record) + "\n" for record in moved), encoding="utf-8")
    assert corpora.prepare(DataConfig(source=str(tmp_path / "moved.jsonl"), **ASKED)).fingerprint != first.fingerprint
    plain = corpora.prepare(DataConfig(source=str(file), validation_fraction=0.3))
    assert plain.fingerprint != first.fingerprint and not plain.prompts


def test_a_damaged_mask_is_made_again(file: Path) -> None:
    config = DataConfig(source=str(file), **ASKED)
    path = data.prepare(config).manifest.folder / "train_scored.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert data.find_manifest(config) is None
    data.prepare(config)
    assert path.read_bytes() == whole


def completion(file: Path, steps: int = 4, **changed: Any) -> RunConfig:
    plain = run(str(file), steps, **changed)
    config = DataConfig(source=str(file), max_epochs=1000, **ASKED)
    return RunConfig.from_json({**plain.to_json(), "data": vars(config), "objective": {"kind": "completion"}})


def test_batches_carry_the_mask_of_their_windows(file: Path) -> None:
    config = completion(file)
    tokens = data.prepare(config.data)
    batches = data.Batches(tokens, MODEL.context, BATCH, seed=0)
    row, mask = np.asarray(tokens.train), tokens.scored("train")
    assert mask is not None
    windows = np.lib.stride_tricks.sliding_window_view(row, MODEL.context + 1)[:: MODEL.context]
    masks = np.lib.stride_tricks.sliding_window_view(mask, MODEL.context + 1)[:: MODEL.context]
    for t in (0, 3):
        for one, scored in zip(batches.rows(t, 0, BATCH), batches.scored(t, 0, BATCH)):
            number = int((windows == one).all(axis=1).argmax())
            assert np.array_equal(scored, masks[number, 1:])


@pytest.mark.long
def test_a_mixture_scores_all_of_a_text_without_prompts(file: Path, tmp_path: Path) -> None:
    source = f"mix: 0.5 * {file} + 0.5 * synthetic:tasks(documents=200)"
    tokens = data.prepare(DataConfig(source=source, **ASKED))
    batches = data.Batches(tokens, 16, 8, seed=0)
    shares = batches.scored(0, 0, 8).mean(axis=1)
    assert sorted(shares == 1.0) == [False] * 4 + [True] * 4
    usage = batches.usage(8 * 16 * 5)
    by_batch = sum(int(batches.scored(t, 0, 8).sum()) for t in range(5))
    assert usage.answer_tokens == by_batch < 8 * 16 * 5


@pytest.mark.long
def test_validation_is_the_mean_over_answers(file: Path) -> None:
    config = completion(file)
    tokens = data.prepare(config.data)
    windows = data.ValidationSet(tokens, MODEL.context, 512, answers_only=True)
    assert windows.scored is not None and windows.tokens == windows.scored.sum() < windows.scored.size
    text = windows.windows[:, 1:][windows.scored]
    assert windows.bytes == (text != tokens.manifest.end_of_document).sum()
    import jax

    params, mesh = init(MODEL, jax.random.key(0)), make_mesh(MeshConfig())
    validation = make_validation(config, mesh, windows, params)(params)
    nats = np.asarray(token_losses(params, windows.windows, MODEL)[0], np.float64)
    assert validation.loss_nats == pytest.approx(nats[windows.scored].mean(), rel=1e-6)
    assert validation.bits_per_byte == pytest.approx(nats[windows.scored].sum() / math.log(2) / windows.bytes, rel=1e-6)
    drawn = np.random.default_rng(0).integers(0, len(nats), (4000, len(nats)))
    sums, counts = np.where(windows.scored, nats, 0).sum(axis=1), windows.scored.sum(axis=1)
    bootstrap = (sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)).std()
    assert validation.stderr == pytest.approx(bootstrap, rel=0.1) and validation.by_position is None


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_run_on_answers_counts_what_it_reads_and_what_it_scores(file: Path, tmp_path: Path) -> None:
    config = completion(file, steps=6)
    result = train(config, tmp_path / "run")
    batches = data.Batches(data.prepare(config.data), MODEL.context, BATCH, config.seed)
    assert result.answer_tokens == sum(int(batches.scored(t, 0, BATCH).sum()) for t in range(6)) < result.tokens
    assert outcome(tmp_path / "run")["validation_tokens"] < 512
    assert result.loss_nats is not None and result.loss_by_position_nats is None


def test_prompts_that_cannot_be_used_are_one_sentence(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Completion\(\) scores answers alone, .* give DataConfig\(prompt_field="):
        RunConfig.from_json({**run("stdlib", 2).to_json(), "objective": {"kind": "completion"}})
    with pytest.raises(UserError, match=r"prompt_field = 'prompt', but stdlib has no records with fields"):
        DataConfig(source="stdlib", prompt_field="prompt")
    lines = [json.dumps({"text": "no prompt"}), json.dumps({"prompt": 3, "text": "a number"})]
    bad = [*lines, json.dumps({"prompt": "nothing to learn", "text": " "})]
    file.write_text(file.read_text("utf-8") + "\n".join(bad) + "\n", encoding="utf-8")
    corpus = corpora.prepare(DataConfig(source=str(file), **ASKED))
    reasons = " ".join(item.reason for item in corpus.skipped)
    assert "1 line without the field 'prompt'" in reasons and "1 line whose field 'prompt' is not text" in reasons
    assert corpus.empty_removed == 1 and corpus.train_documents + corpus.validation_documents == len(RECORDS)
    (tmp_path / "plain.txt").write_text("some text\n\n" * 50)
    with pytest.raises(UserError, match=r"plain text, which has no field 'prompt'"):
        corpora.prepare(DataConfig(source=str(tmp_path / "plain.txt"), **ASKED))
    assert isinstance(completion(file).objective, Completion)
