"""Any batch of any run by its number, and the fixed sample that runs are scored on.

Letters: B sequences of a batch, C context, W windows, K sources.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.lm.data import tokenizer
from lmscale.lm.data.document_windows import PADDING, SPLIT_NAMES
from lmscale.lm.data.manifest import ENDLESS, Tokens
from lmscale.lm.data.order import EpochOrder, MixtureSchedule, Shuffle
from lmscale.lm.data.pair_windows import PairWindows
from lmscale.lm.data.prepare import load_tokenizer
from lmscale.lm.data.usage import DataUsage, repeats
from lmscale.lm.data.windows import DocumentWindows, Windows, held_out, training


class Batches:
    """The training order: `batches[t]` is global batch t, int32 [B, C + 1], for any t >= 0; of pairs [B, 2, C + 1].

    A pure function of the tokens, the seed, t, B and C. Of a mixture each row has one source, and after any number of
    rows each source has its share of them to within one row. Rows of a language alone are arrays on the device.
    Raises `UserError` when a source is smaller than one window.
    """

    def __init__(self, tokens: Tokens, context: int, batch_rows: int, seed: int) -> None:
        """`batch_rows` is B: sequences, or pairs of them."""
        self._tokens = tokens
        self._sources = training(tokens, context, seed)
        self._orders = [EpochOrder(source.count, f"{source.key} {context} {seed}") for source in self._sources]
        self._schedule = MixtureSchedule(tokens.manifest.weights or (1,))
        self.context = context
        self.batch_rows = batch_rows
        self.row_tokens = context * tokens.manifest.window_sequences
        """Targets of one row."""
        self.windows = sum(source.count for source in self._sources)
        """W, the windows of one epoch of all sources."""
        self.unique_tokens = self.windows * self.row_tokens
        """Tokens that one epoch scores."""

    def __getitem__(self, t: int) -> Any:
        return self.rows(t, 0, self.batch_rows)

    def rows(self, t: int, start: int, stop: int) -> Any:
        """Rows `start` ... `stop` - 1 of batch t, int32 [stop - start, C + 1]: one host's share."""
        return self._take(t, start, stop, lambda source, numbers: source.take(numbers))

    def scored(self, t: int, start: int, stop: int) -> NDArray[np.bool_]:
        """Whether each target of those rows, [stop - start, C], is scored: False for those of prompts."""
        return np.asarray(self._take(t, start, stop, lambda source, numbers: source.scored(numbers)))

    def _take(self, t: int, start: int, stop: int, take: Callable[[Windows, NDArray[np.int64]], Any]) -> Any:
        """What `take` gives for the windows of some rows of batch t."""
        if t < 0 or not 0 <= start <= stop <= self.batch_rows:
            raise IndexError(f"batch {t} has no rows {start}:{stop}; there are {self.batch_rows} and t >= 0")
        first, last = t * self.batch_rows + start, t * self.batch_rows + stop
        if len(self._sources) == 1 or start == stop:
            return take(self._sources[0], self._orders[0](first, last))
        rows: NDArray[Any] | None = None
        source_of_row = self._schedule.sources(first, last)
        begins, ends = self._schedule.counts(first), self._schedule.counts(last)
        for number, (source, order) in enumerate(zip(self._sources, self._orders)):
            if ends[number] > begins[number]:
                part = np.asarray(take(source, order(int(begins[number]), int(ends[number]))))
                rows = np.empty((stop - start, *part.shape[1:]), part.dtype) if rows is None else rows
                rows[source_of_row == number] = part
        return rows

    @property
    def _laid_out(self) -> bool:
        """Whether documents of any source are kept whole."""
        return any(isinstance(source, DocumentWindows | PairWindows) for source in self._sources)

    def epochs(self, tokens: int) -> float:
        """Passes over the unique tokens that training on `tokens` makes; 0 where the text has no end."""
        return 0.0 if self._tokens.manifest.endless and self.windows >= ENDLESS else tokens / self.unique_tokens

    def usage(self, tokens: int) -> DataUsage:
        """What training on `tokens` of these batches reads: every token counted once, as fresh or as repeated."""
        rows_by_source = self._schedule.counts(tokens // self.row_tokens).tolist()
        tokens_by_source, epochs_by_source, unique, repeats_by_source, scored = {}, {}, 0, [], 0
        padding = cut = 0
        components = self._tokens.components or (self._tokens,)
        for component, source, order, rows in zip(components, self._sources, self._orders, rows_by_source):
            name = component.manifest.source
            scored += rows * self.row_tokens if component.train_scored is None else _scored(source, order, rows)
            tokens_by_source[name] = rows * self.row_tokens
            unique += min(rows, order.windows) * self.row_tokens
            epochs_by_source[name] = 0.0 if order.windows == ENDLESS else rows / order.windows
            if isinstance(source, DocumentWindows):
                visits, placed = order.visits(rows), source.placement
                padding += int(visits @ placed.padding[: order.windows])
                cut += int(placed.cut.sum())
                used = placed.window_of_document < order.windows
                repeats_by_source.append(visits[placed.window_of_document[used]].astype(np.float64))
            elif isinstance(source, PairWindows):
                visits, lengths = order.visits(rows), source.places.lengths[: order.windows]
                padding += int(visits @ (self.row_tokens - lengths.sum(axis=1)))
                cut += int(source.places.cut.sum())
                repeats_by_source.append(visits.astype(np.float64))
            elif order.windows != ENDLESS:
                starts = None if component.manifest.endless else component.train_starts
                repeats_by_source.append(repeats(order.visits(rows), starts, self.context))
        per_document = np.concatenate(repeats_by_source) if repeats_by_source else None
        return DataUsage(
            tokens_by_source=tokens_by_source,
            answer_tokens=scored if self._tokens.manifest.prompts else None,
            padding_tokens=padding if self._laid_out else None,
            cut_tokens=cut if self._laid_out else None,
            unique_tokens=unique,
            epochs=self.epochs(tokens),
            epochs_by_source=epochs_by_source,
            repeats_min=None if per_document is None else float(per_document.min()),
            repeats_mean=None if per_document is None else float(per_document.mean()),
            repeats_max=None if per_document is None else float(per_document.max()),
        )


def _scored(source: Windows, order: EpochOrder, rows: int) -> int:
    """Targets that are scored in the first `rows` windows that are drawn from a source with prompts."""
    scored = source.scored(np.arange(order.windows))
    return int(order.visits(rows) @ scored.reshape(order.windows, -1).sum(axis=1))


class ValidationSet:
    """A fixed sample of a held-out split, the same for every run on these tokens with this context.

    Its windows are drawn from the whole split in a fixed random order, so that they come from many documents and a
    smaller set is the leading part of a larger one; of a mixture, in the order of its training rows, until one source
    runs out. `windows` is int32 [n, C + 1], of pairs [n, 2, C + 1], `sources` [n] the component of the mixture each is
    of, `tokens` the n C targets that are scored, `bytes` the bytes of text of exactly those targets, `shortfall` a
    sentence where the split has fewer than were asked for. At least one window is taken. Raises `UserError` when the
    split is smaller than that.

    With `answers_only`, `scored` [n, C] is False for the targets of prompts, and wherever there is padding for that;
    `tokens` and `bytes` count the others. Else `scored` is None.
    """

    def __init__(
        self, tokens: Tokens, context: int, max_tokens: int, split: str = "validation", answers_only: bool = False
    ) -> None:
        tokens = tokens.source_of(split)
        sources = held_out(tokens, split, context)
        schedule = MixtureSchedule(tokens.manifest.weights or (1,))
        shape = (2, context) if tokens.manifest.window_sequences == 2 else (context,)
        requested = max(1, max_tokens // math.prod(shape))
        n = schedule.most_rows([source.count for source in sources], requested)
        self.sources: NDArray[np.int64] = schedule.sources(0, n)
        self.windows: NDArray[np.int32] = np.empty((n, *shape[:-1], context + 1), np.int32)
        scored = np.ones((n, *shape), bool)
        for number, source in enumerate(sources):
            if len(rows := np.flatnonzero(self.sources == number)):
                order = Shuffle(source.count, f"{source.key} {context} {split}")
                numbers = np.arange(len(rows)) if source.count == ENDLESS else order(0, len(rows))
                self.windows[rows] = source.take(numbers)
                scored[rows] = source.scored(numbers)
        targets = self.windows[..., 1:]
        padded = bool((targets == PADDING).any())
        self.scored: NDArray[np.bool_] | None = None
        if answers_only or padded:
            self.scored = scored if answers_only else targets != PADDING
        self.tokens: int = targets.size if self.scored is None else int(self.scored.sum())
        self.bytes: int = tokenizer.count_bytes(
            load_tokenizer(tokens.manifest), targets if self.scored is None else targets[self.scored]
        )
        self.shortfall = ""
        whole = not tokens.manifest.train_tokens or split in tokens.manifest.own_splits
        fix = "give more of it" if whole else f"a larger {split}_fraction holds out more"
        if n < requested:
            self.shortfall = (
                f"{requested * math.prod(shape):,} {SPLIT_NAMES[split]} tokens were asked for, but "
                f"{tokens.manifest.source} holds out only {targets.size:,} in whole sequences of context = "
                f"{context:,}, which are all scored; {fix}"
            )
