"""Data sets of TFDS as sources of text."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.texts import TEXTS, config, jsonl, texts_by_split, write

from lmscale.core.errors import UserError
from lmscale.lm.data import corpora
from lmscale.lm.data.corpora import tfds, tfds_download, tfds_write


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("LMSCALE_ALLOW_DOWNLOAD", raising=False)


def make_dataset(folder: Path, texts: dict[str, list[str]]) -> None:
    tfds_write.write_dataset(
        folder,
        list(texts),
        lambda split: ((i, {"id": str(i), "text": text, "source": split}) for i, text in enumerate(texts[split])),
    )


def test_the_record_writers_full_disk_is_an_os_error(tmp_path: Path) -> None:
    def examples(split: str) -> Iterator[tuple[int, dict[str, str]]]:
        yield 0, {"id": "a", "text": "a", "source": "a"}
        raise RuntimeError("write() failed: No space left on device; writing somewhere")

    with pytest.raises(OSError, match="No space left"):
        tfds_write.write_dataset(tmp_path, ["train"], examples)


def test_a_tfds_data_set_is_read_where_it_lies_and_equals_the_same_text_in_files(tmp_path: Path) -> None:
    make_dataset(tmp_path / "tfds", {"train": [*TEXTS, TEXTS[0]], "test": ["kept for tests"]})
    corpus = corpora.prepare(config("tfds:documents"))
    files = corpora.prepare(config(write(tmp_path / "in", {"a.jsonl": jsonl(TEXTS)})))
    assert corpus.folder == files.folder and texts_by_split(corpus) == texts_by_split(files)
    assert corpus.fingerprint == files.fingerprint and corpus.duplicates_removed == 1
    assert corpora.find_corpus(config("tfds:documents")) == corpus == corpora.prepare(config("tfds:documents:1.0.0"))
    with pytest.raises(UserError, match=r"no feature 'txt'.*did you mean 'text'"):
        corpora.prepare(config("tfds:documents", text_field="txt"))


def test_what_was_prepared_of_the_hub_is_read_and_nothing_is_asked_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / "tfds", {"train": TEXTS})
    (tmp_path / "tfds/documents").rename(tmp_path / "tfds/owner__name")
    monkeypatch.setattr(tfds.tfds(), "builder", lambda *_, **__: pytest.fail("asked the network"))
    corpus = corpora.prepare(config("tfds:huggingface:owner__name"))
    assert sorted(texts_by_split(corpus)["train"] + texts_by_split(corpus)["validation"]) == sorted(
        text.encode() for text in TEXTS
    )
    assert corpus.source == "tfds:huggingface:documents/1.0.0"
    features = tfds.tfds().features
    assert tfds_download._is_text(features.Scalar(np.object_)) and not tfds_download._is_text(features.Scalar(np.int64))
    assert not tfds_download._is_text(features.Sequence(features.Text()))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("httpx.ConnectError: name not known"), "no network reaches its host"),
        (ModuleNotFoundError("No module named 'datasets'", name="datasets"), "needs the package datasets"),
        (RuntimeError("owner__name is not listed"), "could not prepare .*: owner__name is not listed"),
    ],
)
def test_a_download_from_the_hub_that_fails_says_why(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(tfds.tfds(), "builder", fail)
    with pytest.raises(UserError, match=message):
        corpora.prepare(config("tfds:huggingface:owner__name"), allow_download=True)


def test_splits_that_are_not_called_train_are_joined(tmp_path: Path) -> None:
    make_dataset(tmp_path / "tfds", {"a": TEXTS[:5], "b": TEXTS[5:]})
    texts = texts_by_split(corpora.prepare(config("tfds:documents")))
    assert sorted(texts["train"] + texts["validation"]) == sorted(text.encode() for text in TEXTS)


def test_a_lost_tfds_data_set_is_not_believed(tmp_path: Path) -> None:
    make_dataset(tmp_path / "tfds", {"train": TEXTS})
    corpora.prepare(config("tfds:documents"))
    (tmp_path / "tfds/documents").rename(tmp_path / "tfds/elsewhere")
    assert corpora.find_corpus(config("tfds:documents")) is None
    with pytest.raises(UserError, match="knows no data set 'documents'"):
        corpora.prepare(config("tfds:documents"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tfds:lm1bb", "knows no data set 'lm1bb'.*lm1b"),
        ("tfds:wiki40bb", "wiki40b"),
        ("tfds:imdb_reviews/plain", "no configuration 'plain'.*plain_text"),
        ("tfds:imdb_reviews:9.9.9", "only: 1.0.0"),
        ("tfds:no name!", r"tfds:NAME\[/CONFIG\]"),
        ("tfds:lm1b", "--allow-download"),
        ("tfds:wiki40b/en", "--allow-download"),
        ("tfds:huggingface:imdb", "--allow-download"),
        ("tfds:huggingface:a b", "write tfds:huggingface:OWNER__REPOSITORY"),
    ],
)
def test_a_name_that_cannot_be_read_is_said_and_nothing_is_downloaded(
    source: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfds_download, "_download", lambda *_: pytest.fail("downloaded unasked"))
    with pytest.raises(UserError, match=message):
        corpora.prepare(config(source))


@pytest.mark.parametrize("asked", ["argument", "environment"])
def test_without_a_network_a_download_that_was_asked_for_fails_with_a_sentence(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    def dead(*_: object, **__: object) -> None:
        raise requests.exceptions.ConnectionError("Failed to resolve host")

    monkeypatch.setattr(requests.Session, "get", dead)
    monkeypatch.setenv("LMSCALE_ALLOW_DOWNLOAD", "1" if asked == "environment" else "0")
    with pytest.raises(UserError, match="no network reaches its host"):
        corpora.prepare(config("tfds:lm1b"), allow_download=asked == "argument")


def test_every_document_can_be_named(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a.jsonl": jsonl(TEXTS[:6]), "b.jsonl": jsonl(TEXTS[6:])})
    others = [f"another {text}" for text in TEXTS]
    make_dataset(tmp_path / "tfds", {"train": others})
    local, dataset = corpora.prepare(config(source)), corpora.prepare(config("tfds:documents"))
    for corpus, texts in ((local, TEXTS), (dataset, others)):
        for number, text in enumerate(texts_by_split(corpus)["train"]):
            document, place = corpus.document("train", number), texts.index(text.decode())
            assert document.text == text
            assert document.id == (str(place) if corpus is dataset else f"{'ab'[place // 6]}.jsonl:{place % 6 + 1}")
    with pytest.raises(UserError, match=r"validation split .* has no document 99; it has \d+"):
        local.document("validation", 99)


@pytest.mark.long
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "documents-train.array_record-00000-of-00001"])
@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b'{"splits": 3, "features": null}', b"\0" * 70_000])
def test_a_damaged_tfds_data_set_is_said_in_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    make_dataset(tmp_path / "tfds", {"train": TEXTS})
    corpora.prepare(config("tfds:documents"))
    (path,) = tfds.data_folder().rglob(name)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"(is damaged|TFDS cannot open|has no feature).*") as error:
        corpora.prepare(config("tfds:documents"))
    assert "\n" not in str(error.value)
