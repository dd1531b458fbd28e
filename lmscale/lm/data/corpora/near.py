"""Documents that share most of their text with another one, found by MinHash (Broder 1997) through `datasketch`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError

WORDS = 5
"""Length of the runs of words whose sets are compared."""
PERMUTATIONS = 128


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
        """Take in the next document."""
        words = text.split()
        runs = {b" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))}
        self._hashes.append(self._new())
        self._hashes[-1].update_batch(runs)

    def forget(self, length: int) -> None:
        """Keep the leading `length` documents only."""
        del self._hashes[length:]

    def first_of_each(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of documents in `order`, those that share less than the threshold with every kept one before them."""
        kept = []
        for number in order.tolist():
            own = self._hashes[number]
            if not any(own.jaccard(self._hashes[other]) >= self.threshold for other in self._index.query(own)):
                self._index.insert(number, own)
                kept.append(number)
        return np.array(kept, np.int64)
