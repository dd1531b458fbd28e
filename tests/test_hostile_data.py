"""Sources, tokenizers and settings that cannot be used: one sentence each, and never a traceback."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.texts import TEXTS, config, jsonl, write

from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data.tokenizer import FileTokenizer, train_bpe


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


@pytest.mark.parametrize("place", ["source", "validation_source", "tokenizer"])
@pytest.mark.parametrize(
    "path", ["~nobody-of-that-name/x", "zero\0byte", "x" * 5000, "/dev/zero", "/dev/null/x", "\udcff"]
)
def test_an_unusable_path_is_reported(tmp_path: Path, place: str, path: str) -> None:
    source = str(write(tmp_path / "in", {"a.jsonl": jsonl(TEXTS)}))
    value = f"{path}.json" if place == "tokenizer" else path
    with pytest.raises(UserError) as error:
        data.prepare(DataConfig(**{"source": source, place: value}))  # type: ignore[arg-type]
    assert len(str(error.value)) < 6000 and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(train_bpe(262, [[text.encode() for text in TEXTS]], "texts"))
    return content


def replaced(content: dict[str, Any], path: str, value: object) -> str:
    """The JSON of `content` with another value at a path of keys."""
    content = copy.deepcopy(content)
    *outer, last = path.split(".")
    inner: Any = content
    for key in outer:
        inner = inner[int(key) if key.isdigit() else key]
    inner[int(last) if last.isdigit() else last] = value
    return json.dumps(content)


@pytest.mark.parametrize("value", [None, True, -1, 1.5, 10**400, 1 << 24, "x", [], {}, [[1]], "\ud800"], ids=repr)
@pytest.mark.parametrize(
    "path", ["added_tokens", "added_tokens.0", "added_tokens.0.id", "added_tokens.0.content", "model", "model.vocab",
             "model.vocab.a", "model.merges", "decoder", "decoder.type", "pre_tokenizer.type"],
)  # fmt: skip
def test_a_tokenizer_with_other_values_reads_the_same_or_is_refused(
    tmp_path: Path, trained: dict[str, Any], path: str, value: object
) -> None:
    text = TEXTS[3]
    try:
        changed = FileTokenizer(replaced(trained, path, value), "t.json")
        tokens, _ = changed.encode_documents([text.encode()])
        assert changed.decode_documents(tokens) == [text.encode()]
        assert changed.byte_lengths[tokens].sum() == len(text.encode())
    except UserError as error:
        assert "t.json" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 5000, '{"model": {"vocab": "' + "x" * 9])
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(UserError, match=r"t\.json is no tokenizer\.json"):
        data.prepare(config(write(tmp_path / "in", {"a.jsonl": jsonl(TEXTS)}), tokenizer=str(tmp_path / "t.json")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "bpe:" + "9" * 5000}, "at most 4,194,304 ids"),
        ({"tokenizer": "bpe:99999999999"}, "at most 4,194,304 ids"),
        ({"unique_tokens": 10**400}, "unique_tokens is beyond"),
        ({"validation_fraction": 10**400}, "validation_fraction is beyond"),
        ({"max_epochs": float("nan")}, "must be positive"),
    ],
)
def test_numbers_without_measure_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataConfig(**changes)


def test_a_kind_that_is_no_word_is_refused() -> None:
    run = RunConfig(
        model=ModelConfig(width=8, layers=1, heads=1, context=16),
        optimizer=OptimizerConfig(peak_lr=1e-3, batch_sequences=1),
        tokens=16,
    )
    kinds: list[object] = [[], {}, None, 3]
    for kind in kinds:
        with pytest.raises(UserError, match=re.escape(f"objective.kind = {kind!r}: one of")):
            RunConfig.from_json({**run.to_json(), "objective": {"kind": kind}})
