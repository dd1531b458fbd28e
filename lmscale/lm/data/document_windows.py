"""Whole documents as sequences: as many as fit into each, or one each; what is too long loses the start of its prompt.

A sequence begins with the end of a document, as text does in training, so that the first token is predicted too; then
come documents with their ends, then padding, which is read as token 0 and scored nowhere. Answers are never cut.
Letters: C context, W windows.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError
from lmscale.core.quantities import counted

PADDING = -1
SPLIT_NAMES = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Placement:
    """Which documents of a split lie in which sequence."""

    context: int
    documents: NDArray[np.int64]
    """Numbers of documents, window after window."""
    firsts: NDArray[np.int64]
    """[W + 1]: where in `documents` each window begins, then their number."""
    cut: NDArray[np.int64]
    """[documents]: tokens that each loses at its beginning."""
    lengths: NDArray[np.int64]
    """[documents]: tokens that are left of each."""

    @property
    def windows(self) -> int:
        """W."""
        return len(self.firsts) - 1

    @property
    def window_of_document(self) -> NDArray[np.int64]:
        """[documents]: the window in which each lies."""
        windows = np.empty(len(self.documents), np.int64)
        windows[self.documents] = np.repeat(np.arange(self.windows), np.diff(self.firsts))
        return windows

    @property
    def padding(self) -> NDArray[np.int64]:
        """[W]: targets of each window that are padding."""
        return self.context - np.add.reduceat(self.lengths[self.documents], self.firsts[:-1])


@lru_cache(maxsize=16)
def placement(
    folder: Path, source: str, split: str, context: int, layout: Literal["packed", "padded"], dtype_bytes: int
) -> Placement:
    """The placement of a split whose tokens are cached in `folder`.

    Raises `UserError` for an answer that is longer than the context.
    """
    starts: NDArray[np.int64] = np.load(folder / f"{split}_starts.npy")
    tokens = (folder / f"{split}.bin").stat().st_size // dtype_bytes
    assert tokens == starts[-1]
    path = folder / f"{split}_scored.bin"
    scored = np.memmap(path, bool, "r") if path.exists() else np.ones(tokens, bool)
    _check_answers(starts, scored, source, split, context)
    full = np.diff(starts)
    lengths = np.minimum(full, context)
    numbers = best_fit(lengths, context) if layout == "packed" else np.arange(len(lengths))
    # Windows are numbered by their first document: documents are in the order of their hash, so that leading windows
    # are a fair sample.
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    windows = rank[inverse]
    documents = np.argsort(windows, kind="stable")
    firsts = np.concatenate([[0], np.cumsum(np.bincount(windows))])
    return Placement(context, documents, firsts, full - lengths, lengths)


def best_fit(lengths: NDArray[np.int64], context: int) -> NDArray[np.int64]:
    """The window of each document: the longest come first, and each takes the window that it fills best.

    Best-fit decreasing (Johnson 1974) needs at most 11/9 of the fewest windows.
    """
    windows, count = np.empty(len(lengths), np.int64), 0
    by_space: list[list[int]] = [[] for _ in range(context + 1)]
    spaces = 0  # bit s is set where a window has s tokens left
    for document in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[document])
        if large := spaces >> length:
            space = length + (large & -large).bit_length() - 1
            window = by_space[space].pop()
            if not by_space[space]:
                spaces ^= 1 << space
        else:
            window, space, count = count, context, count + 1
        windows[document] = window
        if left := space - length:
            by_space[left].append(window)
            spaces |= 1 << left
    return windows


def last_answers(starts: NDArray[np.int64], scored: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[documents]: where the last answer of each begins, behind the last token of a prompt."""
    prompts = np.flatnonzero(~scored)
    before = np.searchsorted(prompts, starts[1:]) - 1
    last = np.where(before >= 0, prompts[np.maximum(before, 0)], -1) if len(prompts) else np.full(len(before), -1)
    return np.maximum(last + 1, starts[:-1])


def _check_answers(starts: NDArray[np.int64], scored: NDArray[np.bool_], source: str, split: str, context: int) -> None:
    """Raise `UserError` where the last answer of a document, with its end, is longer than the context."""
    answers = starts[1:] - last_answers(starts, scored)
    if len(long := np.flatnonzero(answers > context)):
        most = int(answers.max())
        raise UserError(
            f"{counted(len(long), 'answer')} of the {SPLIT_NAMES[split]} documents of {source} "
            f"{'is' if len(long) == 1 else 'are'} longer than the context of {context:,} tokens (document {long[0]:,} "
            f"has {int(answers[long[0]]):,} with its end); answers are never cut: take a context of at least {most:,}, "
            f"leave such documents out, or take DataConfig(layout='stream')"
        )


def sentence(placed: Placement, scored: NDArray[np.bool_], starts: NDArray[np.int64], source: str) -> str:
    """How documents became sequences, and what was cut."""
    padding = placed.padding.sum() / (placed.windows * placed.context)
    text = (
        f"{counted(len(placed.lengths), 'document')} of {source} in {counted(placed.windows, 'sequence')} of "
        f"{placed.context:,} tokens, {padding:.1%} of them padding; "
    )
    cut = np.flatnonzero(placed.cut)
    if not len(cut):
        return text + "nothing is cut"
    answers = sum(int(scored[starts[number] : starts[number] + placed.cut[number]].sum()) for number in cut)
    text += f"{counted(len(cut), 'document')} longer than that lost {int(placed.cut.sum()):,} tokens at the beginning"
    return text + (f", {answers:,} of them of earlier answers" if answers else ", none of an answer")
