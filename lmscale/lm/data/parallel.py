"""Documents to tokens on all cores: processes encode stretches of a split, and their tokens are joined in order."""

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


def encode_split(corpus: Corpus, split: str, tokenizer: Tokenizer, workers: int | None = None) -> Iterator[Encoded]:
    """Tokens and lengths of the documents of `split`, in order, in pieces. The pieces do not depend on `workers`.

    Raises `UserError` where a document cannot be tokenized.
    """
    if workers is None:
        large = corpus.text_bytes(split) >= LEAST_BYTES and not isinstance(tokenizer, ByteTokenizer)
        workers = len(usable_cores()) if large else 1
    documents = corpus.documents(split)
    stretch = max(1, STRETCH_BYTES * documents // max(1, corpus.text_bytes(split)))
    jobs = [(start, min(start + stretch, documents)) for start in range(0, documents, stretch)]
    workers = min(workers, len(jobs))
    if workers < 2:
        for start, stop in jobs:
            yield _encode(corpus, split, tokenizer, start, stop)
        return
    yield from _in_processes(corpus, split, tokenizer, jobs, workers)


def _in_processes(
    corpus: Corpus, split: str, tokenizer: Tokenizer, jobs: list[tuple[int, int]], workers: int
) -> Iterator[Encoded]:
    # Fresh processes rather than copies of this one: a copy of a process with threads, as JAX has, can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start)
    waiting: deque[Future[Encoded]] = deque()
    try:
        with pool:
            try:
                for job in jobs:
                    waiting.append(pool.submit(_encode, corpus, split, tokenizer, *job))
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


def _encode(corpus: Corpus, split: str, tokenizer: Tokenizer, start: int, stop: int) -> Encoded:
    """Tokens and lengths of one stretch. A text that the tokenizer refuses is named by its id in the source."""
    tokens, lengths = [np.empty(0, tokenizer.dtype)], [np.empty(0, np.int64)]
    for texts in corpus.texts(split, start, stop):
        try:
            ids, text_lengths = tokenizer.encode_documents(texts)
        except UserError:
            raise _refusal(corpus, split, tokenizer, start, texts) from None
        tokens.append(ids)
        lengths.append(text_lengths)
        start += len(texts)
    return np.concatenate(tokens), np.concatenate(lengths)


def _refusal(corpus: Corpus, split: str, tokenizer: Tokenizer, first: int, texts: list[bytes]) -> UserError:
    """The sentence for the first of `texts` that cannot be tokenized."""
    for number, text in enumerate(texts, start=first):
        try:
            tokenizer.encode_documents([text])
        except UserError as error:
            document = f"document {corpus.document(split, number).id!r} of {corpus.source}"
            return UserError(str(error).replace("text 0", document))
    raise AssertionError("a text was refused only together with others")


def _start() -> None:
    """Set up a fresh process: one thread of work, and it ends when its parent ends, however that happens."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
