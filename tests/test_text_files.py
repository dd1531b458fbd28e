"""Files and folders as people keep them: every one is read for what it is, or named with the reason why not."""

import bz2
import contextlib
import gzip
import json
import lzma
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from helpers.texts import TEXTS, config, jsonl, texts_by_split, write

from lmscale.core.errors import UserError
from lmscale.lm.data import corpora
from lmscale.lm.data.corpora import chunks, text_formats

pytestmark = pytest.mark.usefixtures("own_cache")


def texts(corpus: corpora.Corpus) -> list[str]:
    return sorted(text.decode() for split in texts_by_split(corpus).values() for text in split)


def reasons(corpus: corpora.Corpus) -> dict[str, str]:
    return {item.path: item.reason for item in corpus.skipped}


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "a.jl", "a.jsonlines", "a.ndjson", "a.ldjson", "a.json", "a.json.gz", "A.JSONL", "A.JSONL.GZ", "a.Json.Zst",
        "part-00000", "part-00000.gz", "a.txt", "a.jsonl.bak",
    ],
)  # fmt: skip
def test_json_lines_are_read_under_any_name(tmp_path: Path, name: str) -> None:
    content = jsonl(TEXTS)
    packed = gzip.compress(content) if name.lower().endswith("gz") else content
    packed = zstandard.compress(content) if name.lower().endswith("zst") else packed
    corpus = corpora.prepare(config(write(tmp_path / "in", {name: packed})))
    assert texts(corpus) == sorted(TEXTS) and not corpus.skipped


def test_a_record_longer_than_what_is_looked_at_is_a_record(tmp_path: Path) -> None:
    long = ["long " * 40_000, "other " * 40_000]
    assert texts(corpora.prepare(config(write(tmp_path / "in", {"books.txt": jsonl(long)})))) == sorted(long)


def test_text_that_holds_some_json_stays_text(tmp_path: Path) -> None:
    prose = ['{"a": 1}\nand then prose', "{}\n{}\n", "[1, 2]\n", "{ not JSON }\n", '"quoted": {']
    corpus = corpora.prepare(config(write(tmp_path / "in", {f"{i}.txt": text for i, text in enumerate(prose)})))
    assert texts(corpus) == sorted(prose)


def parquet() -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), sink)
    return bytes(sink.getvalue())


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", gzip.compress(b"text"), "holds gzip, not text; rename it to end in .gz"),
        ("a.jsonl", gzip.compress(jsonl(TEXTS)), "holds gzip"),
        ("a.txt.gz", gzip.compress(gzip.compress(b"text")), "holds gzip"),
        ("a.jsonl", zstandard.compress(jsonl(TEXTS)), "holds zstd"),
        ("a.md", parquet(), "holds Parquet, not text; rename it to end in .parquet"),
        ("a.jsonl.bz2", bz2.compress(jsonl(TEXTS)), "holds bzip2, not text; unpack it"),
        ("a.txt.xz", lzma.compress(b"text"), "holds xz"),
        ("a.zip", b"PK\3\4...", "holds a zip archive"),
        ("a.tar.gz", gzip.compress(b"name".ljust(257, b"\0") + b"ustar"), "holds a tar archive"),
        ("a.txt", "text".encode("utf-16"), "holds UTF-16"),
        ("a.pdf", b"%PDF-1.7", "holds a PDF"),
        ("a.json", json.dumps([{"text": "one"}, {"text": "two"}])[:-1], "not a whole JSON array"),
        ("a.txt", '[\n {"text": "one"}] more', "not a whole JSON array"),
        ("info.json", '{\n "features": 1\n}', "one JSON value, not JSON lines"),
        ("info.json", '{"features": 1}', "one JSON value without the field 'text'"),
    ],
    ids=range(15),
)
def test_other_formats_are_named_and_never_read_as_text(
    tmp_path: Path, name: str, content: bytes | str, reason: str
) -> None:
    source = write(tmp_path / "in", {"good.jsonl": jsonl(TEXTS), name: content})
    corpus = corpora.prepare(config(source))
    assert texts(corpus) == sorted(TEXTS)
    assert reasons(corpus).keys() == {name} and reason in reasons(corpus)[name]
    with pytest.raises(UserError, match=f"no text to use in .*{reason[:20]}"):
        corpora.prepare(config(source / name))


def test_an_array_of_records_is_read_as_lines_of_them_are(tmp_path: Path) -> None:
    array = json.dumps([{"text": text, "id": 1} for text in TEXTS[3:]] + [3], indent=1)
    files = {"a.jsonl": jsonl(TEXTS[:3]), "b.json": array, "c.txt.gz": gzip.compress(b'\xef\xbb\xbf[{"text": "one"}]')}
    corpus = corpora.prepare(config(write(tmp_path / "in", files)))
    assert texts(corpus) == sorted([*TEXTS, "one"])
    assert reasons(corpus) == {"b.json": f"1 record not a JSON object, first record {len(TEXTS) - 2}"}


def test_lines_end_at_newlines_alone_and_marks_of_byte_order_are_no_text(tmp_path: Path) -> None:
    prose = ["one\u2028two", "three\u2029four\x85five\x0bsix"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in prose]
    content = "\ufeff" + "\r\n".join(lines) + '\r\n\ufeff{"text": "joined"}'
    assert texts(corpora.prepare(config(write(tmp_path / "in", {"a.jsonl": content})))) == sorted([*prose, "joined"])


def test_linked_folders_are_read_once_and_circles_end(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"b.jsonl": jsonl(TEXTS[:5]), "sub/c.txt": TEXTS[5]})
    write(tmp_path / "real", {"a.jsonl": jsonl(TEXTS[6:])})
    links: dict[str, str | Path] = {
        "more": tmp_path / "real",
        "again": tmp_path / "real",
        "sub/up": source,
        "self": "self",
    }
    for link, target in links.items():
        (source / link).symlink_to(target)
    (tmp_path / "real/back").symlink_to(source)
    corpus = corpora.prepare(config(source))
    assert texts(corpus) == sorted(TEXTS) and corpus.duplicates_removed == 0
    assert reasons(corpus) == {"self": "Too many levels of symbolic links"}
    write(tmp_path / "real", {"d.txt": "new"})
    assert corpora.find_corpus(config(source)) is None  # a linked folder is watched too


def test_what_is_hidden_is_named(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in",
        {
            "a.jsonl": jsonl(TEXTS),
            ".b.jsonl": jsonl(["no"]),
            ".git/c.txt": "no",
            "__pycache__/d.txt": "no",
            "e/.f": "no",
        },
    )
    corpus = corpora.prepare(config(source, unreadable="refuse"))
    assert texts(corpus) == sorted(TEXTS)
    assert reasons(corpus) == {
        ".b.jsonl": "hidden, so it is not read",
        ".git/": "hidden, so it is not read",
        "__pycache__/": "a cache of Python, so it is not read",
        "e/.f": "hidden, so it is not read",
    }


def test_names_need_not_be_utf8_nor_printable(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"\\xff.txt": TEXTS[0], "\x1b[2J.txt": TEXTS[1]})
    with contextlib.suppress(OSError):  # some file systems take no such name
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).write_text(TEXTS[2])
    corpus = corpora.prepare(config(folder))
    assert len(texts(corpus)) == len(list(folder.iterdir()))
    names = {corpus.document(split, i).id for split in corpora.SPLITS for i in range(corpus.documents(split))}
    assert len(names) == len(texts(corpus)) and "\\x1b[2J.txt" in names and "\\xff.txt" in names


def test_pipes_are_named_and_not_waited_for(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a.jsonl": jsonl(TEXTS)})
    os.mkfifo(source / "pipe.txt")
    assert reasons(corpora.prepare(config(source))) == {"pipe.txt": "no regular file"}
    with pytest.raises(UserError, match="no regular file"):
        corpora.prepare(config(source / "pipe.txt"))


def test_what_unpacks_to_far_more_than_text_does_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "TRUSTED_BYTES", 1 << 20)
    bomb = b"a" * (8 << 20)
    files = {
        "a.txt.gz": gzip.compress(bomb),
        "b.jsonl.zst": zstandard.compress(bomb),
        "c.txt.gz": gzip.compress(b"fine"),
    }
    corpus = corpora.prepare(config(write(tmp_path / "in", {**files, "good.jsonl": jsonl(TEXTS)})))
    assert reasons(corpus) == dict.fromkeys(
        ("a.txt.gz", "b.jsonl.zst"), "unpacks to more than 250 times its size, which no text does"
    )
    assert texts(corpus) == sorted([*TEXTS, "fine"])


def test_lines_and_documents_have_a_longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_formats, "MOST_BYTES", 1 << 20)
    long = "word " * 500_000
    source = write(tmp_path / "in", {"a.jsonl": jsonl([long]), "b.txt": long, "good.jsonl": jsonl(TEXTS)})
    assert all(
        "more than 1,048,576 bytes" in r or "longer than" in r
        for r in reasons(corpora.prepare(config(source))).values()
    )
    with pytest.raises(UserError, match="a line of more than 1,048,576 bytes, too much for one document"):
        corpora.prepare(config(source / "b.txt"))


@pytest.mark.long
def test_passages_and_lines_do_not_depend_on_how_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"{'é' * (i % 700)}{chr(10) * (i % 3)}" for i in range(400)) + "x" * 60_000 + "\n\nend"
    path = tmp_path / "a.txt"
    path.write_text(text)
    whole = list(text_formats.passages([text.encode()]))
    assert b"".join(whole) == text.encode() and len(whole) > 10
    for size in (1, 777, 8192, 1 << 20):
        monkeypatch.setattr(chunks, "READ_BYTES", size)
        assert list(text_formats.passages(text_formats.text_chunks(path))) == whole
        assert list(text_formats.read_lines(path)) == text.encode().split(b"\n")


def test_the_first_byte_that_is_not_utf8_is_named_wherever_pieces_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    for content, at in ((("é" * 10 + "x").encode() + b"\xff", 21), (("é" * 10).encode()[:-1], 18)):
        path.write_bytes(content)
        for size in (1, 4, 100):
            monkeypatch.setattr(chunks, "READ_BYTES", size)
            with pytest.raises(chunks.Unreadable, match=f"not UTF-8 at byte {at}"):
                text_formats.read_text(path)
