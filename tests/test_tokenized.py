"""Tokens of others are trained on, mixed, capped and validated on as any text is, and changes of their files show."""

import dataclasses
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.token_files import IDS, data_set, flat, megatron
from rich.console import Console

from lmscale.commands import data as data_verb
from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data.corpora import token_files
from lmscale.lm.data.joined import JoinedTokens
from lmscale.lm.data.windows import StoredWindows
from lmscale.study.launch.jobs import local_paths

CONTEXT = 8

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    (folder := tmp_path / "nano").mkdir()
    flat(IDS[:9]).astype("<u2").tofile(folder / "train.bin")
    flat(IDS[9:]).astype("<u2").tofile(folder / "val.bin")
    return folder


def config(path: object, **changes: Any) -> DataConfig:
    return DataConfig(source=f"tokens:{path}", **{"validation_fraction": 0.3, **changes})


def a_run(corpus: DataConfig) -> RunConfig:
    model = ModelConfig(width=8, layers=1, heads=1, vocab=256, context=CONTEXT)
    return RunConfig(
        model=model, optimizer=OptimizerConfig(peak_lr=1e-3, batch_sequences=4), data=corpus, tokens=1 << 20
    )


def test_joined_tokens_are_their_spans_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    pieces = [rng.integers(0, 9, 50).astype(np.uint16), rng.integers(0, 9, 30).astype(np.uint16)]
    spans = np.array([[0, 3, 9], [1, 0, 1], [1, 5, 30], [0, 40, 50]])
    row, plain = JoinedTokens(pieces, spans), np.concatenate([pieces[i][a:b] for i, a, b in spans])
    assert len(row) == len(plain) and row[len(plain) - 1] == plain[-1] and row[-1] == plain[-1]
    for start in range(len(plain) + 1):
        for stop in range(len(plain) + 2):
            np.testing.assert_array_equal(row[start:stop], plain[start:stop])
    starts = rng.integers(0, len(plain) - 9, 20)
    np.testing.assert_array_equal(row.windows(starts, 9), plain[starts[:, None] + np.arange(9)])


def test_windows_and_batches_are_those_of_the_plain_row(tmp_path: Path, nano: Path) -> None:
    for source in (nano, megatron(tmp_path / "a", dtype="int32")):  # one array; several spans
        tokens = data.prepare(config(source))
        plain = dataclasses.replace(tokens, train=tokens.train[:].astype(np.uint8))
        windows, expected = (StoredWindows(each, "train", CONTEXT) for each in (tokens, plain))
        numbers = np.arange(windows.count)
        np.testing.assert_array_equal(windows.take(numbers), expected.take(numbers))
        assert windows.take(numbers).dtype == np.int32
        batches, from_plain = (data.Batches(each, CONTEXT, 4, seed=1) for each in (tokens, plain))
        for t in (0, 5, 17):
            np.testing.assert_array_equal(batches[t], from_plain[t])
        assert batches.usage(400) == from_plain.usage(400)


def test_the_validation_set_counts_its_tokens_and_the_bytes_of_their_text(nano: Path) -> None:
    tokens = data.prepare(config(nano))
    held_out = data.ValidationSet(tokens, CONTEXT, 1 << 20)
    row = np.fromfile(nano / "val.bin", "<u2")
    windows = (len(row) - 1) // CONTEXT
    np.testing.assert_array_equal(np.sort(held_out.windows[:, 0]), np.sort(row[: windows * CONTEXT : CONTEXT]))
    scored = row[1 : windows * CONTEXT + 1]
    assert (held_out.tokens, held_out.bytes) == (len(scored), int((scored != 255).sum()))
    assert held_out.shortfall.endswith("give more of it")


def test_a_mixture_with_text_and_caps_on_both(tmp_path: Path, nano: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(f'{{"text": "text number {i} of some"}}\n' for i in range(40)), encoding="utf-8")
    mixed = data.prepare(DataConfig(source=f"mix: 0.5 * {text} + 0.5 * tokens:{nano}", unique_tokens=256))
    assert [part.train.dtype.name for part in mixed.components] == ["uint8", "uint16"]
    batches = data.Batches(mixed, CONTEXT, 4, seed=0)
    assert batches.unique_tokens == 256 and batches[3].shape == (4, CONTEXT + 1)
    leading = np.fromfile(nano / "train.bin", "<u2")[: 128 + 1]
    rows = {tuple(row) for t in range(8) for row in batches[t]}
    assert {tuple(leading[i : i + CONTEXT + 1]) for i in range(0, 128, CONTEXT)} <= rows
    with pytest.raises(UserError, match="epochs of the 128 unique tokens"):
        data.check_enough(mixed, a_run(DataConfig()))


def test_a_source_to_validate_on_and_files_that_are_splits_already(tmp_path: Path, nano: Path) -> None:
    path = megatron(tmp_path / "a")
    tokens = data.prepare(config(path, validation_source=f"tokens:{nano / 'val.bin'}"))
    assert tokens.held_out is not None and not len(tokens.held_out.train)
    np.testing.assert_array_equal(tokens.components[0].train, np.fromfile(path, "<u2"))
    np.testing.assert_array_equal(tokens.held_out.validation, np.fromfile(nano / "val.bin", "<u2"))
    with pytest.raises(UserError, match=r"has files of its own for validation \(.*val.bin\)"):
        data.prepare(config(path, validation_source=f"tokens:{nano}"))
    tested = data.prepare(config(path, test_fraction=0.3))
    documents = [getattr(tested.manifest, f"{split}_documents") for split in ("train", "validation", "test")]
    assert min(documents) > 0 and sum(documents) == len(IDS)


def test_equal_documents_are_on_one_side(tmp_path: Path) -> None:
    manifest = data.prepare(config(megatron(tmp_path / "a", IDS * 3), test_fraction=0.2)).manifest
    assert all(getattr(manifest, f"{split}_documents") % 3 == 0 for split in ("train", "validation", "test"))


def test_changed_files_are_read_again_and_have_another_fingerprint(nano: Path, tmp_path: Path) -> None:
    first = data.prepare(config(nano)).manifest
    assert data.find_manifest(config(nano)) == first
    copy = shutil.copytree(nano, tmp_path / "copy")
    assert data.prepare(config(copy)).manifest.fingerprint == first.fingerprint  # on any machine, under any name
    path = nano / "train.bin"
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-2] + b"a\0")
    assert data.find_manifest(config(nano)) is None
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = data.prepare(config(nano)).manifest
    assert second.fingerprint != first.fingerprint and second.train_bytes == first.train_bytes + 1
    (second.folder / "train_spans.npy").write_bytes(b"damaged")
    assert data.prepare(config(nano)).manifest == second
    (nano / "val.bin").unlink()
    assert data.prepare(config(nano)).manifest.own_splits == ()


def test_changes_that_no_time_shows_are_found_by_the_content(nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "listing_of", lambda located: [])
    first = data.prepare(config(nano)).manifest
    flat(IDS[1:9]).astype("<u2").tofile(nano / "train.bin")
    assert data.find_manifest(config(nano)) == first
    tokens = data.prepare(config(nano))
    assert tokens.manifest.fingerprint != first.fingerprint
    np.testing.assert_array_equal(tokens.train, flat(IDS[1:9]))


def test_the_verb_says_what_was_found_and_a_job_names_the_path(nano: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    data_verb.show(config(nano), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for words in (
        "nanoGPT .bin, uint16 without a header, mapped from 2 files and not copied",
        "a document ends with the id 255, the end of a document of bytes",
        "validation is val.bin",
        "train               9",
    ):
        assert words in shown
    assert list(local_paths(a_run(config(nano))).values()) == [nano]


def test_columns_are_told_apart_and_many_streams_are_one_row(tmp_path: Path) -> None:
    import pyarrow

    columns = pyarrow.table({"one": IDS, "two": [ids[::-1] for ids in IDS]})
    folder = data_set(tmp_path / "two", {"a.arrow": columns})
    one, two = (data.prepare(config(folder, text_field=name)).manifest.fingerprint for name in ("one", "two"))
    assert one != two
    halves = {f"{i}.arrow": pyarrow.table({"input_ids": IDS[6 * i : 6 * i + 6]}) for i in range(2)}
    tokens = data.prepare(config(data_set(tmp_path / "a", halves), validation_source="synthetic:tasks(digits=1)"))
    np.testing.assert_array_equal(tokens.components[0].train[:], flat())
