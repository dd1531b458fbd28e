"""The tokens of a corpus: by a tokenizer trained once, in one process or several, exactly or not at all."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from helpers.letters import mixed

from lmscale.core.config import DataConfig
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data import ValidationSet, corpora, parallel
from lmscale.lm.data.tokenizer import count_bytes

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.long
def test_bpe_of_a_corpus_is_trained_once_and_its_tokens_are_the_text(sources: list[str], tmp_path: Path) -> None:
    config = mixed(sources, ["1", "1", "1"], tokenizer="bpe:270", test_fraction=0.1)
    assert data.find_manifest(config) is None
    tokens = data.prepare(config)
    files = list((tmp_path / "cache" / "tokenizers").glob("*.json"))
    assert len(files) == 1 and tokens.manifest.tokenizer_file == str(files[0])
    tokenizer = data.load_tokenizer(tokens.manifest)
    assert (
        (tokens.manifest.vocab, tokens.manifest.end_of_document)
        == (270, 269)
        == (tokenizer.vocab, tokenizer.end_of_document)
    )
    for part, source in zip(tokens.components, sources):
        corpus = corpora.prepare(dataclasses.replace(config, source=source))
        for split in corpora.SPLITS:
            row, starts = part.split(split)
            texts = [text for texts in corpus.texts(split) for text in texts]
            assert tokenizer.decode_documents(row) == texts and len(starts) == len(texts) + 1
            assert count_bytes(tokenizer, row) == sum(map(len, texts))
    assert data.find_manifest(config) == tokens.manifest
    windows = ValidationSet(tokens, 16, 320)
    assert windows.bytes == sum(len(tokenizer.pieces[i]) for i in windows.windows[:, 1:].ravel())
    assert ValidationSet(tokens, 4, 10**9, split="test").windows.max() <= 269


def test_the_same_tokenizer_file_is_used_by_path(sources: list[str]) -> None:
    trained = data.prepare(DataConfig(source=sources[0], tokenizer="bpe:265")).manifest
    given = data.prepare(DataConfig(source=sources[1], tokenizer=trained.tokenizer_file))
    assert (
        given.manifest.vocab == 265
        and data.load_tokenizer(given.manifest).fingerprint == data.load_tokenizer(trained).fingerprint
    )
    Path(str(trained.tokenizer_file)).unlink()
    with pytest.raises(UserError, match="no tokenizer file"):
        data.load_tokenizer(given.manifest)


def test_a_document_that_does_not_come_back_is_named_and_leaves_nothing(sources: list[str], tmp_path: Path) -> None:
    import tokenizers

    trained = data.prepare(DataConfig(source=sources[0], tokenizer="bpe:265")).manifest
    build = tokenizers.Tokenizer.from_file(trained.tokenizer_file)
    build.normalizer = tokenizers.normalizers.Replace("b7", "b8")
    build.save(str(tmp_path / "lossy.json"))
    with pytest.raises(UserError, match=r"does not give document '7.txt' of .*/b back: from byte 47 on it reads '8'"):
        data.prepare(DataConfig(source=sources[1], tokenizer=str(tmp_path / "lossy.json")))
    assert not list((tmp_path / "cache" / "tokens").glob(".*.partial"))


@pytest.mark.long
def test_processes_give_the_tokens_that_one_gives(sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "STRETCH_BYTES", 600)
    config = DataConfig(source=sources[2], tokenizer="bpe:265")
    tokenizer = data.load_tokenizer(data.prepare(config).manifest)
    corpus = corpora.prepare(config)
    one, two = (list(parallel.encode_split(corpus, "train", tokenizer, workers)) for workers in (1, 2))
    assert len(one) == len(two) > 5
    for a, b in zip(one, two):
        assert (a[0] == b[0]).all() and (a[1] == b[1]).all() and a[0].dtype == b[0].dtype


KILLED = """
    import os, signal, sys
    from lmscale.lm import data
    from lmscale.lm.data import corpora
    from lmscale.core.config import DataConfig
    from lmscale.lm.data import parallel

    if __name__ == "__main__":
        parallel.STRETCH_BYTES = 600
        config = DataConfig(source=sys.argv[1])
        corpus, tokenizer = corpora.prepare(config), data.load_tokenizer(data.prepare(config).manifest)
        pieces = parallel.encode_split(corpus, "train", tokenizer, 2)
        next(pieces)
        import multiprocessing
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path(f"/proc/{pid}/stat").exists() else True


@pytest.mark.long
def test_processes_end_with_the_one_that_started_them(sources: list[str], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(KILLED))
    done = subprocess.run([sys.executable, str(tmp_path / "script.py"), sources[2]], stdout=subprocess.PIPE, text=True)
    children = [int(pid) for pid in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL and len(children) == 2
    until = time.monotonic() + 20
    while any(map(alive, children)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, children))
