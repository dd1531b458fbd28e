"""What was prepared: counts of every split and where they come from, and the tokens themselves."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmscale.core import files
from lmscale.core.errors import UserError
from lmscale.lm.data.corpora import Skipped
from lmscale.lm.data.document_windows import Placement, placement
from lmscale.lm.data.joined import TokenRow

ENDLESS = 1 << 62
"""Tokens of a language that is generated as it is read."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What was prepared: counts of all splits, and where they come from.

    Counts of a mixture are sums over its `components`; a language without end has `ENDLESS` tokens and no documents.
    """

    source: str
    """The source in words, with its version."""
    fingerprint: str
    """A hash of what is read: the text of every document of every split, in order, and the tokenizer; of a mixture, of
    its components and their weights. Two manifests with one fingerprint describe the same tokens, on any machine: a
    run's outcome, checkpoint and plan hold it as `data_fingerprint`."""
    corpus_fingerprint: str
    tokenizer: str
    tokenizer_file: str | None = None
    """Where the tokenizer lies, if in a file."""
    tokenizer_fingerprint: str = ""
    """Changes whenever the same text would give other tokens."""
    vocab: int
    end_of_document: int
    """The id that follows the last token of every document."""
    dtype: str
    train_tokens: int
    """Ends of documents counted."""
    validation_tokens: int
    test_tokens: int = 0
    train_documents: int
    validation_documents: int
    test_documents: int = 0
    train_bytes: int
    """Bytes of text as UTF-8; ends of documents count none."""
    validation_bytes: int
    test_bytes: int = 0
    train_scored_tokens: int | None = None
    """Training tokens that are no prompt; None where documents have no prompts."""
    validation_scored_tokens: int | None = None
    test_scored_tokens: int | None = None
    duplicates_removed: int
    near_duplicates_removed: int = 0
    empty_removed: int
    skipped: tuple[Skipped, ...]
    versions: dict[str, str]
    tokens_path: str | None = None
    """Where the tokens lie, if others wrote them."""
    remarks: tuple[str, ...] = ()
    """What was found in the files of others, in sentences."""
    own_splits: tuple[str, ...] = ()
    """Splits that the source brings with it, so that none of its documents are held out for them."""
    unique_limit: int | None = None
    """Only so many leading training tokens are used."""
    template: str = ""
    """The template that made documents of records, in full; empty where none did."""
    layout: Literal["stream", "packed", "padded", "pairs"] = "stream"
    """How documents become sequences; see `DataConfig.layout`. Of pairs each answer has one of its own."""
    weights: tuple[int, ...] = ()
    """In a mixture: the rows of each component, out of their sum."""
    components: tuple["Manifest", ...] = field(default=())
    """The sources of a mixture; of what is validated on a source of its own, those of training, if only one."""
    held_out: "Manifest | None" = None
    """The source of the validation split, where it has one of its own."""

    @property
    def folder(self) -> Path:
        """Where the tokens are cached; of a mixture, where its statistics are."""
        return files.cache_dir() / "tokens" / self.fingerprint

    @property
    def prompts(self) -> bool:
        """Whether documents begin with prompts; of a mixture, those of any component."""
        return any(each.prompts for each in self.components) or self.train_scored_tokens is not None

    @property
    def endless(self) -> bool:
        """Whether any component is generated as it is read, without end."""
        return any(component.endless for component in self.components) or self.train_tokens == ENDLESS

    @property
    def window_sequences(self) -> int:
        """Sequences of one window: two where it is a pair of answers. A mixture has one kind of them."""
        return 2 if "pairs" in (self.layout, *(each.layout for each in self.components)) else 1

    def documents(self, split: str) -> int:
        """Documents of one split."""
        counts = {"train": self.train_documents, "validation": self.validation_documents, "test": self.test_documents}
        return counts[split]

    def tokens(self, split: str) -> int:
        """Tokens of one split."""
        return {"train": self.train_tokens, "validation": self.validation_tokens, "test": self.test_tokens}[split]

    def unique_windows(self, context: int) -> list[int]:
        """W of every component (of the whole, if it is no mixture): training windows of one epoch, within the limit.

        `ENDLESS` for a language without end and without limit. Raises `UserError` where the limit exceeds the text.
        """
        components, weights = (self.components, self.weights) if self.components else ((self,), (1,))
        if self.unique_limit is None:
            return [component._all_windows(context) for component in components]
        return [
            component._limited_windows(context, self.unique_limit, weight, sum(weights))
            for component, weight in zip(components, weights)
        ]

    def placement(self, split: str, context: int) -> Placement:
        """Which documents of a split lie in which sequence; only where `layout` is not a stream.

        Raises `UserError` for an answer that is longer than the context.
        """
        assert self.layout in ("packed", "padded"), "a stream is cut into windows, and a pair is two sequences"
        item_bytes = np.dtype(self.dtype).itemsize
        return placement(self.folder, self.source, split, context, self.layout, item_bytes)

    def windows(self, split: str, context: int) -> int:
        """W of a split of a source on disk."""
        if self.layout == "pairs":
            return self.documents(split)
        if self.layout == "stream" or not self.tokens(split):
            return windows(self.tokens(split), context)
        return self.placement(split, context).windows

    def _all_windows(self, context: int) -> int:
        return ENDLESS if self.endless else self.windows("train", context)

    def _limited_windows(self, context: int, limit: int, weight: int, total_weight: int) -> int:
        """The windows of this component's share of a limit on unique tokens."""
        size = context * self.window_sequences
        share, available = limit * weight // total_weight // size, self._all_windows(context)
        if share > available:
            raise UserError(
                f"unique_tokens = {limit:,} asks for {share * size:,} training tokens of {self.source}, which has "
                f"{available * size:,} in whole sequences of context = {context:,}; the most that fits is "
                f"{available * size * total_weight // weight:,}"
            )
        return share

    def unique_tokens(self, context: int) -> int:
        """Training tokens that one epoch scores: whole windows only. Raises `UserError` as `unique_windows` does."""
        return sum(self.unique_windows(context)) * context * self.window_sequences

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON values; the file's word for `components` is `parts`."""
        return {"parts" if name == "components" else name: value for name, value in asdict(self).items()}


def windows(tokens: int, context: int) -> int:
    """W: windows of context + 1 tokens that start every `context` tokens and lie wholly inside."""
    return max(0, (tokens - 1) // context)


def _none() -> NDArray[Any]:
    return np.empty(0, np.uint8)


def _no_starts() -> NDArray[np.int64]:
    return np.zeros(1, np.int64)


@dataclass(frozen=True)
class Tokens:
    """Prepared tokens, mapped from disk: [tokens] of the manifest's dtype and [documents + 1] starts, per split.

    A mixture has them in its `components`, as has all that is validated on a source of its own, `held_out`; an endless
    language has none.
    """

    manifest: Manifest
    train: TokenRow = field(default_factory=_none)
    validation: TokenRow = field(default_factory=_none)
    train_starts: NDArray[np.int64] = field(default_factory=_no_starts)
    validation_starts: NDArray[np.int64] = field(default_factory=_no_starts)
    test: TokenRow = field(default_factory=_none)
    test_starts: NDArray[np.int64] = field(default_factory=_no_starts)
    train_scored: NDArray[np.bool_] | None = None
    """[tokens]: False for the tokens of prompts; None where documents have none."""
    validation_scored: NDArray[np.bool_] | None = None
    test_scored: NDArray[np.bool_] | None = None
    components: tuple["Tokens", ...] = ()
    held_out: "Tokens | None" = None

    def source_of(self, split: str) -> "Tokens":
        """The tokens that hold a split: these, or for validation those of its own source."""
        return self.held_out if split == "validation" and self.held_out is not None else self

    def scored(self, split: str) -> NDArray[np.bool_] | None:
        """[tokens] of one split: False for those of prompts; None where documents have none."""
        return {"train": self.train_scored, "validation": self.validation_scored, "test": self.test_scored}[split]

    def split(self, name: str) -> tuple[TokenRow, NDArray[np.int64]]:
        """Tokens and starts of one split."""
        return {
            "train": (self.train, self.train_starts),
            "validation": (self.validation, self.validation_starts),
            "test": (self.test, self.test_starts),
        }[name]
