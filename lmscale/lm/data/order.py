"""Orders that are computed rather than stored: a shuffle of any length, and whose turn it is in a mixture."""

import hashlib

import numpy as np
from numpy.typing import NDArray

MIX_ROUNDS = 6


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


class Turns:
    """Which source gives row n of a mixture: after any n rows each has given its share of them to within one row.

    Tijdeman's rule for the chairman assignment problem (1980): of the sources that are behind by 1 / (2 K - 2) of a row
    or more, the one whose next row falls due first. It keeps each within 1 - 1 / (2 K - 2) of its share. Weights are
    whole numbers with the sum P, so the order repeats after P rows, and any part of it can be had.
    """

    def __init__(self, weights: tuple[int, ...]) -> None:
        self.weights = np.array(weights, np.int64)
        self.period = sum(weights)
        sources = len(weights)
        slack = 2 * max(1, sources - 1)  # 2 K - 2
        turns, given = [], [0] * sources
        for row in range(1, self.period + 1):
            # All of it in units of 1 / (P slack), so that nothing is rounded.
            behind = [slack * (weight * row - done * self.period) for weight, done in zip(weights, given)]
            due = [i for i in range(sources) if behind[i] >= self.period] if sources > 1 else [0]
            turn = min(due, key=lambda i: ((slack - 1) * self.period - behind[i]) / weights[i])
            given[turn] += 1
            turns.append(turn)
        self._turns = np.array(turns, np.int64)
        ones = self._turns[:, None] == np.arange(sources)
        self._before = np.concatenate([np.zeros((1, sources), np.int64), ones.cumsum(axis=0)])

    def given(self, rows: int) -> NDArray[np.int64]:
        """[K] rows that each source has given among the first `rows`."""
        cycles, rest = divmod(rows, self.period)
        return cycles * self.weights + self._before[rest]

    def __call__(self, start: int, stop: int) -> NDArray[np.int64]:
        """The sources of rows `start` ... `stop` - 1."""
        return self._turns[np.arange(start, stop) % self.period]
