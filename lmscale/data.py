"""Tokens once on disk, then any batch of any run by its number.

A split is one long row of tokens, document after document in the order of their hash, each closed by the tokenizer's
end of document. It is cut into windows of context + 1 tokens that start every `context` tokens: each token is a target
once, but for the very first. An epoch visits every window once, in an order that depends on the data, the seed and the
epoch alone; batch t is rows t B ... t B + B - 1 of the endless row of epochs. So a run resumes by its step, and hosts
that each ask for their rows see together what one host would.

On disk, `files.cache_dir()/tokens/<fingerprint>/`: `train.bin` and `validation.bin` (the tokenizer's dtype, little
end first), `<split>_starts.npy` (int64 [documents + 1]: where each document begins, then the number of tokens) and
`manifest.json`.

Letters: B sequences of a batch, C context, W windows.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lmscale import corpora, files, tokenizer
from lmscale.config import DataConfig, RunConfig
from lmscale.corpora import SPLITS, Corpus, Progress, Skipped, locked, whole_folder
from lmscale.errors import UserError

FORMAT = 1
"""Counts up when what lies on disk or its meaning changes, so that no older cache is believed."""
MIX_ROUNDS = 6
BLOCK_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What was prepared: counts of both splits, and where they come from."""

    source: str
    """The source in words, with its version."""
    fingerprint: str
    """Of the tokens: the corpus and the tokenizer."""
    corpus_fingerprint: str
    tokenizer: str
    vocab: int
    dtype: str
    train_tokens: int
    """Ends of documents counted."""
    validation_tokens: int
    train_documents: int
    validation_documents: int
    train_bytes: int
    """Bytes of text as UTF-8; ends of documents count none."""
    validation_bytes: int
    duplicates_removed: int
    empty_removed: int
    skipped: tuple[Skipped, ...]
    versions: dict[str, str]

    @property
    def folder(self) -> Path:
        """Where the tokens are cached."""
        return files.cache_dir() / "tokens" / self.fingerprint

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text per training token, ends of documents counted as tokens."""
        return self.train_bytes / self.train_tokens

    def unique_tokens(self, context: int) -> int:
        """Training tokens that one epoch scores: whole windows only."""
        return _windows(self.train_tokens, context) * context

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Tokens:
    """Prepared tokens, mapped from disk: [tokens] of the tokenizer's dtype and [documents + 1] starts, per split."""

    manifest: Manifest
    train: NDArray[Any]
    validation: NDArray[Any]
    train_starts: NDArray[np.int64]
    validation_starts: NDArray[np.int64]


def find(config: DataConfig) -> Manifest | None:
    """The manifest, if the tokens of `config` are prepared and the source has not changed since; reads no text."""
    corpus = corpora.find(config)
    return None if corpus is None else _find(corpus, tokenizer.load(config.tokenizer))


def prepare(config: DataConfig, *, progress: Progress | None = None, allow_download: bool = False) -> Tokens:
    """Bring the tokens of `config` onto disk, unless they are there, and map them.

    Safe under several processes at once. Raises `UserError` as `corpora.prepare` does.
    """
    manifest = find(config)
    if manifest is None:
        report = progress or (lambda what, share: None)
        corpus = corpora.prepare(config, progress=report, allow_download=allow_download)
        manifest = _tokenize(corpus, tokenizer.load(config.tokenizer), report)
    return _open(manifest)


def _fingerprint(corpus: Corpus, encoder: tokenizer.Tokenizer) -> str:
    identity = json.dumps([FORMAT, corpus.fingerprint, encoder.name, encoder.fingerprint])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _find(corpus: Corpus, encoder: tokenizer.Tokenizer) -> Manifest | None:
    """The manifest of whole tokens of `corpus`: it was written, and every file is as long as it says."""
    folder = files.cache_dir() / "tokens" / _fingerprint(corpus, encoder)
    try:
        counts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        manifest = _manifest(corpus, encoder, counts["tokens"])
        for split in SPLITS:
            if (folder / f"{split}.bin").stat().st_size != counts["tokens"][split] * encoder.dtype.itemsize:
                return None
            if (folder / f"{split}_starts.npy").stat().st_size != counts["starts_bytes"][split]:
                return None
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: made again
        return None
    return manifest


def _manifest(corpus: Corpus, encoder: tokenizer.Tokenizer, tokens: dict[str, int]) -> Manifest:
    return Manifest(
        source=corpus.source,
        fingerprint=_fingerprint(corpus, encoder),
        corpus_fingerprint=corpus.fingerprint,
        tokenizer=encoder.name,
        vocab=encoder.vocab,
        dtype=encoder.dtype.name,
        train_tokens=tokens["train"],
        validation_tokens=tokens["validation"],
        train_documents=corpus.train_documents,
        validation_documents=corpus.validation_documents,
        train_bytes=corpus.train_bytes,
        validation_bytes=corpus.validation_bytes,
        duplicates_removed=corpus.duplicates_removed,
        empty_removed=corpus.empty_removed,
        skipped=corpus.skipped,
        versions=corpus.versions,
    )


def _tokenize(corpus: Corpus, encoder: tokenizer.Tokenizer, report: Progress) -> Manifest:
    fingerprint = _fingerprint(corpus, encoder)
    folder = files.cache_dir() / "tokens" / fingerprint
    with locked(folder.with_suffix(".lock"), report):
        if manifest := _find(corpus, encoder):
            return manifest
        shutil.rmtree(folder, ignore_errors=True)
        with whole_folder(folder, fingerprint) as partial:
            tokens, starts_bytes = {}, {}
            for split in SPLITS:
                with files.whole(partial / f"{split}.bin", "wb") as file:
                    starts = _write_split(corpus, split, encoder, file, report)
                with files.whole(partial / f"{split}_starts.npy", "wb") as file:
                    np.save(file, starts)
                tokens[split] = int(starts[-1])
                starts_bytes[split] = (partial / f"{split}_starts.npy").stat().st_size
            manifest = _manifest(corpus, encoder, tokens)
            described = {"tokens": tokens, "starts_bytes": starts_bytes, "manifest": manifest.to_json()}
            files.write_json(partial / "manifest.json", described)
    return manifest


def _write_split(
    corpus: Corpus, split: str, encoder: tokenizer.Tokenizer, file: IO[bytes], report: Progress
) -> NDArray[np.int64]:
    """Append the tokens of every document of `split` to `file`; the starts of documents [documents + 1]."""
    total = corpus.train_bytes if split == "train" else corpus.validation_bytes
    lengths, done = [np.zeros(1, np.int64)], 0
    for texts in corpus.texts(split):
        tokens, counts = encoder.encode_documents(texts)
        file.write(tokens.astype(_stored(encoder.dtype), copy=False).tobytes())
        lengths.append(counts)
        done += sum(map(len, texts))
        report(f"tokenizing the {split} documents of {corpus.source}", done / total)
    return np.cumsum(np.concatenate(lengths))


def _stored(dtype: np.typing.DTypeLike) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _open(manifest: Manifest) -> Tokens:
    folder = manifest.folder
    bins = [np.memmap(folder / f"{split}.bin", _stored(manifest.dtype), "r") for split in SPLITS]
    starts = [np.load(folder / f"{split}_starts.npy", mmap_mode="r") for split in SPLITS]
    # A plain array over the same mapping: indexing a memmap costs several times as much.
    return Tokens(manifest, *(np.asarray(part) for part in (*bins, *starts)))


def _windows(tokens: int, context: int) -> int:
    """W: windows of context + 1 tokens that start every `context` tokens and lie wholly inside."""
    return max(0, (tokens - 1) // context)


def _cut(tokens: NDArray[Any], context: int, split: str) -> NDArray[Any]:
    """[W, C + 1] windows as a view. Raises `UserError` when there is none."""
    if not _windows(len(tokens), context):
        raise UserError(
            f"the {split} split has {len(tokens):,} tokens, too few for one sequence of context = {context:,} and its "
            f"next token; give more text or take a context of at most {max(1, len(tokens) - 1):,}"
        )
    return np.lib.stride_tricks.sliding_window_view(tokens, context + 1)[::context]


class Shuffle:
    """A permutation of 0 ... n - 1, a pure function of `key`, that is computed rather than stored.

    Numbers of as few bits as hold n - 1 are mixed by rounds of an odd multiplication, an addition and a folding of the
    high half into the low one, each of which can be undone; a result of n or more is mixed again until it is below n,
    less than twice on average (cycle walking, Black and Rogaway 2002).
    """

    def __init__(self, n: int, key: str) -> None:
        self.n = n
        bits = max(1, (n - 1).bit_length())
        self._mask = np.uint64((1 << bits) - 1)
        self._fold = np.uint64((bits + 1) // 2)
        numbers = np.frombuffer(hashlib.shake_256(key.encode()).digest(16 * MIX_ROUNDS), "<u8").astype(np.uint64)
        self._rounds = [(numbers[i] | np.uint64(1), numbers[i + 1]) for i in range(0, 2 * MIX_ROUNDS, 2)]

    def _mix(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        for odd, offset in self._rounds:
            x = (x * odd + offset) & self._mask
            x ^= x >> self._fold
        return x

    def __call__(self, start: int, stop: int) -> NDArray[np.int64]:
        """Elements `start` ... `stop` - 1 of the permuted numbers."""
        x = self._mix(np.arange(start, stop, dtype=np.uint64))
        while len(outside := np.flatnonzero(x >= self.n)):
            x[outside] = self._mix(x[outside])
        return x.astype(np.int64)


class Batches:
    """The training order: `batches[t]` is global batch t, int32 [B, C + 1], for any t >= 0.

    A pure function of the tokens, the seed, t, B and C. Raises `UserError` when the split is smaller than one window.
    """

    def __init__(self, tokens: Tokens, context: int, batch_sequences: int, seed: int) -> None:
        self._cut = _cut(tokens.train, context, "training")
        self.context = context
        self.batch_sequences = batch_sequences
        self.windows = len(self._cut)
        """W, the windows of one epoch."""
        self.unique_tokens = self.windows * context
        """Tokens that one epoch scores."""
        self._key = f"{tokens.manifest.fingerprint} {context} {seed}"
        self._block: tuple[tuple[int, int], NDArray[np.int64]] = ((-1, -1), np.empty(0, np.int64))

    def __getitem__(self, t: int) -> NDArray[np.int32]:
        return self.rows(t, 0, self.batch_sequences)

    def rows(self, t: int, start: int, stop: int) -> NDArray[np.int32]:
        """Rows `start` ... `stop` - 1 of batch t, int32 [stop - start, C + 1]: one host's share."""
        if t < 0 or not 0 <= start <= stop <= self.batch_sequences:
            raise IndexError(f"batch {t} has no rows {start}:{stop}; there are {self.batch_sequences} and t >= 0")
        first = t * self.batch_sequences
        parts = list(self._visits(first + start, first + stop))
        numbers = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])
        return self._cut[numbers].astype(np.int32)

    def epochs(self, tokens: int) -> float:
        """Passes over the unique tokens that training on `tokens` makes."""
        return tokens / self.unique_tokens

    def _visits(self, start: int, stop: int) -> Iterator[NDArray[np.int64]]:
        """Window numbers of rows `start` ... `stop` - 1 of the endless row of epochs, in pieces."""
        while start < stop:
            epoch, row = divmod(start, self.windows)
            block, inside = divmod(row, BLOCK_ROWS)
            numbers = self._visits_of_block(epoch, block)[inside : inside + stop - start]
            yield numbers
            start += len(numbers)

    def _visits_of_block(self, epoch: int, block: int) -> NDArray[np.int64]:
        """A stretch of an epoch's order; the last one is kept, so that most batches only copy."""
        which, numbers = self._block
        if which != (epoch, block):
            end = min(self.windows, (block + 1) * BLOCK_ROWS)
            numbers = Shuffle(self.windows, f"{self._key} {epoch}")(block * BLOCK_ROWS, end)
            self._block = ((epoch, block), numbers)
        return numbers


class ValidationSet:
    """A fixed sample of the validation split, the same for every run on these tokens with this context.

    Its windows are drawn from the whole split in a fixed random order, so that they come from many documents and a
    smaller set is the leading part of a larger one. `windows` is int32 [n, C + 1], `tokens` the n C targets that are
    scored, `bytes` the bytes of text of exactly those targets. At least one window is taken. Raises `UserError` when
    the split is smaller than that.
    """

    def __init__(self, tokens: Tokens, context: int, max_tokens: int) -> None:
        cut = _cut(tokens.validation, context, "validation")
        n = min(len(cut), max(1, max_tokens // context))
        order = Shuffle(len(cut), f"{tokens.manifest.fingerprint} {context} validation")
        self.windows: NDArray[np.int32] = cut[order(0, n)].astype(np.int32)
        self.tokens: int = n * context
        self.bytes: int = tokenizer.count_bytes(tokenizer.load(tokens.manifest.tokenizer), self.windows[:, 1:])


def check_enough(prepared: Manifest | Tokens, config: RunConfig) -> None:
    """Raise `UserError` unless `prepared` carries the run: vocabulary, one window per split, and few enough epochs."""
    manifest = prepared.manifest if isinstance(prepared, Tokens) else prepared
    context, limit = config.model.context, config.data.max_epochs
    if manifest.vocab != config.model.vocab:
        raise UserError(
            f"model.vocab = {config.model.vocab:,}, but the tokenizer {manifest.tokenizer!r} has {manifest.vocab:,} "
            f"ids; set model.vocab = {manifest.vocab}"
        )
    for split, tokens in (("training", manifest.train_tokens), ("validation", manifest.validation_tokens)):
        if not _windows(tokens, context):
            raise UserError(
                f"the {split} split of {manifest.source} has {tokens:,} tokens, too few for one sequence of context = "
                f"{context:,} and its next token; give more text or take a context of at most {max(1, tokens - 1):,}"
            )
    unique = manifest.unique_tokens(context)
    if config.tokens > limit * unique:
        largest = math.floor(limit * unique) // config.batch_tokens * config.batch_tokens
        fix = f"the largest D that fits is {largest:,} tokens" if largest else "not even one global batch fits"
        raise UserError(
            f"D = {config.tokens:,} tokens would be {config.tokens / unique:.3g} epochs of the {unique:,} unique "
            f"tokens of {manifest.source}, more than data.max_epochs = {limit:g}; {fix}: give more text, train on "
            f"less or raise max_epochs"
        )
