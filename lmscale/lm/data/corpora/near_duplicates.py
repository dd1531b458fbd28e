"""Removal of documents that share most of their text with another, by MinHash (Broder 1997) through `datasketch`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError

SHINGLE_WORDS = 5
"""Words of a shingle; documents are compared by their sets of shingles."""
PERMUTATIONS = 128


def shingles(text: bytes) -> set[bytes]:
    """Every run of `SHINGLE_WORDS` words of a text; of a shorter text its words together."""
    words = text.split()
    return {b" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}


class NearDuplicates:
    """The MinHash of every document, in reading order. Raises `UserError` where `datasketch` is not installed."""

    def __init__(self, threshold: float) -> None:
        try:
            import datasketch
        except ImportError:
            raise UserError(
                "near_duplicates needs the package datasketch: pip install 'lmscale[near-duplicates]', or leave "
                "near_duplicates at None, which still removes exact duplicates"
            ) from None
        self.threshold = threshold
        self._index = datasketch.MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
        self._new = lambda: datasketch.MinHash(num_perm=PERMUTATIONS)
        self._hashes: list[Any] = []

    def add(self, text: bytes) -> None:
        """Add the next document."""
        self._hashes.append(self._new())
        self._hashes[-1].update_batch(shingles(text))

    def truncate(self, length: int) -> None:
        """Remove all but the leading `length` documents."""
        del self._hashes[length:]

    def without_near_duplicates(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """The documents of `order` whose similarity to every earlier document in the result is below the threshold."""
        unique = []
        for number in order.tolist():
            minhash = self._hashes[number]
            near = self._index.query(minhash)
            if not any(minhash.jaccard(self._hashes[other]) >= self.threshold for other in near):
                self._index.insert(number, minhash)
                unique.append(number)
        return np.array(unique, np.int64)
