"""Pairs of answers as windows of two sequences: the prompt with the chosen answer, and with the rejected one.

A sequence begins with the end of a document, as every whole document does in training; then come prompt, answer and the
end that follows the answer, then padding. Where one of the two is too long, both lose the same beginning of their
prompt; answers are never cut. Letters: C context, P pairs.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError
from lmscale.core.quantities import counted
from lmscale.lm.data.document_windows import PADDING, SPLIT_NAMES
from lmscale.lm.data.manifest import Tokens

CHOSEN, REJECTED = 0, 1


@dataclass(frozen=True)
class PairPlaces:
    """Where the parts of every pair of a split lie among its tokens. Ends of documents are not in them: [P, 2] each."""

    starts: NDArray[np.int64]
    """Where prompts begin and end, without what is cut of them."""
    answers: NDArray[np.int64]
    """Where answers begin and end."""
    stops: NDArray[np.int64]
    cut: NDArray[np.int64]
    """Tokens that the prompt loses at its beginning, the same for both answers."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Targets of each sequence, the end counted: [P, 2]."""
        return self.stops - self.starts + 1


@lru_cache(maxsize=16)
def places(folder: Path, source: str, split: str, context: int) -> PairPlaces:
    """The pairs of a split whose tokens are cached in `folder`. Raises `UserError` for answers beyond the context."""
    ends: NDArray[np.int64] = np.load(folder / f"{split}_starts.npy")
    scored = np.memmap(folder / f"{split}_scored.bin", bool, "r")
    # Prompts and answers take turns, prompt, chosen, prompt, rejected, and no part is empty: three changes in a pair.
    changes = np.flatnonzero(scored[1:] != scored[:-1]) + 1
    inner = changes[~np.isin(changes, ends)]
    if len(inner) != 3 * (len(ends) - 1):
        raise UserError(
            f"a pair of the {SPLIT_NAMES[split]} split of {source} has a prompt or an answer of which the tokenizer "
            f"makes no token; leave such pairs out, or take another tokenizer"
        )
    inner = inner.reshape(-1, 3)
    starts = np.stack([ends[:-1], inner[:, 1]], axis=1)
    answers = inner[:, ::2]
    stops = np.stack([inner[:, 1], ends[1:] - 1], axis=1)
    _check_answers(stops - answers + 1, source, split, context)
    # Both lose as much as the longer one has to, so that both answer the same prompt.
    cut = np.repeat(np.maximum(stops - starts + 1 - context, 0).max(axis=1, keepdims=True), 2, axis=1)
    return PairPlaces(starts + cut, answers, stops, cut)


def _check_answers(lengths_P2: NDArray[np.int64], source: str, split: str, context: int) -> None:
    long = np.flatnonzero((lengths_P2 > context).any(axis=1))
    if len(long):
        raise UserError(
            f"{counted(len(long), 'pair')} of the {SPLIT_NAMES[split]} split of {source} "
            f"{'has' if len(long) == 1 else 'have'} an answer longer than the context of {context:,} tokens (pair "
            f"{long[0]:,} has one of {int(lengths_P2[long[0]].max()):,} with its end); answers are never cut: take a "
            f"context of at least {int(lengths_P2.max()):,}, or leave such pairs out"
        )


class PairWindows:
    """See `Windows`: int32 [n, 2, C + 1], the chosen answer first. Targets that are padding are `PADDING`."""

    def __init__(self, tokens: Tokens, split: str, context: int, count: int | None = None) -> None:
        """Raises `UserError` for an answer that is longer than the context."""
        manifest = tokens.manifest
        self.places = places(manifest.folder, manifest.source, split, context)
        self.key = f"{manifest.fingerprint} {manifest.layout}"
        self.count = len(self.places.starts) if count is None else count
        self._context, self._end = context, manifest.end_of_document
        self._row = tokens.split(split)[0]

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
        """The pairs `numbers` as int32 [n, 2, C + 1]."""
        windows = np.full((len(numbers), 2, self._context + 1), PADDING, np.int32)
        windows[:, :, 0] = self._end
        for window, number in zip(windows, numbers):
            for side in (CHOSEN, REJECTED):
                start, stop = self.places.starts[number, side], self.places.stops[number, side]
                window[side, 1 : 1 + stop - start] = self._row[start:stop]
                window[side, 1 + stop - start] = self._end
        return windows

    def scored(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each target of the pairs `numbers`, [n, 2, C], is of an answer or the end behind it."""
        first = (self.places.answers - self.places.starts)[numbers][..., None]
        after = self.places.lengths[numbers][..., None]
        targets = np.arange(self._context)
        return (targets >= first) & (targets < after)


def sentence(placed: PairPlaces, source: str, context: int) -> str:
    """How pairs became sequences, and what was cut."""
    padding = 1 - placed.lengths.sum() / (placed.lengths.size * context)
    text = (
        f"{counted(len(placed.lengths), 'pair')} of {source}, each answer in a sequence of {context:,} tokens, "
        f"{padding:.1%} of them padding; "
    )
    cut = int((placed.cut > 0).any(axis=1).sum())
    if not cut:
        return text + "nothing is cut"
    return text + f"{counted(cut, 'pair')} longer than that lost {int(placed.cut.sum()):,} tokens of prompts"
