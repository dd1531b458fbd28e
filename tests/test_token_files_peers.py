"""megatron-core, datatrove and datasets write documents now; they are read as those that they wrote before."""

import itertools
import json
from pathlib import Path

import pytest
from helpers.peers import call_peer
from helpers.token_files import DOCUMENTS, IDS, TEXTS

from lmscale.core.config import DataConfig
from lmscale.lm import data

pytestmark = pytest.mark.slow
WRITTEN = {
    "megatron": ["megatron_uint16.bin", "megatron_int32.bin"],
    "datatrove": ["datatrove_megatron.bin", "datatrove.ds"],
    "datasets": ["datasets_ids", "datasets_splits"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("peers")
    (root / "documents.json").write_text(json.dumps(DOCUMENTS), encoding="utf-8")
    writers = call_peer("write_tokens.py", root / "documents.json", root / "out")
    (root / "out" / "writers.json").write_text(writers, encoding="utf-8")
    return root / "out"


def prepared(folder: Path, writer: str, name: str, monkeypatch: pytest.MonkeyPatch) -> data.Tokens:
    if writer not in json.loads((folder / "writers.json").read_text(encoding="utf-8")):
        pytest.skip(f"the Python with peers has no {writer}")
    monkeypatch.setenv("LMSCALE_CACHE", str(folder / "cache"))
    return data.prepare(DataConfig(source=f"tokens:{folder / name}", validation_fraction=0.3))


@pytest.mark.parametrize(("writer", "name"), [(writer, name) for writer, names in WRITTEN.items() for name in names])
def test_ids_are_those_that_were_written(writer: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = prepared(folder, writer, name, monkeypatch)
    splits = [(tokens.train[:], tokens.train_starts), (tokens.validation[:], tokens.validation_starts)]
    assert sorted(row[a:b].tolist() for row, starts in splits for a, b in itertools.pairwise(starts)) == sorted(IDS)


def test_text_is_that_which_was_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = prepared(folder, "datasets", "datasets_text", monkeypatch)
    tokenizer = data.load_tokenizer(tokens.manifest)
    texts = [*tokenizer.decode_documents(tokens.train[:]), *tokenizer.decode_documents(tokens.validation[:])]
    assert sorted(texts) == sorted(text.encode() for text in TEXTS)
