"""How texts of different lengths and common beginnings are put together, so that little is read twice or in vain."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
"""Tokens of one text."""

SHORTEST = 8
"""Texts are padded to this many tokens, or twice as many, or four times, ..."""
GROUP_TOKENS = 1024
"""What a further group costs, in tokens that could be read instead."""


def padded_length(length: int) -> int:
    """The next of SHORTEST, twice SHORTEST, ...: few lengths, so that few programs are compiled."""
    return SHORTEST * 2 ** max(0, -(-length // SHORTEST) - 1).bit_length()


def common_prefix(texts: Sequence[Ids]) -> int:
    """Tokens that all texts begin with."""
    shortest = min(map(len, texts))
    block = np.stack([text[:shortest] for text in texts])
    differs = (block != block[:1]).any(axis=0)
    return int(differs.argmax()) if differs.any() else shortest


def prefix_groups(texts: Sequence[Ids]) -> list[list[int]]:
    """Groups of texts, by number, such that reading each group's common prefix once saves most.

    A few texts that begin otherwise (an item that is itself an example, a prompt cut on its left) must not take the
    common prefix from all. In order of their tokens, texts are cut apart where neighbours have least in common, as long
    as that leaves less to read; those that end up alone form one group.
    """
    order = sorted(range(len(texts)), key=lambda n: texts[n].tolist())
    common = [common_prefix([texts[one], texts[other]]) for one, other in itertools.pairwise(order)]

    def tokens_read(start: int, stop: int) -> int:
        total = sum(len(texts[n]) for n in order[start:stop])
        alone = stop - start == 1
        return total if alone else GROUP_TOKENS + total - (stop - start - 1) * min(common[start : stop - 1])

    groups, single, open_ranges = [], [], [(0, len(order))] if order else []
    while open_ranges:
        start, stop = open_ranges.pop()
        if stop - start == 1:
            single.append(order[start])
            continue
        least = min(common[start : stop - 1])
        cuts = [start, *(n + 1 for n in range(start, stop - 1) if common[n] == least), stop]
        ranges = list(itertools.pairwise(cuts))
        if sum(tokens_read(*bounds) for bounds in ranges) < tokens_read(start, stop):
            open_ranges += ranges
        else:
            groups.append(order[start:stop])
    return groups + ([single] if single else [])
