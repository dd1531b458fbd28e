"""Documents to tokens on all cores: processes take stretches of a split, and what they give is joined in order."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError
from lmscale.core.host import usable_cores
from lmscale.lm.data.corpora import Corpus
from lmscale.lm.data.tokenizer import ByteTokenizer, Tokenizer

Encoded = tuple[NDArray[Any], NDArray[np.int64]]

STRETCH_BYTES = 2 << 20
LEAST_BYTES = 16 << 20
"""Below this a process of its own, which takes seconds to start, does not pay; for bytes, which are copied, never."""


def encoded(corpus: Corpus, split: str, encoder: Tokenizer, workers: int | None = None) -> Iterator[Encoded]:
    """Tokens and lengths of the documents of `split`, in order, in pieces. The pieces do not depend on `workers`.

    Raises `UserError` where a document cannot be tokenized.
    """
    if workers is None:
        large = corpus.text_bytes(split) >= LEAST_BYTES and not isinstance(encoder, ByteTokenizer)
        workers = len(usable_cores()) if large else 1
    documents = corpus.documents(split)
    stretch = max(1, STRETCH_BYTES * documents // max(1, corpus.text_bytes(split)))
    jobs = [(start, min(start + stretch, documents)) for start in range(0, documents, stretch)]
    workers = min(workers, len(jobs))
    if workers < 2:
        for start, stop in jobs:
            yield _encode(corpus, split, encoder, start, stop)
        return
    yield from _in_processes(corpus, split, encoder, jobs, workers)


def _in_processes(
    corpus: Corpus, split: str, encoder: Tokenizer, jobs: list[tuple[int, int]], workers: int
) -> Iterator[Encoded]:
    # Fresh processes rather than copies of this one: a copy of a process with threads, as JAX has, can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start)
    waiting: deque[Future[Encoded]] = deque()
    todo = iter(jobs)
    try:
        with pool:
            try:
                for job in todo:
                    waiting.append(pool.submit(_encode, corpus, split, encoder, *job))
                    if len(waiting) > 2 * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool:
        raise UserError(
            "a process that tokenizes ended at once; in a script of your own call lmscale below "
            "`if __name__ == '__main__':`, and see that memory is left"
        ) from None


def _encode(corpus: Corpus, split: str, encoder: Tokenizer, start: int, stop: int) -> Encoded:
    """One stretch. A text that is refused is named by its id in the source."""
    tokens, lengths = [np.empty(0, encoder.dtype)], [np.empty(0, np.int64)]
    for texts in corpus.texts(split, start, stop):
        try:
            part = encoder.encode_documents(texts)
        except UserError:
            raise _named(corpus, split, encoder, start, texts) from None
        tokens.append(part[0])
        lengths.append(part[1])
        start += len(texts)
    return np.concatenate(tokens), np.concatenate(lengths)


def _named(corpus: Corpus, split: str, encoder: Tokenizer, first: int, texts: list[bytes]) -> UserError:
    """The sentence for the first of `texts` that cannot be tokenized."""
    for number, text in enumerate(texts, start=first):
        try:
            encoder.encode_documents([text])
        except UserError as error:
            said = str(error).replace("text 0", f"document {corpus.document(split, number).id!r} of {corpus.source}")
            return UserError(said)
    raise AssertionError("a text was refused only in company")


def _start() -> None:
    """What a fresh process begins with: one thread of work, and an end when the parent ends, however it does."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
