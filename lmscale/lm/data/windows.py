"""Training and validation text as windows of context + 1 tokens that can be had by number, from disk or made.

Letters: C context, W windows.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import synthetic
from lmscale.core.errors import UserError
from lmscale.lm.data.manifest import ENDLESS, Tokens, windows

SAID = {"train": "training", "validation": "validation", "test": "test"}


class Windows(Protocol):
    """Windows of one source and split."""

    key: str
    """What an order of them depends on besides the seed."""
    count: int
    """W, at most `ENDLESS`."""

    def take(self, numbers: NDArray[np.int64]) -> Any:
        """The windows `numbers` as int32 [n, C + 1]."""


class StoredWindows:
    """See `Windows`: a view of the tokens of one split. Raises `UserError` when there is not one window."""

    def __init__(self, tokens: Tokens, split: str, context: int, count: int | None = None) -> None:
        row = tokens.split(split)[0]
        if not windows(len(row), context):
            raise UserError(
                f"the {SAID[split]} split has {len(row):,} tokens, too few for one sequence of context = {context:,} "
                f"and its next token; give more text or take a context of at most {max(1, len(row) - 1):,}"
            )
        self.key = tokens.manifest.fingerprint
        self._cut = np.lib.stride_tricks.sliding_window_view(row, context + 1)[::context]
        self.count = len(self._cut) if count is None else count

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
        """The windows `numbers`."""
        return self._cut[numbers].astype(np.int32)


class MadeWindows:
    """See `Windows`: those of a language, made on the device. `stream` tells independent texts of a split apart."""

    def __init__(self, spec: synthetic.Language, split: str, context: int, stream: int, count: int = ENDLESS) -> None:
        from lmscale.lm.data import languages

        self.key = spec.spec
        self.count = count
        self.generate = languages.generator(spec, split, context, stream)
        """Jitted: numbers uint32 [n, 2], high and low half -> windows int32 [n, C + 1]."""

    def take(self, numbers: NDArray[np.int64]) -> Any:
        """The windows `numbers`, left on the device."""
        return self.generate(halves(numbers))


def halves(numbers: NDArray[np.int64]) -> NDArray[np.uint32]:
    """[n, 2]: the high and low 32 bits of `numbers`."""
    whole = numbers.astype(np.uint64)
    return np.stack([whole >> np.uint64(32), whole & np.uint64(0xFFFFFFFF)], axis=1).astype(np.uint32)


def training(tokens: Tokens, context: int, seed: int) -> list[Windows]:
    """Of every part, its limit kept. Without a limit each seed has its own text of a language."""
    found: list[Windows] = []
    for part, count in zip(tokens.parts or (tokens,), tokens.manifest.unique_windows(context)):
        if tokens.manifest.unique_limit is not None and count == 0:
            raise UserError(
                f"unique_tokens = {tokens.manifest.unique_limit:,} leaves no sequence of context = {context:,} of "
                f"{part.manifest.source}; raise it or take a smaller context"
            )
        if part.manifest.endless:
            limited = tokens.manifest.unique_limit is not None
            spec = synthetic.parse(part.manifest.source)
            found.append(MadeWindows(spec, "train", context, 0 if limited else seed + 1, count))
        else:
            found.append(StoredWindows(part, "train", context, count or None))
    return found


def held_out(tokens: Tokens, split: str, context: int) -> list[Windows]:
    """Of every part, all of its `split`."""
    return [
        MadeWindows(synthetic.parse(part.manifest.source), split, context, 0)
        if part.manifest.endless
        else StoredWindows(part, split, context)
        for part in tokens.parts or (tokens,)
    ]
