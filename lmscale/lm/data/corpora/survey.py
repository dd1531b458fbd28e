"""One pass over a source that hashes every document and notes what is unreadable; the splits follow from the hashes."""

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import DataConfig
from lmscale.core.errors import UserError
from lmscale.lm.data.corpora.cache import Progress
from lmscale.lm.data.corpora.chunks import Foreign, Unreadable
from lmscale.lm.data.corpora.corpus import SPLITS
from lmscale.lm.data.corpora.near_duplicates import NearDuplicates
from lmscale.lm.data.corpora.sources import Document, Skipped, Source
from lmscale.lm.data.corpora.text_formats import PASSAGE_BYTES

DIGEST_BYTES = 16
Whole = Literal["train", "validation"] | None
"""The split that all documents of a source are in, those of the test apart; None: split by their hash."""


@dataclass
class Survey:
    """Every document of a source that is not empty, in reading order."""

    digests: NDArray[Any]
    """[documents, 2]: the leading 16 bytes of the SHA-256 of each text as two big-endian numbers; of pairs of answers,
    the leading 8 of their prompt's and the leading 8 of the text's."""
    sizes: NDArray[np.int64]
    """[documents]: bytes."""
    boundaries: NDArray[np.int64]
    """[documents, K]: bytes where prompts and answers alternate, then the size of the text; K = 0 without prompts."""
    empty: int
    skipped: list[Skipped]
    unreadable: set[str]
    """Units that are skipped as a whole."""
    near: NearDuplicates | None
    """The MinHashes of all texts, where near duplicates are to be removed."""
    pairs: bool = False
    """Whether the documents are pairs of answers."""


def digest(document: Document, pairs: bool = False) -> bytes:
    """The leading bytes of the SHA-256 of a text, and of where its prompts end if it has some: they identify it.

    Of a pair of answers the first half is the hash of its prompt, so that the pairs of one prompt follow one another.
    """
    ends = " ".join(map(str, document.boundaries))
    prompts = f"prompt of {ends} bytes\n".encode() if document.boundaries else b""
    whole = hashlib.sha256(prompts + document.text).digest()
    if not pairs:
        return whole[:DIGEST_BYTES]
    prompt = hashlib.sha256(document.text[: document.boundaries[0]]).digest()
    return prompt[: DIGEST_BYTES // 2] + whole[: DIGEST_BYTES // 2]


def has_text(document: Document) -> bool:
    """Whether there is anything to learn: more than white space in its answers."""
    return any(answer.strip() for answer in document.answers)


class _Documents:
    """What a survey notes of every document that has text."""

    def __init__(self, config: DataConfig) -> None:
        self.digests, self.sizes = bytearray(), array("q")
        self.boundaries: list[tuple[int, ...]] = []
        self.near = None if config.near_duplicates is None else NearDuplicates(config.near_duplicates)
        self._pairs = config.pairs

    def add(self, document: Document) -> None:
        self.digests += digest(document, self._pairs)
        self.sizes.append(len(document.text))
        self.boundaries.append(document.boundaries)
        if self.near:
            self.near.add(document.text)

    def truncate(self, documents: int) -> None:
        """Forget all but the first `documents`."""
        del self.digests[DIGEST_BYTES * documents :], self.sizes[documents:], self.boundaries[documents:]
        if self.near:
            self.near.truncate(documents)


def survey(source: Source, config: DataConfig, report: Progress) -> Survey:
    """Hash every document once. A unit that turns out to be unreadable contributes nothing.

    Raises `UserError` when no text is left, and for anything unreadable where `config.unreadable` is "refuse".
    """
    seen, empty = _Documents(config), 0
    skipped: list[Skipped] = []
    unreadable = set()
    for unit, share in source.units():
        report(f"reading {source.name}", share)
        before, empty_here = len(seen.sizes), 0
        remarks: list[Skipped] = []
        try:
            for document in source.documents(unit, remarks):
                if has_text(document):
                    seen.add(document)
                else:
                    empty_here += 1
        except Unreadable as error:
            seen.truncate(before)
            skipped.append(Skipped(unit, str(error), isinstance(error, Foreign)))
            unreadable.add(unit)
        else:
            skipped += remarks
            empty += empty_here
    if config.unreadable == "refuse" and (trouble := [item for item in skipped if not item.foreign]):
        raise UserError(
            f"{len(trouble)} part{'s' * (len(trouble) > 1)} of {source.name} cannot be read: {_first_three(trouble)}; "
            f"fix them or take unreadable = 'skip'"
        )
    if not seen.sizes:
        raise UserError(_nothing_left(source.name, skipped, empty))
    hashes, boundaries = np.frombuffer(seen.digests, ">u8").reshape(-1, 2), _rows(seen.boundaries, seen.sizes)
    return Survey(hashes, np.array(seen.sizes), boundaries, empty, skipped, unreadable, seen.near, config.pairs)


def _rows(boundaries: list[tuple[int, ...]], sizes: "array[int]") -> NDArray[np.int64]:
    """[documents, K]: the boundaries of each document, filled up with its size; without a prompt the first is 0."""
    most = max(map(len, boundaries))
    if not most:
        return np.empty((len(sizes), 0), np.int64)
    filled = [(*(one or (0,)), *[size] * (most - max(1, len(one)))) for one, size in zip(boundaries, sizes)]
    return np.array(filled, np.int64)


def _first_three(skipped: list[Skipped]) -> str:
    reasons = [f"{item.path}: {item.reason}" for item in skipped[:3]]
    return "; ".join(reasons + [f"{len(skipped) - 3} more skipped"] * (len(skipped) > 3))


def _nothing_left(name: str, skipped: list[Skipped], empty: int) -> str:
    reasons = [_first_three(skipped)] * bool(skipped) + [f"{empty} empty"] * (empty > 0)
    nothing = ", which is empty" if Path(name).is_file() else ", which holds no files"
    why = f" ({'; '.join(reasons)})" if reasons else nothing
    if reasons and not empty and all(item.foreign and item.reason.startswith("hidden") for item in skipped):
        why = f", which holds no files but hidden ones{why}"
    return f"there is no text to use in {name}{why}; give UTF-8 text, JSON lines or Parquet, plain, .gz or .zst"


def split_documents(
    survey: Survey, config: DataConfig, name: str, whole: Whole = None
) -> tuple[dict[str, NDArray[np.int64]], int]:
    """For each split the numbers of its documents in the order of their hash, each text once; near duplicates removed.

    A text is held out for validation when its hash, as a share of the largest possible, is below
    `validation_fraction`, and for the test when it is at least 1 - `test_fraction`; a pair of answers by the hash of
    its prompt. No split that was asked for stays empty: the lowest hash is always for validation, the highest for the
    test, and one between them for training.
    With `whole` = "train" none is held out for validation, with "validation" all are. Raises `UserError` when there are
    too few texts for that.
    """
    order, near = _different(survey)
    validation, test = len(order), 0
    if whole != "validation":
        validate, tested = whole is None, config.test_fraction > 0
        least = 1 + validate + tested
        fix = (
            f"give pairs of answers to at least {least} different prompts"
            if survey.pairs
            else f"give at least {least} different documents, or one plain text file of over {PASSAGE_BYTES:,} bytes, "
            f"which is cut into passages at its line ends"
        )
        validation, test = held_out_counts(survey.digests[order, 0], config, name, validate, tested, fix)
    last = len(order) - test
    return {"train": order[validation:last], "validation": order[:validation], "test": order[last:]}, near


def _different(survey: Survey) -> tuple[NDArray[np.int64], int]:
    """The numbers of all different texts in the order of their hash, and how many near duplicates were removed."""
    digests = survey.digests
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: of equal texts the one read first is kept
    ordered = digests[order]
    order = order[np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])]
    different = len(order)
    if survey.near:
        order = survey.near.without_near_duplicates(order)
    return order, different - len(order)


def held_out_counts(
    leading: NDArray[Any], config: DataConfig, name: str, validate: bool, tested: bool, fix: str
) -> tuple[int, int]:
    """How many of the lowest hashes are for validation, and of the highest for the test, if there is to be one.

    `leading` are 64 bits of each in rising order; documents with the same ones, which are pairs of answers to one
    prompt, stay together. Raises `UserError`, which ends with `fix`, for too few.
    """
    hashes, first = np.unique(leading, return_index=True)
    count, least = len(hashes), 1 + validate + tested
    if count < least:
        unit = "prompt" if config.pairs else "document"
        documents = f"{count} different {unit}s" if count > 1 else f"one {unit}"
        missing = "the test" if tested else "validation"
        raise UserError(f"{name} holds {documents}, so none can be held out for {missing}; {fix}")
    share = hashes.astype(np.float64) / 2.0**64
    validation = min(max(int(np.count_nonzero(share < config.validation_fraction)), 1), count - 1 - tested)
    validation *= validate
    test = int(np.count_nonzero(share >= 1.0 - config.test_fraction)) if tested else 0
    test = min(max(test, tested), count - validation - 1)
    starts = np.append(first, len(leading))
    return int(starts[validation]), int(len(leading) - starts[count - test])


def corpus_fingerprint(version: int, survey: Survey, splits: dict[str, NDArray[np.int64]]) -> str:
    """A hash of the content of all splits, in order; an empty test split does not enter it."""
    identity = hashlib.sha256(f"lmscale corpus {version}".encode())
    for name in SPLITS:
        if name != "test" or len(splits[name]):
            identity.update(len(splits[name]).to_bytes(8, "big") + survey.digests[splits[name]].tobytes())
    return identity.hexdigest()[:16]


def readable_documents(source: Source, unreadable: set[str]) -> Iterator[Document]:
    """The documents that the survey counted, in its order. Raises `Unreadable` where the source has changed."""
    for unit, _ in source.units():
        if unit not in unreadable:
            yield from (document for document in source.documents(unit, []) if has_text(document))
