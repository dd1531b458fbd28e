"""Which passage each sentence of an answer rests on: as the answer marks it, else by the words that they share."""

import re
from collections.abc import Sequence
from typing import NamedTuple

SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+|$|(?=\n))")
MARK = re.compile(r"\[(\d{1,3})\]")
BEFORE_END = re.compile(r"\s+(?=[.!?,;:])")
"""White space that a mark leaves before punctuation."""
WORD = re.compile(r"\w{4,}")
SHARED = 0.5
"""Share of a sentence's words of four letters or more that a passage must have to be cited."""


class CitedSentence(NamedTuple):
    """A sentence of an answer."""

    text: str
    """Without marks."""
    passages: tuple[int, ...]
    """Numbers of the passages that it rests on, counted from 1; empty where it rests on none."""

    def __str__(self) -> str:
        return self.text + "".join(f" [{number}]" for number in self.passages)


def cite(answer: str, passages: Sequence[str]) -> list[CitedSentence]:
    """The sentences of an answer with the passages that they rest on."""
    words = [set(WORD.findall(passage.lower())) for passage in passages]
    return [_cited(match[0].strip(), words) for match in SENTENCE.finditer(answer) if match[0].strip()]


def _cited(sentence: str, words_of_passages: Sequence[set[str]]) -> CitedSentence:
    marked = [int(number) for number in MARK.findall(sentence)]
    text = BEFORE_END.sub("", " ".join(MARK.sub("", sentence).split()))
    known = tuple(dict.fromkeys(number for number in marked if 1 <= number <= len(words_of_passages)))
    if known:
        return CitedSentence(text, known)
    words = set(WORD.findall(text.lower()))
    shares = [len(words & others) / len(words) if words else 0.0 for others in words_of_passages]
    best = max(range(len(shares)), key=shares.__getitem__, default=None)
    return CitedSentence(text, () if best is None or shares[best] < SHARED else (best + 1,))
