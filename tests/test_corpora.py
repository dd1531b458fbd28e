"""Corpora: disjoint splits that follow the texts, duplicates, packed files and tables, and what cannot be read."""

import gzip
import hashlib
import os
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from helpers.texts import TEXTS, config, jsonl, texts_by_split, write

from lmscale.core.config import synthetic
from lmscale.core.errors import UserError
from lmscale.lm.data import corpora
from lmscale.lm.data.corpora import sources, text_formats


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("LMSCALE_ALLOW_DOWNLOAD", raising=False)


def test_splits_depend_on_the_texts_and_on_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write(tmp_path / "one", {f"{i}.txt": text for i, text in enumerate(TEXTS)})
    two = write(tmp_path / "two", {"sub/all.jsonl": jsonl(TEXTS[::-1])})
    first = corpora.prepare(config(one))
    texts = texts_by_split(first)
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "another cache"))  # else the second would find the first's
    second = corpora.prepare(config(two))
    assert first.fingerprint == second.fingerprint
    assert texts == texts_by_split(second)
    assert sorted(texts["train"] + texts["validation"]) == sorted(text.encode() for text in TEXTS)
    assert first.train_documents + first.validation_documents == len(TEXTS)
    assert first.validation_bytes == sum(map(len, texts["validation"]))
    assert corpora.prepare(config(one, validation_fraction=0.6)).fingerprint != first.fingerprint


def test_a_text_keeps_its_split_when_others_join(tmp_path: Path) -> None:
    few, more = tmp_path / "few.jsonl", tmp_path / "more.jsonl"
    many = [f"text number {i}" for i in range(400)]
    few.write_bytes(jsonl(many[:200]))
    more.write_bytes(jsonl(many))
    small, large = texts_by_split(corpora.prepare(config(few))), texts_by_split(corpora.prepare(config(more)))
    assert set(small["train"]) < set(large["train"]) and set(small["validation"]) < set(large["validation"])
    assert 0.2 < len(large["validation"]) / 400 < 0.4


def test_exact_duplicates_go_within_and_across_splits_and_are_counted(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a.jsonl": jsonl(TEXTS + TEXTS[:5]), "b.txt": TEXTS[7], "empty.txt": " \n"})
    corpus = corpora.prepare(config(source))
    everything = texts_by_split(corpus)["train"] + texts_by_split(corpus)["validation"]
    assert len(everything) == len(set(everything)) == len(TEXTS)
    assert (corpus.duplicates_removed, corpus.empty_removed) == (6, 1)


def test_compressed_files_give_the_same_text(tmp_path: Path) -> None:
    lines = jsonl(TEXTS)
    plain = write(tmp_path / "plain", {"a.jsonl": lines})
    frames = zstandard.compress(lines[:70]) + zstandard.compress(lines[70:])
    packed = {"gz": {"a.jsonl.gz": gzip.compress(lines)}, "zst": {"a.jsonl.zst": frames}}
    expected = corpora.prepare(config(plain)).fingerprint
    for name, texts in packed.items():
        assert corpora.prepare(config(write(tmp_path / name, texts))).fingerprint == expected


def test_unusable_files_are_named_with_their_reason_and_give_nothing(tmp_path: Path) -> None:
    whole = jsonl(TEXTS)
    broken = jsonl([f"never to be seen {i} {os.urandom(4000).hex()}" for i in range(200)])
    source = write(
        tmp_path / "in",
        {
            "good.jsonl": whole,
            "cut.jsonl.gz": gzip.compress(broken)[:-100],
            "cut.jsonl.zst": zstandard.compress(broken)[:-100],
            "no.gz": b"not gzip",
            "no.zst": b"not zstd",
            "latin.txt": "é".encode("latin-1"),
            "image.txt": b"\0\1",
            "table.csv": "a,b",
            "lines.jsonl": b'{"text": "kept"}\n{"text": 3}\n[]\n{"body": ""}\nnope\n{"text": "\\ud800"}\n\n{"text": 4}',
        },
    )
    (source / "dangling.txt").symlink_to(source / "nowhere")
    corpus = corpora.prepare(config(source))
    reasons: dict[str, str] = {}
    for item in corpus.skipped:
        reasons[item.path] = reasons.get(item.path, "") + item.reason + "; "
    assert reasons.keys() == {path.name for path in source.iterdir()} - {"good.jsonl"}
    for path, part in {
        "cut.jsonl.gz": "end",
        "cut.jsonl.zst": "end is missing",
        "no.gz": "gzip",
        "no.zst": "corrupt",
        "latin.txt": "not UTF-8 at byte 0",
        "image.txt": "zero bytes",
        "table.csv": "neither text nor JSON lines",
        "dangling.txt": "No such file",
    }.items():
        assert part in reasons[path], path
    for part in ("2 lines whose field 'text' is not text, first line 2", "fields 'body'", "surrogate", "not JSON"):
        assert part in reasons["lines.jsonl"]
    assert corpus.train_documents + corpus.validation_documents == len(TEXTS) + 1


def test_one_text_file_is_cut_into_passages_without_loss(tmp_path: Path) -> None:
    paragraphs = "\n\n".join(f"paragraph {i} " + "word " * 60 for i in range(200)).encode()
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbf" + paragraphs)
    corpus = corpora.prepare(config(path))
    passages = texts_by_split(corpus)["train"] + texts_by_split(corpus)["validation"]
    assert len(passages) == 8
    assert sum(map(len, passages)) == len(paragraphs) and all(passage in paragraphs for passage in passages)
    assert all(passage.endswith(b"\n\n") for passage in passages if not paragraphs.endswith(passage))
    assert b"".join(text_formats.passages([paragraphs])) == paragraphs
    assert b"".join(text_formats.passages([b"x" * 30_000])) == b"x" * 30_000


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, "which holds no files"),
        ({".hidden": "text"}, "which holds no files"),
        ({"a.txt": b"\xff", "b.txt": " "}, r"no text to use .*a.txt: not UTF-8 at byte 0; 1 empty"),
        ({"a.jsonl": jsonl(["one"], "body")}, r"without the field 'text', first line 1 with fields 'body'"),
        ({"a.txt": "same", "b.txt": "same"}, "holds one document"),
    ],
)
def test_a_source_without_text_is_refused(tmp_path: Path, texts: dict[str, str | bytes], message: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=message):
        corpora.prepare(config(write(tmp_path / "in", texts)))


def test_an_empty_file_is_said_to_be_one(tmp_path: Path) -> None:
    (path := tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match=r"no text to use in .*empty\.txt, which is empty; give"):
        corpora.prepare(config(path))


def test_a_source_that_is_not_there_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'stdlib'"):
        corpora.prepare(config("stdlb"))
    with pytest.raises(UserError, match="no file or folder"):
        corpora.prepare(config(tmp_path / "nowhere"))
    assert not (tmp_path / "cache").exists()


def test_neither_split_stays_empty(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a.txt": "one", "b.txt": "two", "c.txt": "three"})
    for fraction, expected in ((1e-9, 1), (1 - 1e-9, 2)):
        assert corpora.prepare(config(source, validation_fraction=fraction)).validation_documents == expected


def test_the_standard_library_is_about_thirty_megabytes_of_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = sources.stdlib_listing(sources.stdlib_folder())
    size = sum(size for _, size, _, _ in listing)
    assert size > 5e6  # 32 MB with the test packages, which some distributions leave out
    assert not [path for path, *_ in listing if "site-packages" in path or "_sysconfigdata" in path]
    some = write(tmp_path / "lib", {f"m{i}.py": f"'''Module {i}.'''\nx = {i}\n" for i in range(9)})
    write(
        some, {"site-packages/other.py": "no", "__pycache__/m1.py": "no", "_sysconfigdata__linux.py": "no", "a.txt": ""}
    )
    monkeypatch.setattr(sources, "stdlib_folder", lambda: some)
    corpus = corpora.prepare(config("stdlib"))
    assert corpus.train_documents + corpus.validation_documents == 9 and not corpus.skipped
    assert "standard library of" in corpus.source
    (some / "__pycache__/m2.pyc").write_text("compiled since")
    assert corpora.find_corpus(config("stdlib")) == corpus
    monkeypatch.setattr(sources, "stdlib_folder", lambda: write(tmp_path / "bare", {"a.pyc": ""}))
    with pytest.raises(UserError, match="keeps no source of its standard library"):
        corpora.prepare(config("stdlib"))


@pytest.mark.long
def test_a_test_split_comes_from_the_highest_hashes_and_only_shortens_the_training_split(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl([f"text number {i}" for i in range(400)]))
    without, small, large = (corpora.prepare(config(path, test_fraction=fraction)) for fraction in (0.0, 0.1, 0.2))
    texts = [texts_by_split(corpus) for corpus in (without, small, large)]
    assert texts[0]["test"] == [] and without.test_documents == 0
    assert 20 < small.test_documents < 60 < large.test_documents < 100
    for split in texts[1:]:
        assert split["validation"] == texts[0]["validation"]
        assert split["train"] + split["test"] == texts[0]["train"]
    hashes = [hashlib.sha256(text).digest() for split in corpora.SPLITS for text in texts[2][split]]
    ordered = sorted(hashes)
    assert hashes[: large.train_documents] == ordered[large.validation_documents : -large.test_documents]
    assert small.test_bytes == sum(map(len, texts[1]["test"]))


def test_no_split_that_was_asked_for_stays_empty(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {f"{i}.txt": f"text {i}" for i in range(3)})
    for validation, test in ((1e-9, 1e-9), (0.6, 0.39), (1e-9, 0.99)):
        corpus = corpora.prepare(config(source, validation_fraction=validation, test_fraction=test))
        assert [corpus.documents(split) for split in corpora.SPLITS] == [1, 1, 1]
    two = write(tmp_path / "two", {f"{i}.txt": f"text {i}" for i in range(2)})
    with pytest.raises(UserError, match=r"holds 2 different documents, so none can be held out for the test.*least 3"):
        corpora.prepare(config(two, test_fraction=0.1))


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_parquet_gives_the_same_text_as_jsonl(tmp_path: Path, ending: str) -> None:
    table = pyarrow.table({"text": TEXTS, "id": range(len(TEXTS))})
    plain = tmp_path / "table"
    pyarrow.parquet.write_table(table, plain, row_group_size=5)
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[ending]
    packed = write(tmp_path / "in", {f"a.parquet{ending}": pack(plain.read_bytes())})
    corpus = corpora.prepare(config(packed))
    assert corpus.fingerprint == corpora.prepare(config(write(tmp_path / "as", {"a.jsonl": jsonl(TEXTS)}))).fingerprint


def test_parquet_that_cannot_be_used_is_named_with_its_reason(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"good.jsonl": jsonl(TEXTS), "no.parquet": b"PAR1 not at all"})
    columns = {
        "other": {"body": ["a"]},
        "numbers": {"text": [1, 2]},
        "missing": {"text": ["one more text", None, None]},
    }
    for name, table in columns.items():
        pyarrow.parquet.write_table(pyarrow.table(table), source / f"{name}.parquet")
    corpus = corpora.prepare(config(source))
    reasons = {item.path: item.reason for item in corpus.skipped}
    assert reasons.keys() == {"no.parquet", "other.parquet", "numbers.parquet", "missing.parquet"}
    for name, part in {
        "no": "corrupt: ",
        "other": "without the column 'text', with 'body'",
        "numbers": "column 'text' is not text: int64",
        "missing": "2 rows without a text",
    }.items():
        assert part in reasons[f"{name}.parquet"]
    assert sum(corpus.documents(split) for split in corpora.SPLITS) == len(TEXTS) + 1


def test_unreadable_text_is_refused_where_that_is_asked_and_a_table_beside_it_is_none(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"good.jsonl": jsonl(TEXTS), "stats.json": "{}"})
    assert corpora.prepare(config(source, unreadable="refuse")).skipped[0].foreign
    write(source, {"latin.txt": "é".encode("latin-1"), "lines.jsonl": b"nope\n"})
    with pytest.raises(UserError, match=r"2 parts of .* cannot be read: latin.txt: not UTF-8 at byte 0; lines"):
        corpora.prepare(config(source, unreadable="refuse"))
    assert len(corpora.prepare(config(source)).skipped) == 3


def test_near_duplicates_go_when_asked_and_distant_texts_stay(tmp_path: Path) -> None:
    pytest.importorskip("datasketch")
    long = [" ".join(f"word{(i * 7919 + j) % 1000}" for j in range(200)) for i in range(8)]
    near = [text.replace("word5 ", "other ") + " end" for text in long[:3]]
    source = write(tmp_path / "in", {f"{i}.txt": text for i, text in enumerate(long + near)})
    plain, without = corpora.prepare(config(source)), corpora.prepare(config(source, near_duplicates=0.7))
    assert (plain.near_duplicates_removed, without.near_duplicates_removed) == (0, 3)
    left = texts_by_split(without)["train"] + texts_by_split(without)["validation"]
    assert {text.split()[10] for text in left} == {text.encode().split()[10] for text in long} and len(left) == 8
    assert without.duplicates_removed == 0 and "datasketch" in without.versions


def test_near_duplicates_without_their_library_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    source = write(tmp_path / "in", {f"{i}.txt": text for i, text in enumerate(TEXTS)})
    with pytest.raises(UserError, match=r"pip install 'lmscale\[near-duplicates\]'"):
        corpora.prepare(config(source, near_duplicates=0.7))


@pytest.mark.long
def test_a_finite_sample_of_a_language_is_a_corpus_like_any_other() -> None:
    source = "synthetic:tasks(letters=4, length=6, documents=40, document_tokens=200)"
    corpus = corpora.prepare(config(source))
    texts = [text.decode() for split in texts_by_split(corpus).values() for text in split]
    assert len(texts) == 40 == sum(corpus.documents(split) for split in corpora.SPLITS)
    assert all(
        line.partition(" ")[0] in synthetic.TASK_WORDS.values() and "=" in line for t in texts for line in t.split("\n")
    )
    assert corpora.find_corpus(config(source)) == corpus
    with pytest.raises(UserError, match="is endless; give documents=N"):
        corpora.prepare(config("synthetic:tasks"))
