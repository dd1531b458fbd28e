"""Files of an index: what it is of, what it holds, and the records of its shards."""

from pathlib import Path

from helpers.readers.reader import Reader
from lmscale.core.files import write_json
from lmscale.lm.data.corpora.checksums import write_record
from lmscale.lm.retrieve.index import IDENTITY_FILE, INDEX_FILE, read_facts, read_identity

IDENTITY = {
    "run_id": "0123456789ab", "step": 3, "tokenizer_fingerprint": "f", "layer": 1, "pooling": "mean",
    "chunk_tokens": 16, "summary_tokens": 0, "data": {"source": "stdlib"}, "whole": None, "split": "train",
    "corpus_fingerprint": "c", "format": 1,
}  # fmt: skip
FACTS = {
    "chunks_by_shard": [2, 3], "chunks": 5, "tokens": 70, "documents": 2, "dimension": 16, "flops": 9,
    "without_summary": 0, "graph": None,
}  # fmt: skip


def _identity(folder: Path) -> Path:
    write_json(folder / IDENTITY_FILE, IDENTITY)
    return folder / IDENTITY_FILE


def _facts(folder: Path) -> Path:
    write_record(folder / INDEX_FILE, FACTS)
    return folder / INDEX_FILE


READERS = (
    Reader("identity of an index", _identity, lambda path: read_identity(path.parent), "json"),
    Reader("facts of an index", _facts, lambda path: read_facts(path.parent), "json", exact=True),
)
