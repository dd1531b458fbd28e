"""Files of ids that others wrote: what one holds, and which files of a folder are which split."""

import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmscale.core import files
from lmscale.core.errors import UserError
from lmscale.lm.data.corpora.corpus import SPLITS

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
}
"""Words in the name of a file or of a split, and the split that they mean."""


class Piece(NamedTuple):
    """Ids that lie in one file, mapped, with the bounds of their documents."""

    path: Path
    ids: NDArray[Any]
    starts: NDArray[np.int64] | None
    """[documents + 1], from 0 to the number of ids; None where the format has none."""
    format: str
    """In words."""
    before: int = 0
    """Ids of the same file before these."""


def bounds(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """The [documents + 1] starts of documents of these lengths; those without an id are none."""
    return np.concatenate([[0], np.cumsum(lengths[lengths > 0], dtype=np.int64)])


def map_bytes(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file, mapped. Raises `UserError` where there are none, or they may not be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
            raise UserError(f"{path} is no regular file; name a file of ids")
        if not status.st_size:
            raise UserError(f"{path} is empty: it holds no ids; write it again, or leave it out")
        return np.asarray(np.memmap(path, np.uint8, "r"))
    except OSError as error:
        raise files.refusal(error) from None


def whole_ids(path: Path, raw: NDArray[np.uint8], dtype: str) -> NDArray[Any]:
    """`raw` as ids of `dtype`. Raises `UserError` where the last one is cut."""
    size = np.dtype(dtype).itemsize
    if rest := len(raw) % size:
        raise UserError(
            f"{path} is cut: it holds {len(raw):,} bytes of ids of {size} bytes each ({np.dtype(dtype).name}), so "
            f"{rest} {'are' if rest > 1 else 'is'} left over; copy or write it again"
        )
    return raw.view(dtype)


def split_of(name: str) -> str:
    """The split that the words of a name mean, "train" where none does."""
    words = [SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_WORDS]
    return words[-1] if words else "train"


def by_split(paths: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    """The files of each split by their names below `root`; all are of one where none would be left to train on."""
    splits: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in paths:
        splits[split_of(str(path.relative_to(root)))].append(path)
    if not splits["train"]:
        splits = {"train": sorted(path for group in splits.values() for path in group)}
    return {split: group for split, group in splits.items() if group}
