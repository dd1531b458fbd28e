"""The cache of a corpus: one process makes it, whole or not at all; it is made again when the text changes."""

import contextlib
import errno
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers.texts import TEXTS, config, jsonl, write

from lmscale.core.config import DataConfig
from lmscale.core.errors import UserError
from lmscale.lm.data import corpora
from lmscale.lm.data.corpora import tfds_write


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("LMSCALE_ALLOW_DOWNLOAD", raising=False)


def test_a_changed_file_is_seen_and_an_unchanged_one_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in", {"a.jsonl": jsonl(TEXTS)})
    assert corpora.find_corpus(config(source)) is None
    first = corpora.prepare(config(source))
    (source / "a.jsonl").write_bytes((source / "a.jsonl").read_bytes().replace(b"document 3", b"document X"))
    assert corpora.find_corpus(config(source)) is None  # same size, written at once
    second = corpora.prepare(config(source))
    assert second.fingerprint != first.fingerprint
    monkeypatch.setattr(corpora.survey, "survey", lambda *_: pytest.fail("read again"))
    assert corpora.prepare(config(source)) == second == corpora.find_corpus(config(source))
    monkeypatch.setattr(corpora, "FORMAT", corpora.FORMAT + 1)
    assert corpora.find_corpus(config(source)) is None  # of another version


@pytest.mark.parametrize("name", ["3.txt", "new.txt"])
def test_text_that_changes_while_it_is_read_is_refused(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "in", {f"{i}.txt": text for i, text in enumerate(TEXTS)})

    def disturb(what: str, share: float) -> None:
        if what.startswith("storing"):
            (source / name).write_text("other")

    with pytest.raises(UserError, match="changed while it was read"):
        corpora.prepare(config(source), progress=disturb)
    assert corpora.find_corpus(config(source)) is None
    assert not list((tmp_path / "cache/corpora").glob(".*.partial"))


def test_the_cache_is_not_read_as_text(tmp_path: Path) -> None:
    source = write(tmp_path, {f"{i}.txt": text for i, text in enumerate(TEXTS)})
    first = corpora.prepare(config(source))
    assert corpora.find_corpus(config(source)) == first


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected")])
def test_a_full_disk_is_reported_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    source = write(tmp_path / "in", {f"{i}.txt": text for i, text in enumerate(TEXTS)})

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(tfds_write, "write_dataset", refuse)
    with pytest.raises(UserError if isinstance(error, OSError) else RuntimeError, match=r"is full|unexpected"):
        corpora.prepare(config(source))
    assert corpora.find_corpus(config(source)) is None
    assert {path.name for path in (tmp_path / "cache/corpora").iterdir()} == {"keys"}


SCRIPT = """
    import os, signal, sys
    from lmscale.lm import data
    from lmscale.lm.data import corpora
    from lmscale.core.config import DataConfig

    def progress(what, share):
        if what.startswith(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    tokens = data.prepare(DataConfig(source=sys.argv[1]), progress=progress)
    print(tokens.manifest.fingerprint, tokens.train[:50].tobytes().hex())
"""


def start(source: Path, kill_at: str = "never") -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(source), kill_at]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def left_over(cache: Path) -> list[Path]:
    return list(cache.rglob("*.partial"))


@pytest.mark.long
def test_two_processes_at_once_agree_and_leave_one_whole_cache(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {f"{i}.txt": text for i, text in enumerate(TEXTS)})
    with contextlib.ExitStack() as stack:
        outputs = [process.communicate(timeout=60)[0] for process in
                [stack.enter_context(start(source)) for _ in range(2)]]  # fmt: skip
    assert outputs[0] == outputs[1] != ""
    assert len([path for path in (tmp_path / "cache/tokens").iterdir() if path.is_dir()]) == 1
    assert not left_over(tmp_path / "cache")


@pytest.mark.long
@pytest.mark.parametrize("stage", ["storing", "tokenizing"])
def test_a_process_killed_half_way_leaves_nothing_that_is_believed(tmp_path: Path, stage: str) -> None:
    from lmscale.lm import data

    source = write(tmp_path / "in", {f"{i}.txt": text for i, text in enumerate(TEXTS)})
    with start(source, kill_at=stage) as process:
        assert process.wait(timeout=60) == -9
    assert left_over(tmp_path / "cache")
    assert data.find_manifest(DataConfig(source=str(source))) is None
    tokens = data.prepare(DataConfig(source=str(source)))
    assert len(tokens.train) == tokens.manifest.train_tokens
    assert not left_over(tmp_path / "cache")
