"""`DataConfig(validation_source=...)`: the text that a run is validated on, from a source of its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import call
from helpers.texts import TEXTS, jsonl, write

from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data import Batches, ValidationSet

HELD_OUT = ["a chapter of its own " * 9, "another chapter " * 9, "a third one " * 9]

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    write(tmp_path, {"train.jsonl": jsonl(TEXTS), "other.jsonl": jsonl([text * 2 for text in TEXTS]),
                     "validation.jsonl": jsonl(HELD_OUT)})  # fmt: skip
    return DataConfig(source=str(tmp_path / "train.jsonl"), validation_source=str(tmp_path / "validation.jsonl"))


def documents(tokens: np.ndarray) -> list[str]:
    return sorted(text.decode() for text in bytes(tokens).split(b"\xff")[:-1])


def test_all_of_it_is_validated_on_and_all_of_the_source_is_trained_on(config: DataConfig) -> None:
    tokens = data.prepare(config)
    (train,), held_out = tokens.components, tokens.held_out
    assert held_out is not None
    assert documents(train.train) == sorted(TEXTS) and not len(train.validation) and not len(train.test)
    assert documents(held_out.validation) == sorted(HELD_OUT) and not len(held_out.train)
    manifest = tokens.manifest
    assert (manifest.train_documents, manifest.validation_documents) == (len(TEXTS), len(HELD_OUT))
    assert (manifest.train_tokens, manifest.validation_tokens) == (len(train.train), len(held_out.validation))
    assert data.find_manifest(config) == manifest
    windows = ValidationSet(tokens, 16, 10**6).windows
    assert windows.size and set(map(bytes, windows.astype(np.uint8))) <= {
        bytes(held_out.validation[i : i + 17]) for i in range(0, len(held_out.validation), 16)
    }
    assert Batches(tokens, 16, 2, seed=0).unique_tokens == (len(train.train) - 1) // 16 * 16


def test_the_fingerprint_knows_both_texts(config: DataConfig, tmp_path: Path) -> None:
    first = data.prepare(config).manifest.fingerprint
    prints = {first, data.prepare(replace(config, validation_source=None)).manifest.fingerprint}
    (tmp_path / "validation.jsonl").write_bytes(jsonl(HELD_OUT[:2]))
    assert data.find_manifest(config) is None
    prints.add(data.prepare(config).manifest.fingerprint)
    (tmp_path / "train.jsonl").write_bytes(jsonl(TEXTS[1:]))
    prints.add(data.prepare(config).manifest.fingerprint)
    assert len(prints) == 4


def test_of_a_mixture_and_beside_a_test_split(config: DataConfig, tmp_path: Path) -> None:
    mixed = replace(config, source=f"mix: 1 * {config.source} + 1 * {tmp_path / 'other.jsonl'}", test_fraction=0.3)
    tokens = data.prepare(mixed)
    assert tokens.manifest.validation_documents == len(HELD_OUT)
    assert tokens.manifest.train_documents + tokens.manifest.test_documents == 2 * len(TEXTS)
    assert all(len(part.test) and not len(part.validation) for part in tokens.components)
    assert set(ValidationSet(tokens, 8, 10**6).sources) == {0}
    assert set(ValidationSet(tokens, 8, 10**6, "test").sources) == {0, 1}


@pytest.mark.long
def test_a_trained_tokenizer_reads_the_training_text_alone(config: DataConfig) -> None:
    tokens = data.prepare(replace(config, tokenizer="bpe:262"))
    alone = data.prepare(replace(config, tokenizer="bpe:262", validation_source=config.source, source=str(
        config.validation_source)))  # fmt: skip
    assert tokens.manifest.tokenizer_fingerprint != alone.manifest.tokenizer_fingerprint
    held_out = tokens.held_out
    assert held_out is not None
    texts = data.load_tokenizer(tokens.manifest).decode_documents(held_out.validation)
    assert sorted(texts) == sorted(text.encode() for text in HELD_OUT)


def test_one_document_is_enough_on_each_side(config: DataConfig, tmp_path: Path) -> None:
    write(tmp_path, {"train.jsonl": jsonl(TEXTS[-1:]), "validation.jsonl": jsonl(HELD_OUT[:1])})
    manifest = data.prepare(config).manifest
    assert (manifest.train_documents, manifest.validation_documents) == (1, 1)


def test_a_validation_source_that_is_too_short_is_named(config: DataConfig) -> None:
    run = RunConfig(
        model=ModelConfig(width=8, layers=1, heads=1, context=512),
        optimizer=OptimizerConfig(peak_lr=1e-3, batch_sequences=1),
        data=replace(config, max_epochs=1e6),
        tokens=512,
    )
    tokens = data.prepare(config)
    assert tokens.held_out is not None
    with pytest.raises(UserError, match=r"validation split of .*validation\.jsonl has \d+ tokens, too few"):
        data.check_enough(tokens, replace(run, model=replace(run.model, context=1024), tokens=1024))
    shortfall = ValidationSet(tokens, 16, 10**6).shortfall
    assert "validation.jsonl holds out only" in shortfall and shortfall.endswith("all scored; give more of it")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_source": "stdlib"}, "'stdlib' is trained on too"),
        ({"validation_source": "mix: 1 * a + 1 * b"}, "give one source, no mixture"),
        ({"validation_source": " "}, "give one source"),
        ({"validation_source": "synthetic:zipf-fact"}, "did you mean 'zipf-facts'"),
        ({"source": "mix: 1 * a + 1 * b", "validation_source": "b"}, "'b' is trained on too"),
        ({"validation_source": 3}, r"validation_source = 3: must be of type"),
    ],
)
def test_what_cannot_be_one_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataConfig(**changes)  # type: ignore[arg-type]


def test_runs_without_one_keep_their_ids() -> None:
    run = RunConfig(
        model=ModelConfig(width=8, layers=1, heads=1, context=16),
        optimizer=OptimizerConfig(peak_lr=1e-3, batch_sequences=1),
        tokens=16,
    )
    older = run.to_json()
    del older["data"]["validation_source"]
    assert RunConfig.from_json(older) == run and RunConfig.from_json(older).run_id == run.run_id
    assert replace(run, data=DataConfig(validation_source="books/")).run_id != run.run_id


def test_the_verb_shows_both(config: DataConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("data", config.source, "--validation-source", config.validation_source) == 0
    out = capsys.readouterr().out.replace("\n", "")
    assert f"corpus {config.source}" in out and f"corpus {config.validation_source}, to validate on" in out
    assert "baselines in bits per byte of validation text" in out and "were asked for" not in out
