import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data import Batches, Shuffle, ValidationSet, shards

TEXTS = [f"é document {i} 🙂 " * (i % 7 + 3) for i in range(60)]

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def source(tmp_path: Path) -> DataConfig:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate([*TEXTS, TEXTS[0]]):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return DataConfig(source=str(folder), validation_fraction=0.3)


@pytest.fixture
def tokens(source: DataConfig) -> data.Tokens:
    return data.prepare(source)


def numbered(count: int, validation: int = 50) -> data.Tokens:
    """Tokens 0, 1, 2, ... so that a window shows where it was cut."""
    manifest = data.Manifest(
        source="numbers", fingerprint="f", corpus_fingerprint="c", tokenizer="bytes", vocab=256,
        end_of_document=255, dtype="int64",
        train_tokens=count, validation_tokens=validation, train_documents=1, validation_documents=1,
        train_bytes=count, validation_bytes=validation, duplicates_removed=0, empty_removed=0, skipped=(), versions={},
    )  # fmt: skip
    return data.Tokens(manifest, np.arange(count), np.arange(validation) % 256, np.array([0]), np.array([0]))


def run(tokens: int, context: int = 10, batch: int = 2, vocab: int = 256, max_epochs: float = 4.0) -> RunConfig:
    return RunConfig(
        model=ModelConfig(width=8, layers=1, heads=1, context=context, vocab=vocab),
        optimizer=OptimizerConfig(peak_lr=1e-3, batch_sequences=batch),
        data=DataConfig(max_epochs=max_epochs),
        tokens=tokens,
    )


def test_the_manifest_counts_what_lies_on_disk(tokens: data.Tokens) -> None:
    manifest = tokens.manifest
    assert manifest.train_documents + manifest.validation_documents == 60
    assert manifest.duplicates_removed == 1
    assert manifest.train_bytes + manifest.validation_bytes == sum(len(text.encode()) for text in TEXTS)
    for split, starts in ((tokens.train, tokens.train_starts), (tokens.validation, tokens.validation_starts)):
        assert starts[0] == 0 and starts[-1] == len(split)
        assert (split[starts[1:] - 1] == 255).all() and (split == 255).sum() == len(starts) - 1
        for start, stop in pairwise(starts):
            assert split[start : stop - 1].tobytes().decode() in TEXTS
    assert len(tokens.train) == manifest.train_tokens == manifest.train_bytes + manifest.train_documents


def test_prepared_tokens_are_found_and_not_written_again(
    source: DataConfig, tokens: data.Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data.find_manifest(source) == tokens.manifest
    assert data.find_manifest(dataclasses.replace(source, validation_fraction=0.5)) is None
    monkeypatch.setattr(shards, "write_shards", lambda *_: pytest.fail("written again"))
    assert (data.prepare(source).train == tokens.train).all()
    monkeypatch.setattr(shards, "FORMAT", shards.FORMAT + 1)
    assert data.find_manifest(source) is None  # of another version


def test_prepared_tokens_need_no_tfds_and_no_jax(source: DataConfig, tokens: data.Tokens) -> None:
    code = (
        "import sys; from lmscale.lm import data; from lmscale.core.config import DataConfig;"
        f"data.prepare(DataConfig(source={source.source!r}, validation_fraction=0.3));"
        "heavy = {'tensorflow_datasets', 'jax', 'pandas', 'pyarrow', 'rich', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file, and nothing of its size and times."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def same(one: data.Tokens, other: data.Tokens) -> bool:
    """Whether two preparations agree in their manifest and in every token and start."""
    return one.manifest == other.manifest and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS
    )


ARRAYS = ("train", "validation", "train_starts", "validation_starts")
CACHED = ["manifest.json", "train.bin", "train_starts.npy", "validation.bin", "validation_starts.npy"]


@pytest.mark.long
@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
@pytest.mark.parametrize("name", CACHED)
def test_damaged_tokens_are_made_again(
    source: DataConfig, tokens: data.Tokens, name: str, damage: Callable[[Path], object]
) -> None:
    before = dataclasses.replace(tokens, **{name: getattr(tokens, name).copy() for name in ARRAYS})  # not mapped
    assert sorted(path.name for path in tokens.manifest.folder.iterdir()) == CACHED
    damage(tokens.manifest.folder / name)
    assert same(data.prepare(source), before)


@pytest.mark.long
@pytest.mark.parametrize("name", ["train.npy", "content.json", "documents-train.array_record-00000-of-00001"])
def test_tokens_are_not_made_of_a_damaged_corpus(
    source: DataConfig, tokens: data.Tokens, tmp_path: Path, name: str
) -> None:
    (path,) = (tmp_path / "cache/corpora").rglob(name)
    flip(path)
    shutil.rmtree(tokens.manifest.folder)
    assert same(data.prepare(source), tokens)


def test_a_key_that_was_edited_is_not_believed(source: DataConfig, tokens: data.Tokens, tmp_path: Path) -> None:
    (key,) = (tmp_path / "cache/corpora/keys").glob("*.json")
    stored = json.loads(key.read_text())
    for changes in ({"validation_documents": 1}, {"fingerprint": "0" * 16}, {"prompts": True}):
        key.write_text(json.dumps({**stored, "corpus": {**stored["corpus"], **changes}}))
        assert data.find_manifest(source) is None
        assert same(data.prepare(source), tokens)


def test_a_trained_tokenizer_that_was_damaged_is_trained_again(source: DataConfig) -> None:
    trained = dataclasses.replace(source, tokenizer="bpe:300")
    tokens = data.prepare(trained)
    path = Path(str(tokens.manifest.tokenizer_file))
    content = json.loads(path.read_text())
    content["model"]["merges"].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"tokenizer file .* has changed since the tokens"):
        data.load_tokenizer(tokens.manifest)
    assert data.find_manifest(trained) is None
    assert same(data.prepare(trained), tokens)


def test_damaged_tokens_that_cannot_be_replaced_are_refused_by_their_folder(
    source: DataConfig, tokens: data.Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(tokens.manifest.folder / "validation.bin")
    monkeypatch.setattr(shards.shutil, "rmtree", lambda *_, **__: None)  # a folder of somebody else
    with pytest.raises(UserError, match=f"{tokens.manifest.folder} are damaged: validation.bin is not as it was"):
        data.prepare(source)


def test_progress_is_reported_and_ends_at_one(source: DataConfig) -> None:
    reports: list[tuple[str, float]] = []
    data.prepare(source, progress=lambda what, share: reports.append((what, share)))
    assert {what.split()[0] for what, _ in reports} == {"reading", "storing", "tokenizing"}
    assert all(0 <= share <= 1 for _, share in reports) and reports[-1][1] == 1


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 65, 1000, 4096, 4097])
def test_shuffle_is_a_permutation_and_any_part_of_it_can_be_had(n: int) -> None:
    whole = Shuffle(n, "key")(0, n)
    assert sorted(whole) == list(range(n))
    assert (Shuffle(n, "key")(n // 3, n) == whole[n // 3 :]).all()


def chi_square(values: np.ndarray, n: int) -> float:
    """Per degree of freedom, of `values` against the uniform distribution over 0 ... n - 1; near 1 if it is that."""
    bins = min(n, 50)
    bin_of = np.arange(n) * bins // n
    expected = np.bincount(bin_of) * len(values) / n
    return float(((np.bincount(bin_of[values], minlength=bins) - expected) ** 2 / expected).sum() / (bins - 1))


@pytest.mark.long
@pytest.mark.parametrize("n", [20, 37, 1000])
def test_shuffle_mixes_as_chance_would(n: int) -> None:
    first, second, third = np.array([Shuffle(n, f"key {k}")(0, 3) for k in range(4000)]).T
    assert chi_square(first, n) < 2
    assert chi_square(third, n) < 2
    assert chi_square((second - first) % n - 1, n - 1) < 2
    assert chi_square((third - second) % n - 1, n - 1) < 2


def test_neighbours_in_a_long_order_are_unrelated() -> None:
    n = 200_000
    order = Shuffle(n, "key")(0, n)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4 / np.sqrt(n)
    assert chi_square(np.diff(order) % n, n) < 1.7
    assert abs(np.corrcoef(order, Shuffle(n, "other key")(0, n))[0, 1]) < 4 / np.sqrt(n)


def test_a_hundred_million_windows_cost_no_memory() -> None:
    order = Shuffle(10**8 + 7, "key")
    part = order(10**8 - 1000, 10**8 + 7)
    assert len(set(part.tolist())) == 1007 and part.min() >= 0 and part.max() < 10**8 + 7


def test_an_epoch_visits_every_window_once_and_epochs_join_exactly() -> None:
    batches = Batches(numbered(100 * 7 + 1), context=7, batch_rows=16, seed=3)  # 100 windows: 6.25 batches
    assert (batches.windows, batches.unique_tokens, batches.epochs(1400)) == (100, 700, 2.0)
    rows = np.concatenate([batches[t] for t in range(25)])
    assert rows.shape == (400, 8) and rows.dtype == np.int32
    assert (rows == rows[:, :1] + np.arange(8)).all()
    epochs = rows[:, 0].reshape(4, 100)
    assert (np.sort(epochs) == 7 * np.arange(100)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 4
    targets = np.sort(rows[:100, 1:].ravel())
    assert (targets == np.arange(1, 701)).all()  # every token but the first is a target once


def test_the_order_does_not_depend_on_the_batch_size() -> None:
    tokens = numbered(20_001)
    small, large = Batches(tokens, 2, 4, seed=0), Batches(tokens, 2, 12, seed=0)
    assert (np.concatenate([small[t] for t in range(3 * 900)]) == np.concatenate([large[t] for t in range(900)])).all()


def test_a_run_resumes_by_its_step_and_hosts_share_a_batch() -> None:
    tokens = numbered(99_999)
    batches = Batches(tokens, 9, 8, seed=1)
    straight = [batches[t] for t in range(2000)]
    for t in (1999, 513, 0, 1388, 512):  # 1388 straddles the end of the first epoch
        fresh = Batches(tokens, 9, 8, seed=1)
        assert (fresh[t] == straight[t]).all()
        assert (np.concatenate([fresh.rows(t, i, i + 2) for i in range(0, 8, 2)]) == straight[t]).all()
    assert batches.rows(5, 3, 3).shape == (0, 10)


def test_the_order_depends_on_seed_and_data() -> None:
    tokens = numbered(5_000)
    other = dataclasses.replace(tokens, manifest=dataclasses.replace(tokens.manifest, fingerprint="g"))
    first = Batches(tokens, 4, 64, seed=0)[0]
    assert (first == Batches(tokens, 4, 64, seed=0)[0]).all()
    assert (first != Batches(tokens, 4, 64, seed=1)[0]).any()
    assert (first != Batches(other, 4, 64, seed=0)[0]).any()


def test_wrong_rows_are_refused() -> None:
    batches = Batches(numbered(100), 4, 2, seed=0)
    for t, start, stop in ((-1, 0, 2), (0, 0, 3), (0, 2, 1)):
        with pytest.raises(IndexError):
            batches.rows(t, start, stop)


def test_the_validation_set_is_fixed_nested_and_counts_the_bytes_it_scores(tokens: data.Tokens) -> None:
    small, large = ValidationSet(tokens, 16, 100), ValidationSet(tokens, 16, 10**9)
    assert small.windows.shape == (6, 17) and small.windows.dtype == np.int32 and small.tokens == 96
    assert (large.windows[:6] == small.windows).all()
    assert large.tokens == (len(tokens.validation) - 1) // 16 * 16
    scored = tokens.validation[1 : large.tokens + 1]
    assert (np.sort(large.windows[:, 1:].ravel()) == np.sort(scored)).all()
    assert large.bytes == (scored != 255).sum() < large.tokens
    assert small.bytes == sum((window[1:] != 255).sum() for window in small.windows)
    assert ValidationSet(tokens, 16, 1).tokens == 16
    assert small.shortfall == "" == ValidationSet(tokens, 16, large.tokens).shortfall
    assert f"10,000,000 validation tokens were asked for, but {tokens.manifest.source} holds out only" in (
        ValidationSet(tokens, 16, 10**7).shortfall
    )


def test_bytes_are_of_the_targets_not_of_the_inputs() -> None:
    text = np.zeros(21, np.uint8)
    text[[0, 10, 20]] = 255  # the first token is never scored; the other two ends are targets
    tokens = dataclasses.replace(numbered(100), validation=text)
    assert ValidationSet(tokens, 10, 20).bytes == 18
    text[10] = 1
    assert ValidationSet(tokens, 10, 20).bytes == 19
    text[20] = 1
    assert ValidationSet(tokens, 10, 20).bytes == 20


def test_a_corpus_too_small_for_its_run_is_refused_with_the_largest_that_fits() -> None:
    tokens = numbered(1001)
    data.check_enough(tokens, run(4000))
    data.check_enough(tokens.manifest, run(4000))
    message = r"D = 4,020 tokens would be 4.02 epochs of the 1,000 unique tokens .* D that fits is 4,000"
    with pytest.raises(UserError, match=message):
        data.check_enough(tokens, run(4020))
    with pytest.raises(UserError, match="D that fits is 1,480"):
        data.check_enough(tokens, run(2000, max_epochs=1.5, batch=4))
    with pytest.raises(UserError, match="not even one global batch fits"):
        data.check_enough(tokens, run(5000, batch=500))


def test_vocabulary_and_windows_are_checked() -> None:
    with pytest.raises(UserError, match=r"model.vocab = 300.*set model.vocab = 256"):
        data.check_enough(numbered(1001), run(1000, vocab=300))
    with pytest.raises(UserError, match=r"training split .* has 10 tokens, too few .* context of at most 9"):
        data.check_enough(numbered(10), run(1000))
    with pytest.raises(UserError, match=r"validation split .* has 10 tokens"):
        data.check_enough(numbered(1001, validation=10), run(1000))
    with pytest.raises(UserError, match="training split has 4 tokens"):
        Batches(numbered(4), 4, 1, seed=0)
    with pytest.raises(UserError, match="validation split has 4 tokens"):
        ValidationSet(numbered(100, validation=4), 4, 10)
