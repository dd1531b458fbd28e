"""Training and validation text as numbered windows of context + 1 tokens, read from disk or generated.

Letters: C context, W windows.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import synthetic
from lmscale.core.errors import UserError
from lmscale.lm.data import pair_windows
from lmscale.lm.data.document_windows import PADDING, SPLIT_NAMES, sentence
from lmscale.lm.data.joined import JoinedTokens
from lmscale.lm.data.manifest import ENDLESS, Tokens, windows
from lmscale.lm.data.pair_windows import PairWindows


class Windows(Protocol):
    """Windows of one source and split."""

    key: str
    """What an order of them depends on besides the seed."""
    count: int
    """W, at most `ENDLESS`."""

    def take(self, numbers: NDArray[np.int64]) -> Any:
        """The windows `numbers` as int32 [n, C + 1]; pairs of answers as [n, 2, C + 1]."""

    def scored(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each target of the windows `numbers`, [n, C] or [n, 2, C], is scored: False for those of prompts."""


class StoredWindows:
    """See `Windows`: a view of the tokens of one split. Raises `UserError` when there is not one window."""

    def __init__(self, tokens: Tokens, split: str, context: int, count: int | None = None) -> None:
        row = tokens.split(split)[0]
        if not windows(len(row), context):
            raise UserError(
                f"the {SPLIT_NAMES[split]} split has {len(row):,} tokens, too few for one sequence of context = "
                f"{context:,} and its next token; give more text or take a context of at most {max(1, len(row) - 1):,}"
            )
        self.key = tokens.manifest.fingerprint
        self._context = context
        self._row: JoinedTokens | None = None
        if isinstance(row, JoinedTokens):
            self._row = row
        else:
            self._view = np.lib.stride_tricks.sliding_window_view(row, context + 1)[::context]
        self.count = windows(len(row), context) if count is None else count
        scored = tokens.scored(split)
        self._scored = None
        if scored is not None:
            self._scored = np.lib.stride_tricks.sliding_window_view(scored, context + 1)[::context, 1:]

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
        """The windows `numbers` as int32 [n, C + 1]."""
        if self._row is not None:
            return self._row.windows(numbers * self._context, self._context + 1)
        return self._view[numbers].astype(np.int32)

    def scored(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `Windows`."""
        if self._scored is None:
            return np.ones((len(numbers), self._context), bool)
        return self._scored[numbers]


class DocumentWindows:
    """See `Windows`: whole documents, placed by the layout of the manifest. Raises `UserError` for too long an answer.

    Targets that are padding are `PADDING`.
    """

    def __init__(self, tokens: Tokens, split: str, context: int, count: int | None = None) -> None:
        self.placement = tokens.manifest.placement(split, context)
        self.key = f"{tokens.manifest.fingerprint} {tokens.manifest.layout}"
        self.count = self.placement.windows if count is None else count
        self._context, self._end = context, tokens.manifest.end_of_document
        self._row, self._starts = tokens.split(split)
        self._scored = tokens.scored(split)

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
        """The windows `numbers` as int32 [n, C + 1]."""
        windows = np.full((len(numbers), self._context + 1), PADDING, np.int32)
        windows[:, 0] = self._end
        for window, spans in zip(windows, map(self._spans, numbers)):
            for at, start, stop in spans:
                window[1 + at : 1 + at + stop - start] = self._row[start:stop]
        return windows

    def scored(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `Windows`."""
        scored = np.zeros((len(numbers), self._context), bool)
        for row, spans in zip(scored, map(self._spans, numbers)):
            for at, start, stop in spans:
                row[at : at + stop - start] = True if self._scored is None else self._scored[start:stop]
        return scored

    def _spans(self, number: int) -> Iterator[tuple[int, int, int]]:
        """Where a window's documents are: the target at which each begins; its first token in the split and its end."""
        at, placed = 0, self.placement
        for document in placed.documents[placed.firsts[number] : placed.firsts[number + 1]].tolist():
            stop = int(self._starts[document + 1])
            yield at, int(self._starts[document] + placed.cut[document]), stop
            at += int(placed.lengths[document])


class SyntheticWindows:
    """See `Windows`: generated from a language on the device. `stream` tells independent texts of a split apart."""

    def __init__(self, spec: synthetic.Language, split: str, context: int, stream: int, count: int = ENDLESS) -> None:
        from lmscale.lm.data import languages

        self.key = spec.spec
        self.count = count
        self._context = context
        self.generate = languages.window_generator(spec, split, context, stream)
        """Jitted: numbers uint32 [n, 2], high and low half -> windows int32 [n, C + 1]."""

    def take(self, numbers: NDArray[np.int64]) -> Any:
        """The windows `numbers`, left on the device."""
        return self.generate(halves(numbers))

    def scored(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `Windows`: a language has no prompts."""
        return np.ones((len(numbers), self._context), bool)


def halves(numbers: NDArray[np.int64]) -> NDArray[np.uint32]:
    """[n, 2]: the high and low 32 bits of `numbers`."""
    whole = numbers.astype(np.uint64)
    return np.stack([whole >> np.uint64(32), whole & np.uint64(0xFFFFFFFF)], axis=1).astype(np.uint32)


def training(tokens: Tokens, context: int, seed: int) -> list[Windows]:
    """The training windows of every source, within its limit. Without a limit each seed has its own text of a language.

    Raises `UserError` where the limit leaves a source no window.
    """
    sources: list[Windows] = []
    for component, count in zip(tokens.components or (tokens,), tokens.manifest.unique_windows(context)):
        if tokens.manifest.unique_limit is not None and count == 0:
            raise UserError(
                f"unique_tokens = {tokens.manifest.unique_limit:,} leaves no sequence of context = {context:,} of "
                f"{component.manifest.source}; raise it or take a smaller context"
            )
        if component.manifest.endless:
            limited = tokens.manifest.unique_limit is not None
            spec = synthetic.parse(component.manifest.source)
            sources.append(SyntheticWindows(spec, "train", context, 0 if limited else seed + 1, count))
        else:
            sources.append(_stored(component, "train", context, count or None))
    return sources


def held_out(tokens: Tokens, split: str, context: int) -> list[Windows]:
    """The windows of every source's `split`; of validation those of its own source, if it has one."""
    tokens = tokens.source_of(split)
    return [
        SyntheticWindows(synthetic.parse(component.manifest.source), split, context, 0)
        if component.manifest.endless
        else _stored(component, split, context)
        for component in tokens.components or (tokens,)
    ]


def layout_sentences(tokens: Tokens, context: int) -> list[str]:
    """How the training documents of each source that keeps them whole became sequences, and what was cut."""
    sentences = []
    for part in tokens.components or (tokens,):
        manifest = part.manifest
        if manifest.layout == "pairs":
            placed = pair_windows.places(manifest.folder, manifest.source, "train", context)
            sentences.append(pair_windows.sentence(placed, manifest.source, context))
        elif manifest.layout != "stream" and part.train_scored is not None:
            placement = manifest.placement("train", context)
            sentences.append(sentence(placement, part.train_scored, part.train_starts, manifest.source))
    return sentences


def _stored(tokens: Tokens, split: str, context: int, count: int | None = None) -> Windows:
    """The windows of a source on disk, as its manifest lays them out."""
    if tokens.manifest.layout == "pairs":
        return PairWindows(tokens, split, context, count)
    kind = StoredWindows if tokens.manifest.layout == "stream" else DocumentWindows
    return kind(tokens, split, context, count)
