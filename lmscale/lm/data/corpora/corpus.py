"""A prepared corpus: counts of one source, and its texts by split."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core import files
from lmscale.core.errors import UserError
from lmscale.core.text import checked_name
from lmscale.lm.data.corpora import tfds
from lmscale.lm.data.corpora.checksums import Damaged, checksum, read_record
from lmscale.lm.data.corpora.sources import Document, Skipped

CONTENT_FILE = "content.json"
SPLITS = ("train", "validation", "test")
READ_DOCUMENTS = 256


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Counts and content of one source. `fingerprint` is a hash of the content of all splits, in order."""

    source: str
    """The source in words, with its version."""
    fingerprint: str
    train_documents: int
    validation_documents: int
    test_documents: int = 0
    train_bytes: int
    validation_bytes: int
    test_bytes: int = 0
    duplicates_removed: int
    """Documents left out because another has exactly the same text."""
    near_duplicates_removed: int = 0
    """Documents left out because they share much of their text with another."""
    empty_removed: int
    """Documents of nothing but white space."""
    skipped: tuple[Skipped, ...]
    versions: dict[str, str]
    prompts: bool = False
    """Whether documents begin with prompts."""
    template: str = ""
    """The template that made documents of records, in full; empty where none did."""

    @property
    def folder(self) -> Path:
        """Where the content is cached."""
        return files.cache_dir() / "corpora" / checked_name(self.fingerprint, "the fingerprint of a prepared corpus")

    def documents(self, split: str) -> int:
        """Documents of one split."""
        return {"train": self.train_documents, "validation": self.validation_documents, "test": self.test_documents}[
            split
        ]

    def text_bytes(self, split: str) -> int:
        """Bytes of text of one split."""
        return {"train": self.train_bytes, "validation": self.validation_bytes, "test": self.test_bytes}[split]

    def readable(self) -> bool:
        """Whether the content is on disk, not only its counts, and every file of it as it was written."""
        try:
            content = read_record(self.folder / CONTENT_FILE)
            stored = (self.folder / content["dataset"] / "dataset_info.json").is_file()
            return stored and content["checksums"] == checksums(self.folder)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def texts(self, split: str, start: int = 0, stop: int | None = None) -> Iterator[list[bytes]]:
        """Documents `start` ... `stop` - 1 of `split` as UTF-8 in the order of their hash, some hundred at a time.

        Raises `UserError` where the cached content is gone.
        """
        stop = self.documents(split) if stop is None else min(stop, self.documents(split))
        if start >= stop:
            return
        stored, positions = self._stored(split)
        for first in range(start, stop, READ_DOCUMENTS):
            yield stored.read(positions[first : min(stop, first + READ_DOCUMENTS)])

    def boundaries(self, split: str, start: int, stop: int) -> NDArray[np.int64]:
        """[documents, K]: where prompts and answers alternate in the documents `start` ... `stop` - 1 of `split`.

        As in `Document.boundaries`, filled up with the size of the text. Only of a corpus with prompts.
        """
        stored = np.load(self.folder / f"{split}_prompts.npy", mmap_mode="r")[start:stop]
        return stored.reshape(len(stored), -1)  # earlier versions wrote one number per document

    def document(self, split: str, number: int) -> Document:
        """Document `number` of `split`, with its id in the source that first stored this content.

        Raises `UserError` where there is none.
        """
        if not 0 <= number < self.documents(split):
            raise UserError(
                f"the {split} split of {self.source} has no document {number:,}; it has {self.documents(split):,}, "
                f"counted from 0"
            )
        stored, positions = self._stored(split)
        return stored.document(int(positions[number]))

    def _stored(self, split: str) -> tuple[tfds.Records, NDArray[np.int64]]:
        content = self._content()
        stored = tfds.Records(
            self.folder / content["dataset"],
            content["splits"][split],
            content["text_field"],
            content.get("prompt_field"),
        )
        return stored, np.load(self.folder / f"{split}.npy", mmap_mode="r")

    def _content(self) -> dict[str, Any]:
        try:
            return read_record(self.folder / CONTENT_FILE)
        except (OSError, ValueError):
            raise Damaged(self.folder, CONTENT_FILE) from None


def checksums(folder: Path) -> dict[str, str]:
    """The checksum of every file of a corpus but its `CONTENT_FILE`, which holds them, by its path. Raises OSError."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / CONTENT_FILE)
    return {path.relative_to(folder).as_posix(): checksum(path) for path in paths}
