"""Ids that lie in several places, read as one row without being copied together."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


class JoinedTokens:
    """The `spans` of `pieces`, one after the other, as if they were one array.

    `spans` is [n, 3]: the number of a piece, and the first and the last id of it, which is not taken. It may be mapped
    from disk. All pieces are of one dtype.
    """

    def __init__(self, pieces: Sequence[NDArray[Any]], spans: NDArray[np.int64]) -> None:
        self._pieces = pieces
        self._spans = spans
        self._ends = np.cumsum(spans[:, 2] - spans[:, 1])
        self.dtype = pieces[0].dtype

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, item: slice) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, item: int) -> Any: ...
    def __getitem__(self, item: slice | int) -> Any:
        """A stretch, or one id."""
        if isinstance(item, slice):
            start, stop, step = item.indices(len(self))
            if step != 1:
                raise ValueError("a stretch is read in order, without gaps")
            return self._stretch(start, max(start, stop))
        at = range(len(self))[item]
        return self._stretch(at, at + 1)[0]

    def _stretch(self, start: int, stop: int) -> NDArray[Any]:
        """Ids `start` ... `stop` - 1; a view where they lie in one span."""
        parts, number = [], int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            piece, _, last = self._spans[number].tolist()
            at = last - (int(self._ends[number]) - start)
            taken = min(last - at, stop - start)
            parts.append(self._pieces[piece][at : at + taken])
            start, number = start + taken, number + 1
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, self.dtype), *parts])

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int32]:
        """[n, length]: the ids from each of `starts` on."""
        rows = np.empty((len(starts), length), np.int32)
        for row, start in zip(rows, starts.tolist()):
            row[:] = self._stretch(start, start + length)
        return rows


TokenRow = NDArray[Any] | JoinedTokens
"""All ids of a split, one document after the other."""
