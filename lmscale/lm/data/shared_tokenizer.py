"""The tokenizer that all sources of a run share: one by its name, one of a file, or one trained on their text."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from lmscale.core import files
from lmscale.core.errors import UserError
from lmscale.lm.data import tokenizer
from lmscale.lm.data.corpora import Corpus, Progress, locked
from lmscale.lm.data.corpora.checksums import checksum, read_record, write_record
from lmscale.lm.data.tokenizer import BPE, FileTokenizer, Tokenizer
from lmscale.lm.data.tokenizer.train import VERSION

BPE_BYTES = 64 << 20
"""Text that byte-level BPE is trained on: the leading documents in the order of their hash, a fair sample."""


def shared_tokenizer(
    name: str, weighted: list[tuple[int, Corpus]], report: Progress | None
) -> tuple[Tokenizer, str | None] | None:
    """The tokenizer `name` and its file, trained on the weighted corpora if it must be and `report` is given."""
    if not name.startswith(BPE):
        if Path(name).suffix != ".json":
            return tokenizer.load(name), None
        return tokenizer.load(name), str(files.resolved(name))
    if not weighted:
        raise UserError(
            f"{name} is trained on text, and there is none on disk; a language without end takes no tokenizer"
        )
    path = _bpe_path(name, weighted)
    if not _is_as_written(path):
        if report is None:
            return None
        with locked(path.with_suffix(".lock"), report):
            if not _is_as_written(path):
                total = sum(weight for weight, _ in weighted)
                texts = _sample([(corpus, BPE_BYTES * weight // total) for weight, corpus in weighted], name, report)
                sources = " + ".join(corpus.source for _, corpus in weighted)
                files.write_text(path, tokenizer.train_bpe(_bpe_vocab(name), texts, sources))
                write_record(_record_path(path), {"content": checksum(path)})
    return FileTokenizer.read(path, name), str(path)


def _record_path(trained: Path) -> Path:
    """Where the checksum of a trained tokenizer lies; the file itself is a plain tokenizer.json."""
    return trained.with_suffix(".checksum")


def _is_as_written(trained: Path) -> bool:
    """Whether a trained tokenizer is there and undamaged; training it again gives the same one."""
    try:
        return bool(read_record(_record_path(trained))["content"] == checksum(trained))
    except (OSError, ValueError, KeyError):
        return False


def _bpe_vocab(name: str) -> int:
    return int(name.removeprefix(BPE))


def _bpe_path(name: str, weighted: list[tuple[int, Corpus]]) -> Path:
    """Where the BPE tokenizer that is trained on the weighted corpora is cached."""
    total = sum(weight for weight, _ in weighted)
    identity = json.dumps([VERSION, BPE_BYTES, [[weight, total, corpus.fingerprint] for weight, corpus in weighted]])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return files.cache_dir() / "tokenizers" / f"bpe-{_bpe_vocab(name)}-{digest}.json"


def _sample(shares: list[tuple[Corpus, int]], name: str, report: Progress) -> Iterator[list[bytes]]:
    """The leading training documents of each corpus, up to its share of bytes."""
    total = sum(min(share, corpus.train_bytes) for corpus, share in shares)
    done = 0
    for corpus, share in shares:
        bytes_left = share
        for texts in corpus.texts("train"):
            batch = []
            for text in texts:
                if bytes_left > 0:
                    batch.append(text)
                    bytes_left -= len(text)
            yield batch
            done += sum(map(len, batch))
            report(f"training the tokenizer {name}", min(1.0, done / total))
            if bytes_left <= 0:
                break
