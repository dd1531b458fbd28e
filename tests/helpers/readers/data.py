"""Text on disk, what is prepared from it, and tokenizers."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.readers.reader import Reader
from lmscale.core.config import DataConfig
from lmscale.core.config.template import parse_template
from lmscale.lm import data
from lmscale.lm.data.corpora.records import Fields, Filled, Writer
from lmscale.lm.data.corpora.sources import TextFiles, files_listing
from lmscale.lm.data.corpora.survey import survey
from lmscale.lm.data.tokenizer import FileTokenizer
from lmscale.lm.data.tokenizer.train import train_bpe

TEXTS = [f"document {number} é of some words" * (number + 1) for number in range(12)]
LINES = "".join(json.dumps({"text": text, "id": number}) + "\n" for number, text in enumerate(TEXTS))


def _writes(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"text": TEXTS, "id": range(12)}), folder / "texts.parquet")
    return folder / "texts.parquet"


ALPACA = [
    {"instruction": f"Do {n}.", "input": "" if n % 2 else f"i{n}", "output": text} for n, text in enumerate(TEXTS)
]
CHATS = [
    {"messages": [{"role": role, "content": f"{text} {role}"} for role in ("user", "assistant")]} for text in TEXTS
]


def _chats(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(CHATS), folder / "chats.parquet")
    return folder / "chats.parquet"


def _zstd(folder: Path) -> Path:
    import zstandard

    return _writes("texts.jsonl.zst", zstandard.ZstdCompressor().compress(LINES.encode()))(folder)


def _documents(path: Path) -> Any:
    """What is read of a source: every document that can be read, and what is left out."""
    return _surveyed(path, Fields("text", None))


def _filled(template: str) -> Callable[[Path], Any]:
    return lambda path: _surveyed(path, Filled(parse_template(template)))


def _surveyed(path: Path, write: Writer) -> Any:
    source = TextFiles(str(path), path, files_listing(path), write)
    result = survey(source, DataConfig(source=str(path)), lambda what, share: None)
    return result.digests.tobytes(), result.boundaries, result.skipped


def _prepared(folder: Path) -> tuple[Path, DataConfig]:
    return folder / "cache", DataConfig(
        source=str(folder / "texts"), tokenizer="bpe:270", validation_fraction=0.3, test_fraction=0.2
    )


def _cached(pattern: str) -> Callable[[Path], Path]:
    """A prepared corpus; the file of the cache that `pattern` names."""

    def write(folder: Path) -> Path:
        (folder / "texts").mkdir()
        for number, text in enumerate(TEXTS):
            (folder / "texts" / f"{number}.txt").write_text(text, "utf-8")
        _tokens(folder)
        return next(iter(sorted((folder / "cache").glob(pattern))))

    return write


def _tokens(folder: Path) -> Any:
    cache, config = _prepared(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMSCALE_CACHE", str(cache))
        tokens = data.prepare(config)
        tokenizer = data.load_tokenizer(tokens.manifest)
        return tokens.manifest.to_json(), tokens.split("train"), tokens.split("validation"), tokenizer.fingerprint


def _read_again(path: Path) -> Any:
    return _tokens(next(parent.parent for parent in path.parents if parent.name == "cache"))


def _tokenizer_file(folder: Path) -> Path:
    return _writes("tokenizer.json", train_bpe(270, [[text.encode() for text in TEXTS]], "texts").encode())(folder)


def _encoded(path: Path) -> Any:
    tokenizer = FileTokenizer.read(path)
    ids, lengths = tokenizer.encode_documents([TEXTS[3].encode(), b"\xc3\xa9 x"])
    tokenizer.decode_documents(ids)
    tokenizer.decode(ids)
    return ids, lengths, tokenizer.byte_lengths


CACHED = {
    "key": "corpora/keys/*.json", "content": "corpora/*/content.json", "order": "corpora/*/train.npy",
    "records": "corpora/*/**/*array_record*", "dataset": "corpora/*/**/dataset_info.json",
    "manifest": "tokens/*/manifest.json", "tokens": "tokens/*/train.bin", "starts": "tokens/*/train_starts.npy",
    "trained tokenizer": "tokenizers/*.json", "checksum of a tokenizer": "tokenizers/*.checksum",
}  # fmt: skip
READERS = (
    Reader("text", _writes("a.txt", "\n\n".join(TEXTS).encode()), _documents, "text"),
    Reader("text gz", _writes("a.txt.gz", gzip.compress("\n\n".join(TEXTS).encode(), mtime=0)), _documents),
    Reader("texts jsonl", _writes("a.jsonl", LINES.encode()), _documents, "lines"),
    Reader("texts jsonl gz", _writes("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)), _documents),
    Reader("texts jsonl zst", _zstd, _documents),
    Reader("texts parquet", _parquet, _documents),
    Reader("instructions json", _writes("a.json", json.dumps(ALPACA).encode()), _filled("alpaca"), "json"),
    Reader("chats jsonl", _writes("a.jsonl", "\n".join(map(json.dumps, CHATS)).encode()), _filled("chat"), "lines"),
    Reader("chats parquet", _chats, _filled("chat")),
    Reader("tokenizer", _tokenizer_file, _encoded, "json"),
    *(
        Reader(
            f"cache {name}", _cached(pattern), _read_again, "json" if pattern.endswith(".json") else "binary",
            exact=True, changes=True, slow=True,
        )
        for name, pattern in CACHED.items()
    ),
)  # fmt: skip
