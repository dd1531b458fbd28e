"""Self-BLEU (Zhu 2018, Texygen, arXiv 1802.01886): how alike the texts of one model are.

The BLEU-4 (Papineni 2002) of every text with all others as its references, on average. As in nltk's `sentence_bleu`
with its smoothing method 1, which Texygen takes: counts are clipped at the largest count in any one reference, an order
without a match counts .1 of a match, and the reference closest in length sets the brevity penalty.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDERS = 4
SMOOTHING = 0.1
Words = Sequence[str]


def self_bleu(texts: Sequence[Words]) -> list[float]:
    """The BLEU-4 of every text against all others. Raises `ValueError` for fewer than two texts."""
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} texts: self-BLEU compares a text with others")
    matches = np.stack([_clipped_matches(texts, order) for order in range(1, ORDERS + 1)])
    lengths = np.array([len(text) for text in texts])
    return [_bleu(matches[:, i], int(lengths[i]), np.delete(lengths, i)) for i in range(len(texts))]


def ngrams(words: Words, order: int) -> "Counter[tuple[str, ...]]":
    """How often each sequence of so many words occurs."""
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def _clipped_matches(texts: Sequence[Words], order: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """For every text how many of its n-grams another text has, each counted as often as in the other that has most.

    The two largest counts of an n-gram in any text are enough: the largest of the others is one of them.
    """
    counts = [ngrams(words, order) for words in texts]
    largest: dict[tuple[str, ...], tuple[int, int]] = {}
    for count in counts:
        for gram, times in count.items():
            first, second = largest.get(gram, (0, 0))
            largest[gram] = (times, first) if times > first else (first, max(second, times))
    return np.array([sum(_in_others(times, *largest[gram]) for gram, times in count.items()) for count in counts])


def _in_others(times: int, first: int, second: int) -> int:
    """An n-gram's count, clipped at the largest in another text."""
    return min(times, second if times == first else first)


def _bleu(
    matches: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    length: int,
    others: "np.ndarray[tuple[int], np.dtype[np.int64]]",
) -> float:
    if not matches[0]:
        return 0.0
    logs = [math.log((matched or SMOOTHING) / max(1, length - order)) for order, matched in enumerate(matches.tolist())]
    closest = min(others.tolist(), key=lambda other: (abs(other - length), other))
    penalty = 1.0 if length > closest else math.exp(1 - closest / length)
    return penalty * math.exp(sum(logs) / ORDERS)
