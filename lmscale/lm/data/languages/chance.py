"""The chance level of a task: the exact expected score of the best answer that ignores the question.

Letters: questions are `length` letters, each of `letters` with the same probability; a composition says how often each
letter occurs in one.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from lmscale.core.config.synthetic import Tasks


class Chance(NamedTuple):
    """Expected scores of the best fixed answer, which may differ between the two scores."""

    exact: float
    graded: float


@lru_cache(maxsize=64)
def chance_of(name: str, spec: Tasks) -> Chance:
    """The chance level of the task `name`."""
    letters, length, digits = spec.letters, spec.length, spec.digits
    if name in ("copy", "reverse"):
        return Chance(letters**-length, 1 / letters)
    if name == "brackets":
        return Chance(0.5, 0.5)
    if name == "addition":
        # Every sum has at most 10^k pairs; each digit but the leading one, which says whether there is a carry, is
        # uniform.
        exact, no_carry = 10.0**-digits, (1 + 10.0**-digits) / 2
        return Chance(exact, (no_carry + 0.1 * digits) / (digits + 1))
    if name == "histogram":
        return _histogram(letters, length)
    return _sort(letters, length) if name == "sort" else _most(letters, length)


def _histogram(letters: int, length: int) -> Chance:
    """A string of counts is correct for every assignment of different letters to its groups of equal positions."""
    total = letters**length
    exact: dict[tuple[int, ...], int] = defaultdict(int)
    for pattern in _patterns(length):
        groups = max(pattern) + 1
        sizes = [pattern.count(group) for group in pattern]
        exact[tuple(sizes)] += math.perm(letters, groups)
    # Any one letter shares its question with length - 1 others, each the same with probability 1 / letters.
    same = [
        math.comb(length - 1, k) * (letters - 1) ** (length - 1 - k) / letters ** (length - 1) for k in range(length)
    ]
    return Chance(max(exact.values()) / total, max(same))


def _patterns(length: int) -> Iterator[tuple[int, ...]]:
    """Every partition of `length` positions into groups, as the number of each position's group, groups in order."""

    def grow(pattern: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(pattern) == length:
            yield pattern
            return
        for group in range(max(pattern) + 2):
            yield from grow((*pattern, group))

    return grow((0,))


def _sort(letters: int, length: int) -> Chance:
    """Sorted strings are compositions, the most even one the likeliest; position i holds the i-th order statistic."""
    even = [length // letters + (i < length % letters) for i in range(letters)]
    exact = math.factorial(length) / math.prod(map(math.factorial, even)) / letters**length
    graded = 0.0
    for position in range(length):
        # P(the letter at `position` is at most v) = P(more than `position` letters are at most v).
        below = [
            sum(
                math.comb(length, k) * ((v + 1) / letters) ** k * (1 - (v + 1) / letters) ** (length - k)
                for k in range(position + 1, length + 1)
            )
            for v in range(letters)
        ]
        graded += max(high - low for low, high in itertools.pairwise([0.0, *below]))
    return Chance(exact, graded / length)


def _most(letters: int, length: int) -> Chance:
    """The first letter of the alphabet wins ties, so it is the best guess: correct when no other count is larger."""
    wins = 0
    for own in range(1, length + 1):
        # Ways to fill the other positions with the other letters, none of them more than `own` times: the coefficient
        # of z^(length - own) in (sum of z^k / k! up to own)^(letters - 1), times the factorial.
        ways = [1.0] + [0.0] * length
        for _ in range(letters - 1):
            ways = [
                sum(ways[total - k] / math.factorial(k) for k in range(min(own, total) + 1))
                for total in range(length + 1)
            ]
        wins += math.comb(length, own) * round(ways[length - own] * math.factorial(length - own))
    share = wins / letters**length
    return Chance(share, share)
