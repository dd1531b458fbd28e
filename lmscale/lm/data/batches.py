"""Any batch of any run by its number, and the fixed sample that runs are scored on.

Letters: B sequences of a batch, C context, W windows, K sources.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.lm.data import tokenizer
from lmscale.lm.data.manifest import ENDLESS, Tokens
from lmscale.lm.data.order import Shuffle, Turns
from lmscale.lm.data.prepare import encoder
from lmscale.lm.data.usage import Account, repeats
from lmscale.lm.data.windows import SAID, Windows, held_out, training

BLOCK_ROWS = 1024
"""Long enough that an epoch in order costs little, short enough for one batch out of it."""


class _Visits:
    """The endless row of one source's epochs: window numbers by place."""

    def __init__(self, windows: Windows, context: int, seed: int) -> None:
        self.windows = windows
        self._key = f"{windows.key} {context} {seed}"
        self._block: tuple[tuple[int, int], NDArray[np.int64]] = ((-1, -1), np.empty(0, np.int64))

    def __call__(self, start: int, stop: int) -> NDArray[np.int64]:
        """Window numbers of visits `start` ... `stop` - 1."""
        if self.windows.count == ENDLESS:  # every window is fresh, and as good as any other
            return np.arange(start, stop, dtype=np.int64)
        parts = list(self._pieces(start, stop))
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])

    def _pieces(self, start: int, stop: int) -> Iterator[NDArray[np.int64]]:
        while start < stop:
            epoch, row = divmod(start, self.windows.count)
            block, inside = divmod(row, BLOCK_ROWS)
            numbers = self._visits_of_block(epoch, block)[inside : inside + stop - start]
            yield numbers
            start += len(numbers)

    def _visits_of_block(self, epoch: int, block: int) -> NDArray[np.int64]:
        """A stretch of an epoch's order; the last one is kept, so that most batches only copy."""
        which, numbers = self._block
        if which != (epoch, block):
            end = min(self.windows.count, (block + 1) * BLOCK_ROWS)
            numbers = Shuffle(self.windows.count, f"{self._key} {epoch}")(block * BLOCK_ROWS, end)
            self._block = ((epoch, block), numbers)
        return numbers


class Batches:
    """The training order: `batches[t]` is global batch t, int32 [B, C + 1], for any t >= 0.

    A pure function of the tokens, the seed, t, B and C. Of a mixture each row has one source, and after any number of
    rows each source has given its share of them to within one row. Rows of a language alone are arrays on the device.
    Raises `UserError` when a source is smaller than one window.
    """

    def __init__(self, tokens: Tokens, context: int, batch_sequences: int, seed: int) -> None:
        self._tokens = tokens
        self._visits = [_Visits(windows, context, seed) for windows in training(tokens, context, seed)]
        self._turns = Turns(tokens.manifest.weights or (1,))
        self.context = context
        self.batch_sequences = batch_sequences
        self.windows = sum(visits.windows.count for visits in self._visits)
        """W, the windows of one epoch of all sources."""
        self.unique_tokens = self.windows * context
        """Tokens that one epoch scores."""

    def __getitem__(self, t: int) -> Any:
        return self.rows(t, 0, self.batch_sequences)

    def rows(self, t: int, start: int, stop: int) -> Any:
        """Rows `start` ... `stop` - 1 of batch t, int32 [stop - start, C + 1]: one host's share."""
        if t < 0 or not 0 <= start <= stop <= self.batch_sequences:
            raise IndexError(f"batch {t} has no rows {start}:{stop}; there are {self.batch_sequences} and t >= 0")
        first, last = t * self.batch_sequences + start, t * self.batch_sequences + stop
        if len(self._visits) == 1:
            return self._visits[0].windows.take(self._visits[0](first, last))
        rows = np.empty((stop - start, self.context + 1), np.int32)
        turns, begin, end = self._turns(first, last), self._turns.given(first), self._turns.given(last)
        for source, visits in enumerate(self._visits):
            if end[source] > begin[source]:
                rows[turns == source] = visits.windows.take(visits(int(begin[source]), int(end[source])))
        return rows

    def epochs(self, tokens: int) -> float:
        """Passes over the unique tokens that training on `tokens` makes; 0 where the text has no end."""
        return 0.0 if self._tokens.manifest.endless and self.windows >= ENDLESS else tokens / self.unique_tokens

    def account(self, tokens: int) -> Account:
        """What training on `tokens` of these batches has seen: every token counted once, as fresh or as repeated."""
        rows = self._turns.given(tokens // self.context)
        by_source, unique, epochs, spans = {}, 0, {}, []
        for part, visits, given in zip(self._tokens.parts or (self._tokens,), self._visits, rows.tolist()):
            name, held = part.manifest.source, visits.windows.count
            by_source[name] = given * self.context
            unique += min(given, held) * self.context
            epochs[name] = 0.0 if held == ENDLESS else given / held
            if held != ENDLESS:
                full, rest = divmod(given, held)
                visited = np.full(held, full, np.int64)
                visited[visits(full * held, full * held + rest)] += 1
                starts = None if part.manifest.endless else part.train_starts
                spans.append(repeats(visited, starts, self.context))
        every = np.concatenate(spans) if spans else None
        return Account(
            tokens_by_source=by_source,
            unique_tokens=unique,
            epochs=self.epochs(tokens),
            epochs_by_source=epochs,
            repeats_min=None if every is None else float(every.min()),
            repeats_mean=None if every is None else float(every.mean()),
            repeats_max=None if every is None else float(every.max()),
        )


class ValidationSet:
    """A fixed sample of a held-out split, the same for every run on these tokens with this context.

    Its windows are drawn from the whole split in a fixed random order, so that they come from many documents and a
    smaller set is the leading part of a larger one; of a mixture, in the order of its training rows, until one source
    has no more. `windows` is int32 [n, C + 1], `sources` [n] the part of the mixture each is of, `tokens` the n C
    targets that are scored, `bytes` the bytes of text of exactly those targets, `shortfall` a sentence where the split
    has fewer than were asked for. At least one window is taken. Raises `UserError` when the split is smaller than that.
    """

    def __init__(self, tokens: Tokens, context: int, max_tokens: int, split: str = "validation") -> None:
        parts = held_out(tokens, split, context)
        turns = Turns(tokens.manifest.weights or (1,))
        n = wanted = max(1, max_tokens // context)
        if (turns.given(n) > [part.count for part in parts]).any():
            low, high = 0, n  # the most rows for which every source has enough
            while high - low > 1:
                middle = (low + high) // 2
                enough = (turns.given(middle) <= [part.count for part in parts]).all()
                low, high = (middle, high) if enough else (low, middle)
            n = low
        self.sources: NDArray[np.int64] = turns(0, n)
        self.windows: NDArray[np.int32] = np.empty((n, context + 1), np.int32)
        for number, part in enumerate(parts):
            if len(mine := np.flatnonzero(self.sources == number)):
                order = Shuffle(part.count, f"{part.key} {context} {split}")
                numbers = np.arange(len(mine)) if part.count == ENDLESS else order(0, len(mine))
                self.windows[mine] = part.take(numbers)
        self.tokens: int = n * context
        self.bytes: int = tokenizer.count_bytes(encoder(tokens.manifest), self.windows[:, 1:])
        self.shortfall = ""
        if n < wanted:
            self.shortfall = (
                f"{wanted * context:,} {SAID[split]} tokens were asked for, but {tokens.manifest.source} holds out "
                f"only {n * context:,} in whole sequences of context = {context:,}, which are all scored; a larger "
                f"{split}_fraction holds out more"
            )
