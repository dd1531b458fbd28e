"""Documents to tokens on all cores: processes encode stretches of a split, and their tokens are joined in order."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError
from lmscale.core.host import usable_cores
from lmscale.lm.data.corpora import Corpus
from lmscale.lm.data.tokenizer import ByteTokenizer, Tokenizer


class Encoded(NamedTuple):
    """The tokens of some documents, one after the other."""

    tokens: NDArray[Any]
    lengths: NDArray[np.int64]
    """[documents]: tokens of each."""
    scored: NDArray[np.bool_] | None
    """[tokens]: False for those of a prompt; None where the corpus has no prompts."""


STRETCH_BYTES = 2 << 20
LEAST_BYTES = 16 << 20
"""Below this a process of its own, which takes seconds to start, does not pay; for bytes, which are copied, never."""


def encode_split(corpus: Corpus, split: str, tokenizer: Tokenizer, workers: int | None = None) -> Iterator[Encoded]:
    """The encoded documents of `split`, in order, in pieces. The pieces do not depend on `workers`.

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
    """One stretch. A text that the tokenizer refuses is named by its id in the source."""
    pieces = [Encoded(np.empty(0, tokenizer.dtype), np.empty(0, np.int64), np.empty(0, bool))]
    for texts in corpus.texts(split, start, stop):
        try:
            if corpus.prompts:
                pieces.append(_with_prompts(tokenizer, texts, corpus.boundaries(split, start, start + len(texts))))
            else:
                pieces.append(Encoded(*tokenizer.encode_documents(texts), None))
        except UserError:
            raise _refusal(corpus, split, tokenizer, start, texts) from None
        start += len(texts)
    scored = [piece.scored for piece in pieces if piece.scored is not None]
    return Encoded(
        np.concatenate([piece.tokens for piece in pieces]),
        np.concatenate([piece.lengths for piece in pieces]),
        np.concatenate(scored) if corpus.prompts else None,
    )


def _with_prompts(tokenizer: Tokenizer, texts: list[bytes], boundaries: NDArray[np.int64]) -> Encoded:
    """Prompts and answers are tokenized apart, so that no token belongs to both; one end closes them all."""
    parts = []
    for text, row in zip(texts, boundaries.tolist()):
        parts += [text[start:stop] for start, stop in itertools.pairwise((0, *row, len(text)))]
    tokens, lengths = tokenizer.encode_documents(parts)
    count = boundaries.shape[1] + 1
    scored = np.repeat(np.arange(len(parts)) % count % 2 == 1, lengths)
    ends = (np.cumsum(lengths) - 1).reshape(-1, count)  # the tokenizer has closed every part
    scored[ends[:, -1]] = True
    inner = ends[:, :-1].ravel()
    return Encoded(
        np.delete(tokens, inner), lengths.reshape(-1, count).sum(axis=1) - count + 1, np.delete(scored, inner)
    )


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
