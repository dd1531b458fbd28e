"""Documents in rows of ids: checked, found by their ends, hashed, and put into splits."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import DataConfig
from lmscale.core.errors import UserError
from lmscale.lm.data.corpora.survey import Whole, held_out_counts
from lmscale.lm.data.corpora.token_files import Piece
from lmscale.lm.data.tokenizer import Tokenizer

SCANNED_IDS = 1 << 22
"""Ids that are looked at together."""
DIGEST_BYTES = 8
OWN_DOCUMENTS = "give more documents, a file for it beside them (val.bin), or DataConfig.validation_source"


class Scan(NamedTuple):
    """What one pass over a piece shows."""

    counts: NDArray[np.int64]
    """[V]: how often each id comes."""
    starts: NDArray[np.int64]
    """[documents + 1]."""
    unclosed: int
    """Documents without an end."""


class Documents(NamedTuple):
    """Some documents, in order: where each lies."""

    pieces: NDArray[np.int64]
    """[documents]: the number of the piece that holds each."""
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]

    def of(self, chosen: NDArray[np.bool_]) -> "Documents":
        """The chosen documents, by a mask over all of them."""
        return Documents(*(field[chosen] for field in self))

    def starts(self) -> NDArray[np.int64]:
        """[documents + 1]: where each begins once they lie one after the other."""
        return np.concatenate([[0], np.cumsum(self.ends - self.begins)])

    def spans(self) -> NDArray[np.int64]:
        """[n, 3]: piece, first and last id of the stretches that they are; see `JoinedTokens`."""
        if not len(self.pieces):
            return np.empty((0, 3), np.int64)
        follows = (self.pieces[1:] == self.pieces[:-1]) & (self.begins[1:] == self.ends[:-1])
        first = np.concatenate([[True], ~follows])
        last = np.concatenate([~follows, [True]])
        return np.stack([self.pieces[first], self.begins[first], self.ends[last]], axis=1)


def scan(piece: Piece, tokenizer: Tokenizer, progress: Callable[[int], None]) -> Scan:
    """Count the ids of a piece and find its documents. Raises `UserError` for one that the tokenizer does not have."""
    counts, ends = np.zeros(tokenizer.vocab, np.int64), [np.empty(0, np.int64)]
    for start in range(0, len(piece.ids), SCANNED_IDS):
        block = piece.ids[start : start + SCANNED_IDS]
        _check_ids(piece, block, start, tokenizer)
        counts += np.bincount(block, minlength=tokenizer.vocab)
        ends.append(np.flatnonzero(block == tokenizer.end_of_document) + start)
        progress(block.nbytes)
    starts = piece.starts
    if starts is None:
        starts = _starts(piece.ids, np.concatenate(ends), tokenizer.end_of_document)
    return Scan(counts, starts, int(np.count_nonzero(piece.ids[starts[1:] - 1] != tokenizer.end_of_document)))


def _check_ids(piece: Piece, block: NDArray[Any], start: int, tokenizer: Tokenizer) -> None:
    if int(block.max()) < tokenizer.vocab and int(block.min()) >= 0:
        return
    at = int(np.flatnonzero((block < 0) | (block >= tokenizer.vocab))[0])
    raise UserError(
        f"{piece.path} ({piece.format}) holds the id {int(block[at]):,} at position {piece.before + start + at:,}, "
        f"and the tokenizer {tokenizer.name!r} has the ids 0 to {tokenizer.vocab - 1:,}; name the tokenizer.json that "
        f"wrote these ids as DataConfig.tokenizer (--tokenizer)"
    )


def _starts(ids: NDArray[Any], ends: NDArray[np.int64], end: int) -> NDArray[np.int64]:
    """[documents + 1], each up to its end. Ends that follow one another, or come first of all, close no document more.

    So a file in which every document is opened by the end of the one before holds as many as one that closes each.
    """
    after = ends[ends < len(ids) - 1] + 1
    after = after[ids[after] != end]
    if len(ids) and ids[0] == end:
        after = after[1:]
    return np.concatenate([[0], after, [len(ids)]]).astype(np.int64)


def documents(scans: Sequence[Scan], first: int) -> Documents:
    """All documents of consecutive pieces, of which the first has the number `first`."""
    sizes = [len(one.starts) - 1 for one in scans]
    return Documents(
        np.repeat(np.arange(first, first + len(scans)), sizes),
        np.concatenate([one.starts[:-1] for one in scans]),
        np.concatenate([one.starts[1:] for one in scans]),
    )


def hashes(
    pieces: Sequence[Piece], all_documents: Documents, end: int, progress: Callable[[int], None]
) -> NDArray[Any]:
    """[documents]: the leading 64 bits of the SHA-256 of the ids of each, ends of documents left out, as uint32.

    So a document has one hash whatever type its ids have on disk, and whether its end stands before or behind it.
    """
    digests = bytearray()
    for piece, begin, stop in zip(*(field.tolist() for field in all_documents)):
        ids = np.asarray(pieces[piece].ids[begin:stop])
        digests += hashlib.sha256(ids[ids != end].astype("<u4").tobytes()).digest()[:DIGEST_BYTES]
        progress(ids.nbytes)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def split_by_hash(
    digests: NDArray[np.uint64], config: DataConfig, name: str, whole: Whole, own: set[str]
) -> dict[str, NDArray[np.bool_]]:
    """For each split the documents in it, [documents]: by the rule that text is split by, equal ones together.

    Splits that the source brings as its `own` are not held out a second time.
    """
    nobody = np.zeros(len(digests), bool)
    if whole == "validation":
        return {"train": nobody, "validation": ~nobody, "test": nobody}
    validate, tested = whole is None and "validation" not in own, config.test_fraction > 0 and "test" not in own
    different, number = np.unique(digests, return_inverse=True)
    low, high = held_out_counts(different, config, name, validate, tested, OWN_DOCUMENTS)
    validation, test = number < low, number >= len(different) - high
    return {"train": ~validation & ~test, "validation": validation, "test": test}
