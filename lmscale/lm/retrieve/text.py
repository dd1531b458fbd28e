"""The text of a datastore and the held-out text that is evaluated with it.

No document retrieves itself or a near-duplicate: the evaluated documents lie in another split, and a `Datastore` leaves
out every document that nearly copies one of them.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lmscale.core.config import IMPORTED, TOKENS, DataConfig, check, mixture, synthetic
from lmscale.lm.data import corpora
from lmscale.lm.data.corpora import Corpus, Progress, Whole
from lmscale.lm.retrieve.duplicates import Duplicates

LEAST_TOKENS, GROWTH = 4096, 4
"""The smallest datastore that is measured where no sizes are named, and the factor to the next."""


class CorpusSplit(NamedTuple):
    """One split of a prepared corpus."""

    corpus: Corpus
    split: str

    def documents(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The documents of the split from number `start` on, in the order of their hash."""
        return itertools.chain.from_iterable(self.corpus.texts(self.split, start, stop))


class RetrievalCorpus(NamedTuple):
    """What is retrieved from, and what is evaluated."""

    datastore: CorpusSplit
    held_out: CorpusSplit


def texts_of(config: DataConfig, source: str = "", progress: Progress | None = None) -> RetrievalCorpus:
    """The training and the validation split of a run's data, or of `source` split likewise.

    Raises `UserError` for a mixture, for a language without end, for ids without text, for a model whose data are not
    here, and as `corpora.prepare` does.
    """
    config = source_of(config, source)
    held_out = config.validation_source
    if held_out is None:
        corpus = corpora.prepare(config, progress=progress)
        return RetrievalCorpus(CorpusSplit(corpus, "train"), CorpusSplit(corpus, "validation"))
    alone = dataclasses.replace(config, validation_source=None)
    train = corpora.prepare(alone, "train", progress=progress)
    other = corpora.prepare(dataclasses.replace(alone, source=held_out), "validation", progress=progress)
    return RetrievalCorpus(CorpusSplit(train, "train"), CorpusSplit(other, "validation"))


def source_of(config: DataConfig, source: str = "") -> DataConfig:
    """The configuration of text whose documents can be retrieved: that of a run, or of `source`.

    Raises `UserError` for what has no documents of text on disk.
    """
    if source:
        config = DataConfig(source=source, validation_fraction=config.validation_fraction)
    name, fix = config.source, "name text of your own"
    check(
        not name.startswith(IMPORTED),
        f"the text that {name.removeprefix(IMPORTED)} was trained on is not here, so nothing can be retrieved from it; "
        f"{fix}, as in retrieval:knn(stdlib) or --source stdlib",
    )
    check(
        not name.startswith(mixture.PREFIX),
        f"{name!r} is a mixture, and a datastore has one source; name one of them, as in "
        f"retrieval:knn({mixture.components(name)[0][1]}) or --source",
    )
    check(not name.startswith(TOKENS), f"{name!r} holds ids, and passages are retrieved as text; {fix}")
    endless = synthetic.is_synthetic(name) and synthetic.parse(name).documents is None
    check(not endless, f"{name!r} is a language without end, so it has no documents; add documents=N, or {fix}")
    return dataclasses.replace(config, unique_tokens=None)


@dataclass(frozen=True)
class IndexedCorpus:
    """The text of an index, and how it was prepared, so that it is found again."""

    config: DataConfig
    whole: Whole
    text: CorpusSplit


def training_text(config: DataConfig, progress: Progress | None = None) -> IndexedCorpus:
    """The training split of a run's data. Raises `UserError` as `texts_of` does."""
    config = source_of(config)
    whole: Whole = None if config.validation_source is None else "train"
    config = dataclasses.replace(config, validation_source=None)
    return IndexedCorpus(config, whole, CorpusSplit(corpora.prepare(config, whole, progress=progress), "train"))


def whole_text(source: str, progress: Progress | None = None) -> IndexedCorpus:
    """All documents of a source as one split. Raises `UserError` as `texts_of` does."""
    config = source_of(DataConfig(source=source))
    return IndexedCorpus(config, "train", CorpusSplit(corpora.prepare(config, "train", progress=progress), "train"))


class Datastore:
    """The documents that may be retrieved while others are evaluated: none of those and no near-duplicate of one."""

    def __init__(self, text: CorpusSplit, evaluated: Iterable[bytes]) -> None:
        self._text, self._duplicates = text, Duplicates(evaluated)
        self.left_out = 0
        """Documents met so far that copy an evaluated one."""

    def documents(self) -> Iterator[tuple[int, bytes]]:
        """Each document with its number in the split."""
        for number, document in enumerate(self._text.documents()):
            if self._duplicates.copied_by(document):
                self.left_out += 1
            else:
                yield number, document

    def remark(self) -> str:
        """What was left out, in a sentence."""
        return (
            f"{self.left_out:,} documents of the datastore nearly copy an evaluated one (half of the five-word "
            f"shingles of the shorter) and are left out"
        )


def sizes_of(asked: Sequence[int]) -> Iterable[int]:
    """The sizes of datastores that are measured, ascending; without any named, powers of `GROWTH` without end."""
    if asked:
        return sorted(set(asked))
    return itertools.chain([0], (LEAST_TOKENS * GROWTH**power for power in itertools.count()))


class Grown(NamedTuple):
    """A datastore at one size."""

    size: int
    """The size that was asked for; at the end of the text what there is."""
    tokens: int
    """What it holds: whole windows or chunks, so that it may be a little less."""


def grow(add: Callable[[int], int | None], sizes: Iterable[int]) -> Iterator[Grown]:
    """Let a datastore grow through all `sizes`, to the end of the text at most; a size that adds nothing is left out.

    `add` puts in at most so many tokens, as few as it likes, and returns how many: 0 where what comes next is larger,
    None where nothing is left.
    """
    tokens, last = 0, -1
    for size in sizes:
        added: int | None = 0
        while tokens < size and (added := add(size - tokens)):
            tokens += added
        if tokens != last:
            yield Grown(size if added is not None else tokens, tokens)
        last = tokens
        if added is None:
            return
