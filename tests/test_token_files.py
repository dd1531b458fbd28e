"""Tokens that others wrote are read as NumPy reads them, where they lie; files that are wrong get one sentence.

`golden/tokens` was written by megatron-core 0.16.1, datatrove 0.10.1 and datasets 5.2.0 (`peers/write_tokens.py`) from
the documents of `helpers.token_files`; `test_token_files_peers` writes it again.
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from helpers.token_files import (
    DOCUMENTS,
    END,
    GOLDEN,
    IDS,
    TEXTS,
    config,
    data_set,
    flat,
    llm_c,
    megatron,
    save,
    write_flat,
)

from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data import corpora
from lmscale.lm.data.tokenizer import load, train_bpe

pytestmark = pytest.mark.usefixtures("own_cache")


def every_document(tokens: data.Tokens) -> list[list[int]]:
    """All documents of all splits, in the order of their text."""
    rows = [(row[a:b].tolist()) for row, s in map(tokens.split, corpora.SPLITS) for a, b in itertools.pairwise(s)]
    return sorted(rows)


def text_of(row: Any) -> bytes:
    return bytes(number for number in row[:] if number != END)


def mapped_files() -> set[str]:
    return {line.split()[-1] for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()}


LAYOUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nanoGPT": (lambda at: write_flat(at / "a.bin", "<u2"), "nanoGPT .bin, uint16 without a header"),
    "nanoGPT, wide": (lambda at: write_flat(at / "a.bin", "<u4"), "nanoGPT .bin, uint32 without a header"),
    "llm.c": (lambda at: llm_c(at / "a.bin", flat()), "llm.c .bin, uint16"),
    "llm.c, Llama 3": (lambda at: llm_c(at / "a.bin", flat(), 20240801, 7), "llm.c .bin, uint32"),
    "OLMo": (lambda at: write_flat(at / "a.npy", "<u2"), "OLMo .npy, uint16 without a header"),
    "OLMo, wide": (lambda at: write_flat(at / "a.npy", "<u4"), "OLMo .npy, uint32 without a header"),
    "NumPy": (lambda at: save(at / "a.npy", flat().astype("<u2")), ".npy, uint16"),
    "NumPy, widest": (lambda at: save(at / "a.npy", flat().astype("<u8")), ".npy, uint64"),
    "Megatron": (lambda at: megatron(at / "a"), "Megatron .bin and .idx, uint16"),
    "Megatron, wide": (lambda at: megatron(at / "a", dtype="int32"), "Megatron .bin and .idx, int32"),
}

WRITTEN = {
    "megatron_uint16.bin": "Megatron .bin and .idx, uint16",
    "megatron_int32.idx": "Megatron .bin and .idx, int32",
    "megatron_int32": "Megatron .bin and .idx, int32",
    "datatrove_megatron.bin": "Megatron .bin and .idx, uint16",
    "datatrove.ds": "datatrove .ds, uint32 with its index",
    "datasets_ids": "Arrow column 'input_ids', int32",
    "datasets_ids/data-00000-of-00002.arrow": "Arrow column 'input_ids', int32",
}
"""What the writers of the formats wrote."""


def of_layout(layout: str, folder: Path) -> tuple[Path, str]:
    """The path of a layout, made in `folder` unless its own writer wrote it, and its words."""
    if layout in WRITTEN:
        return GOLDEN / layout, WRITTEN[layout]
    make, words = LAYOUTS[layout]
    return make(folder), words


@pytest.mark.long
@pytest.mark.parametrize("layout", [*LAYOUTS, *WRITTEN])
def test_every_layout_gives_its_documents_and_they_stay_where_they_are(layout: str, tmp_path: Path) -> None:
    path, words = of_layout(layout, tmp_path)
    expected = IDS[:6] if path.suffix == ".arrow" else IDS
    tokens = data.prepare(config(path))
    manifest = tokens.manifest
    assert every_document(tokens) == sorted(expected)
    assert manifest.remarks[0].startswith(words + ", mapped from")
    assert manifest.train_tokens + manifest.validation_tokens == sum(map(len, expected))
    assert manifest.train_bytes + manifest.validation_bytes == sum(len(ids) - 1 for ids in expected)
    assert manifest.train_documents + manifest.validation_documents == len(expected) and manifest.validation_documents
    files = list(path.glob("*.arrow")) or [
        path if path.suffix in (".npy", ".ds", ".arrow") else path.with_suffix(".bin")
    ]
    assert {str(file.resolve()) for file in files} <= mapped_files()
    in_cache = sum(file.stat().st_size for file in manifest.folder.iterdir() if file.name.endswith("spans.npy"))
    assert in_cache == sum(128 + 24 * n for n in map(spans, (tokens.train, tokens.validation)))


def spans(row: Any) -> int:
    return 1 if isinstance(row, np.ndarray) else len(row._spans)


def test_one_document_falls_into_one_split_in_every_layout(tmp_path: Path) -> None:
    held_out = set()
    for number, layout in enumerate(("nanoGPT", "llm.c", "Megatron, wide", "datasets_ids", "datatrove.ds")):
        (folder := tmp_path / str(number)).mkdir()
        tokens = data.prepare(config(of_layout(layout, folder)[0]))
        held_out.add(bytes(tokens.validation[:].astype(np.uint8)))
    assert len(held_out) == 1


def test_ends_before_documents_and_in_a_row_close_no_document_more(tmp_path: Path) -> None:
    opened = flat([[END, *ids[:-1]] for ids in IDS])
    tokens = data.prepare(config(llm_c(tmp_path / "a.bin", opened)))
    closed = data.prepare(config(megatron(tmp_path / "closed")))
    assert text_of(tokens.validation) == text_of(closed.validation) != b""
    assert tokens.manifest.train_documents + tokens.manifest.validation_documents == len(IDS)
    padded = data.prepare(config(write_flat(tmp_path / "b.bin", "<u2", flat([[*ids, END, END] for ids in IDS]))))
    assert padded.manifest.train_documents == tokens.manifest.train_documents


def test_a_folder_brings_its_own_splits(tmp_path: Path) -> None:
    (folder := tmp_path / "nano").mkdir()
    write_flat(folder / "train.bin", "<u2", flat(IDS[:9]))
    write_flat(folder / "val.bin", "<u2", flat(IDS[9:11]))
    (folder / "fineweb_test_000000.bin").write_bytes(flat(IDS[11:]).astype("<u2").tobytes())
    (folder / "meta.pkl").write_bytes(b"")
    tokens = data.prepare(config(folder))
    for split, name in (("train", "train"), ("validation", "val"), ("test", "fineweb_test_000000")):
        row = tokens.split(split)[0]
        assert isinstance(row, np.ndarray) and row.dtype == np.uint16
        np.testing.assert_array_equal(row, np.fromfile(folder / f"{name}.bin", "<u2"))
    assert tokens.manifest.own_splits == ("validation", "test")
    assert [item.path for item in tokens.manifest.skipped] == ["meta.pkl"]
    splits = data.prepare(config(GOLDEN / "datasets_splits"))
    assert (splits.train[:].tolist(), splits.validation[:].tolist()) == (
        flat(IDS[:-2]).tolist(),
        flat(IDS[-2:]).tolist(),
    )


def test_a_column_of_text_is_read_as_text(tmp_path: Path) -> None:
    tokens = data.prepare(config(GOLDEN / "datasets_text", tokenizer="bpe:260"))
    assert tokens.manifest.tokens_path is None and tokens.manifest.vocab == 260
    tokenizer = data.load_tokenizer(tokens.manifest)
    texts = [*tokenizer.decode_documents(tokens.train[:]), *tokenizer.decode_documents(tokens.validation[:])]
    assert sorted(texts) == sorted(text.encode() for text in TEXTS)
    both = data_set(tmp_path / "both", {"a.arrow": pyarrow.table({"text": TEXTS, "input_ids": IDS})})
    assert data.prepare(config(both)).manifest.tokens_path == str(both)  # ids, if no column is named
    assert data.prepare(config(both, text_field="input_ids")).manifest.tokens_path == str(both)


def test_lists_of_every_kind_and_caches_beside_them(tmp_path: Path) -> None:
    kinds = {
        "large": pyarrow.array(IDS, pyarrow.large_list(pyarrow.uint16())),
        "fixed": pyarrow.array([[*range(4), END]] * 3, pyarrow.list_(pyarrow.int16(), 5)),
        "with empty rows": pyarrow.array([[], *IDS, []], pyarrow.list_(pyarrow.uint64())),
    }
    for name, array in kinds.items():
        folder = data_set(tmp_path / name, {"data.arrow": pyarrow.table({"ids": array})})
        (folder / "cache-12.arrow").write_bytes(b"of another call")
        tokens = data.prepare(config(folder, text_field="ids", validation_source=f"tokens:{GOLDEN / 'datatrove.ds'}"))
        np.testing.assert_array_equal(tokens.components[0].train[:], np.concatenate(array.to_numpy(False)))


def test_how_documents_are_separated_is_reported(tmp_path: Path) -> None:
    text = [97, 98, 99, 100] * 20
    write_flat(tmp_path / "train.bin", "<u2", text)
    write_flat(tmp_path / "val.bin", "<u2", text)
    whole = data.prepare(config(tmp_path)).manifest
    assert (whole.train_documents, whole.validation_documents) == (1, 1)
    assert any("so each file is one document" in remark for remark in whole.remarks)
    (tmp_path / "more").mkdir()
    unclosed = data.prepare(config(megatron(tmp_path / "more/a", [ids[:-1] for ids in IDS]))).manifest
    assert any(remark.startswith("12 of 12 documents do not end with the id 255") for remark in unclosed.remarks)
    with pytest.raises(UserError, match="holds one document, so none can be held out for validation; give more"):
        data.prepare(config(tmp_path / "train.bin"))


def test_the_tokenizer_of_the_ids_names_their_end_and_their_bytes(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(train_bpe(270, iter([[text.encode() for text in TEXTS]]), "texts"), encoding="utf-8")
    bpe = load(str(tokenizer))
    ids, lengths = bpe.encode_documents([text.encode() for text in TEXTS])
    path = write_flat(tmp_path / "a.bin", "<u2", ids)
    tokens = data.prepare(config(path, tokenizer=str(tokenizer)))
    assert tokens.manifest.end_of_document == bpe.end_of_document != END
    assert tokens.manifest.train_bytes + tokens.manifest.validation_bytes == sum(len(text.encode()) for text in TEXTS)
    assert sorted(np.diff(tokens.train_starts).tolist() + np.diff(tokens.validation_starts).tolist()) == sorted(lengths)
    texts = [*bpe.decode_documents(tokens.train[:]), *bpe.decode_documents(tokens.validation[:])]
    assert sorted(texts) == sorted(text.encode() for text in TEXTS)


def test_golden_files_are_of_these_documents() -> None:
    assert json.loads((GOLDEN / "documents.json").read_text(encoding="utf-8")) == DOCUMENTS
