"""Near-duplicates of documents that are evaluated: what a model could look up instead of predicting it.

Two documents are near-duplicates where they share at least `NEAR` of the five-word shingles of the shorter one
(containment, Broder 1997), so that a copy inside a longer document is one as well. The shingles of the evaluated
documents are held and every other document is compared with all of them at once, exactly and in one pass.
"""

from collections import Counter
from collections.abc import Iterable

import xxhash

from lmscale.lm.data.corpora.near_duplicates import shingles

NEAR = 0.5
"""A copy in which one word in ten was exchanged still shares some 0.9^5 = 0.59 of its shingles."""


class Duplicates:
    """Some documents, and which of them another text copies."""

    def __init__(self, texts: Iterable[bytes], share: float = NEAR) -> None:
        self._share = share
        self._sizes: list[int] = []
        self._documents_with: dict[int, list[int]] = {}
        for number, text in enumerate(texts):
            hashes = _hashes(text)
            self._sizes.append(len(hashes))
            for one in hashes:
                self._documents_with.setdefault(one, []).append(number)

    def copied_by(self, text: bytes) -> list[int]:
        """The numbers of the documents that `text` copies, equals, contains or is a part of."""
        hashes = _hashes(text)
        shared = Counter(number for one in hashes for number in self._documents_with.get(one, ()))
        least = {number: self._share * min(len(hashes), self._sizes[number]) for number in shared}
        return sorted(number for number, count in shared.items() if count >= least[number])


def _hashes(text: bytes) -> set[int]:
    return {xxhash.xxh3_64_intdigest(shingle) for shingle in shingles(text)}
