"""Orders that are computed rather than stored: a shuffle, the epochs of one source, the sources of a mixture."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lmscale.lm.data.manifest import ENDLESS

MIX_ROUNDS = 6
BLOCK_ROWS = 1024
"""Long enough that an epoch in order costs little, short enough for one batch out of it."""


class Shuffle:
    """A permutation of 0 ... n - 1, a pure function of `key`, that is computed rather than stored.

    Numbers of as few bits as hold n - 1 are mixed by rounds of an odd multiplication, an addition and a folding of the
    high half into the low one, each of which can be undone; a result of n or more is mixed again until it is below n,
    less than twice on average (cycle walking, Black and Rogaway 2002).
    """

    def __init__(self, n: int, key: str) -> None:
        self.n = n
        bits = max(1, (n - 1).bit_length())
        self._mask = np.uint64((1 << bits) - 1)
        self._fold = np.uint64((bits + 1) // 2)
        numbers = np.frombuffer(hashlib.shake_256(key.encode()).digest(16 * MIX_ROUNDS), "<u8").astype(np.uint64)
        self._rounds = [(numbers[i] | np.uint64(1), numbers[i + 1]) for i in range(0, 2 * MIX_ROUNDS, 2)]

    def _mix(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        for odd, offset in self._rounds:
            x = (x * odd + offset) & self._mask
            x ^= x >> self._fold
        return x

    def __call__(self, start: int, stop: int) -> NDArray[np.int64]:
        """Elements `start` ... `stop` - 1 of the permuted numbers."""
        x = self._mix(np.arange(start, stop, dtype=np.uint64))
        while len(outside := np.flatnonzero(x >= self.n)):
            x[outside] = self._mix(x[outside])
        return x.astype(np.int64)


class EpochOrder:
    """The order in which the windows of one source are visited: epoch after epoch, each shuffled by itself.

    A pure function of the number of windows, `key` and the epoch.
    """

    def __init__(self, windows: int, key: str) -> None:
        self.windows = windows
        self._key = key
        self._block: tuple[tuple[int, int], NDArray[np.int64]] = ((-1, -1), np.empty(0, np.int64))

    def __call__(self, start: int, stop: int) -> NDArray[np.int64]:
        """Window numbers of visits `start` ... `stop` - 1."""
        if self.windows == ENDLESS:  # every window is fresh, and as good as any other
            return np.arange(start, stop, dtype=np.int64)
        pieces = list(self._pieces(start, stop))
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.int64), *pieces])

    def visits(self, count: int) -> NDArray[np.int64]:
        """[W]: how often each window is among the first `count` that are visited."""
        epochs, rest = divmod(count, self.windows)
        visits = np.full(self.windows, epochs, np.int64)
        visits[self(count - rest, count)] += 1
        return visits

    def _pieces(self, start: int, stop: int) -> Iterator[NDArray[np.int64]]:
        while start < stop:
            epoch, row = divmod(start, self.windows)
            block, inside = divmod(row, BLOCK_ROWS)
            numbers = self._visits_of_block(epoch, block)[inside : inside + stop - start]
            yield numbers
            start += len(numbers)

    def _visits_of_block(self, epoch: int, block: int) -> NDArray[np.int64]:
        """A stretch of an epoch's order; the last one is cached, so that most batches only copy."""
        cached, numbers = self._block
        if cached != (epoch, block):
            end = min(self.windows, (block + 1) * BLOCK_ROWS)
            numbers = Shuffle(self.windows, f"{self._key} {epoch}")(block * BLOCK_ROWS, end)
            self._block = ((epoch, block), numbers)
        return numbers


class MixtureSchedule:
    """Which source row n of a mixture is drawn from: after any n rows each has its share of them to within one row.

    Tijdeman's rule for the chairman assignment problem (1980): of the sources that are behind by 1 / (2 K - 2) of a row
    or more, the one whose next row falls due first. It keeps each within 1 - 1 / (2 K - 2) of its share. Weights are
    whole numbers with the sum P, so the order repeats after P rows, and any stretch of it can be computed by itself.
    """

    def __init__(self, weights: tuple[int, ...]) -> None:
        self.weights = np.array(weights, np.int64)
        self.period = sum(weights)
        sources = len(weights)
        self._period_sources = np.array(_one_period(weights), np.int64)
        ones = self._period_sources[:, None] == np.arange(sources)
        self._counts_before = np.concatenate([np.zeros((1, sources), np.int64), ones.cumsum(axis=0)])

    def counts(self, rows: int) -> NDArray[np.int64]:
        """[K]: how many of the first `rows` rows each source has."""
        cycles, rest = divmod(rows, self.period)
        return cycles * self.weights + self._counts_before[rest]

    def sources(self, start: int, stop: int) -> NDArray[np.int64]:
        """The sources of rows `start` ... `stop` - 1."""
        return self._period_sources[np.arange(start, stop) % self.period]

    def most_rows(self, available: Sequence[int], at_most: int) -> int:
        """The largest number of rows, up to `at_most`, that takes from no source more than it has available."""
        if (self.counts(at_most) <= available).all():
            return at_most
        low, high = 0, at_most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if (self.counts(middle) <= available).all() else (low, middle)
        return low


def _one_period(weights: tuple[int, ...]) -> list[int]:
    """The source of each of the first P rows, by Tijdeman's rule."""
    period, count = sum(weights), len(weights)
    slack = 2 * max(1, count - 1)  # 2 K - 2
    sources, done = [], [0] * count
    for row in range(1, period + 1):
        # All of it in units of 1 / (P slack), so that nothing is rounded.
        behind = [slack * (weight * row - rows * period) for weight, rows in zip(weights, done)]
        due = [i for i in range(count) if behind[i] >= period] if count > 1 else [0]
        first_due = min(due, key=lambda i: ((slack - 1) * period - behind[i]) / weights[i])
        done[first_due] += 1
        sources.append(first_due)
    return sources
