"""Where a scored text surprises a model: pieces to show, spans that stand out, losses of lines.

A token may be part of a character, so what is shown is pieces: the fewest neighbouring tokens that are whole
characters. Pieces have the tokens' surprisal, added up.

Letters: T scored tokens, P pieces, L lines.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmscale.lm.data.tokenizer import bits_per_byte
from lmscale.lm.use.score_text import ScoredText

LEAST_LIKELY = (1 / 2, 1 / 10, 1 / 100, 1 / 1000)
"""Where one class of probability ends and the next begins."""
CLASSES = (
    "1/2 or more",
    "1/10 to 1/2",
    "1/100 to 1/10",
    "1/1000 to 1/100",
    "less than 1/1000",
)
"""The probability of a piece, by class: 0 expected, 4 most surprising."""
AROUND = 24
"""Characters shown on either side of a span."""


class Piece(NamedTuple):
    """Neighbouring tokens that are whole characters, or the end of a document."""

    text: str
    """Empty for the end of a document."""
    nats: float
    first: int
    """The tokens of the piece are the scored tokens `first` to `last`, without `last`."""
    last: int
    ends_document: bool
    """Whether it is the last of its document."""

    @property
    def surprise(self) -> int:
        """The place of the surprise in `CLASSES`."""
        return surprise_class(self.nats)


def surprise_class(nats: float) -> int:
    """The place in `CLASSES` of a probability of exp(-nats)."""
    return int(np.searchsorted(-np.log(LEAST_LIKELY), nats, side="left"))


def pieces(scored: ScoredText, tokens: int | None = None) -> Iterator[Piece]:
    """The text piece by piece; with `tokens` only pieces within its first tokens."""
    most = scored.tokens if tokens is None else tokens
    whole = most >= scored.tokens
    end_T = np.cumsum(scored.bytes_T[: most + 1])
    start_T = end_T - scored.bytes_T[: len(end_T)]
    content = np.frombuffer(scored.text + b" ", np.uint8)
    bounds = np.flatnonzero((content[start_T] & 0xC0) != 0x80)  # UTF-8 continues a character with 10xxxxxx
    bounds = np.append(bounds, scored.tokens) if whole else bounds
    ends = frozenset(np.cumsum(scored.tokens_D).tolist())
    for first, last in itertools.pairwise(bounds.tolist()):
        text = scored.text[int(start_T[first]) : int(end_T[last - 1])].decode()
        yield Piece(text, float(scored.nats_T[first:last].sum(dtype=np.float64)), first, last, last in ends)


@dataclass(frozen=True)
class Span:
    """Neighbouring tokens that stand out, widened to whole characters."""

    text: str
    """Empty for the end of a document alone."""
    nats: float
    """Surprisal of all its tokens."""
    tokens: int
    line: int
    """Counted from 1."""
    before: str
    """Text of the same document on its left."""
    after: str

    def to_json(self) -> dict[str, Any]:
        """The span without its surroundings."""
        return {"text": self.text, "nats": self.nats, "tokens": self.tokens, "line": self.line}


def surprising_spans(scored: ScoredText, most: int) -> list[Span]:
    """At most `most` spans, the most surprising first.

    A span is a run of neighbouring tokens of one document, each at least one standard deviation above the text's mean
    surprisal, or as surprising as the most surprising where none is that far.
    """
    nats_T = scored.nats_T.astype(np.float64)
    out_T = nats_T >= min(nats_T.mean() + nats_T.std(), nats_T.max())
    document_T = np.repeat(np.arange(len(scored.tokens_D)), scored.tokens_D)
    goes_on_T = np.append(False, out_T[:-1] & (document_T[:-1] == document_T[1:]))
    first = np.flatnonzero(out_T & ~goes_on_T)
    number = np.cumsum(out_T & ~goes_on_T)[out_T] - 1
    nats, tokens = np.bincount(number, nats_T[out_T]), np.bincount(number)
    end_T, line_T = np.cumsum(scored.bytes_T), token_lines(scored)
    stop_D = end_T[np.cumsum(scored.tokens_D) - 1]
    spans = []
    for i in np.argsort(-nats, kind="stable")[:most].tolist():
        begin, document = int(first[i]), int(document_T[first[i]])
        start, stop = int(end_T[begin] - scored.bytes_T[begin]), int(end_T[begin + tokens[i] - 1])
        bounds = int(stop_D[document - 1]) if document else 0, int(stop_D[document])
        texts = _with_surroundings(scored.text[bounds[0] : bounds[1]], start - bounds[0], stop - bounds[0])
        spans.append(Span(texts[1], float(nats[i]), int(tokens[i]), int(line_T[begin]), texts[0], texts[2]))
    return spans


def _with_surroundings(document: bytes, start: int, stop: int) -> tuple[str, str, str]:
    """What stands before, in and after a part of a document, which is widened to whole characters."""
    while _continues(document, start):
        start -= 1
    while _continues(document, stop):
        stop += 1
    before, after = document[max(0, start - 4 * AROUND) : start], document[stop : stop + 4 * AROUND]
    return (
        before.decode(errors="ignore")[-AROUND:],
        document[start:stop].decode(),
        after.decode(errors="ignore")[:AROUND],
    )


def _continues(text: bytes, at: int) -> bool:
    """Whether the byte there continues a character."""
    return at < len(text) and text[at] & 0xC0 == 0x80


class LineLoss(NamedTuple):
    """The tokens that begin in one line of the text."""

    line: int
    """Counted from 1."""
    nats: float
    """Surprisal of all of them."""
    tokens: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Bits per byte is None for a line whose tokens stand for no bytes."""
        bits = bits_per_byte(self.nats, self.bytes) if self.bytes else None
        return {
            "line": self.line,
            "loss_nats": self.nats / self.tokens,
            "bits_per_byte": bits,
            "tokens": self.tokens,
            "bytes": self.bytes,
        }


def token_lines(scored: ScoredText) -> NDArray[np.int64]:
    """[T]: the line in which each token begins; the end of a document belongs to the line of its last byte."""
    start_T = np.cumsum(scored.bytes_T) - scored.bytes_T
    newlines = np.flatnonzero(np.frombuffer(scored.text, np.uint8) == ord("\n"))
    first_D = np.cumsum(scored.tokens_D) - scored.tokens_D
    line_T = np.searchsorted(newlines, start_T - (scored.bytes_T == 0))
    before_D = np.searchsorted(newlines, start_T[first_D])
    return line_T + np.repeat(scored.line_D - before_D, scored.tokens_D)


def line_losses(scored: ScoredText) -> list[LineLoss]:
    """The losses of all lines in which a token begins, in order. Their nats, tokens and bytes sum to the text's."""
    lines, first, tokens = np.unique(token_lines(scored), return_index=True, return_counts=True)
    nats, sizes = np.add.reduceat(scored.nats_T.astype(np.float64), first), np.add.reduceat(scored.bytes_T, first)
    columns = lines.tolist(), nats.tolist(), tokens.tolist(), sizes.tolist()
    return [LineLoss(*values) for values in zip(*columns)]
