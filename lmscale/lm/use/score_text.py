"""Any text under a trained run: the surprisal of every token, and its sums in nats, bits per token and bits per byte.

    run = lmscale.load("runs/mine/0123456789ab")
    scored = score_text(run, ["def f(x):\\n    return x\\n"])
    print(scored.bits_per_byte, scored.nats_T)

A document is read as in training: after the end of a document, from which its first token is predicted, and up to its
own end, which is predicted too and, as in the validation loss, counts as a token of zero bytes. `end=False` leaves
that last prediction out, for a text that goes on. Documents do not see each other; `text_windows` says how one that is
longer than the context is read.

Letters: D documents, T scored tokens of all documents one after the other, K alternatives, as in `transformer` B, S, V.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from lmscale.core.config import MeshConfig, ModelConfig, check
from lmscale.core.errors import UserError
from lmscale.core.text import utf8
from lmscale.lm.data.tokenizer import Tokenizer, bits_per_byte
from lmscale.lm.devices.sharding import batch_devices, batch_sharding, make_mesh, replicated
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.transformer import logits, token_losses
from lmscale.lm.use.load import TrainedRun
from lmscale.lm.use.text_windows import TOKENS_PER_CALL, Windows, batches, text_windows

LOGIT_BYTES = 2**29
"""Logits that are ranked together take at most so much."""
Progress = Callable[[float], None]
"""Called with the share of the windows that are read."""


@dataclass(frozen=True)
class ScoredText:
    """A text and the surprisal of each of its tokens."""

    text: bytes
    """All documents, one after the other, in UTF-8."""
    tokens_T: NDArray[np.int32]
    """The tokens that are predicted."""
    bytes_T: NDArray[np.int64]
    """Bytes of text that each stands for, 0 for the end of a document."""
    nats_T: NDArray[np.float32]
    """Their surprisal, -ln p given the tokens before, in nats."""
    context_T: NDArray[np.int32]
    """How many tokens each was predicted from, the end of the document before among them."""
    tokens_D: NDArray[np.int64]
    """Scored tokens of every document."""
    line_D: NDArray[np.int64]
    """The line in which each document begins, counted from 1."""

    @property
    def tokens(self) -> int:
        """Tokens predicted, ends of documents among them."""
        return len(self.tokens_T)

    @property
    def bytes(self) -> int:
        """Bytes of text that the tokens stand for: all of the text."""
        return len(self.text)

    @cached_property
    def nats(self) -> float:
        """Surprisal of the whole text."""
        return float(self.nats_T.sum(dtype=np.float64))

    @property
    def loss_nats(self) -> float:
        """Mean over tokens, natural log."""
        return self.nats / self.tokens

    @property
    def bits_per_token(self) -> float:
        """`loss_nats` in bits."""
        return self.loss_nats / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """All nats, document ends included, over ln 2 and the bytes of text."""
        return bits_per_byte(self.nats, self.bytes)

    @cached_property
    def loss_by_position_nats(self) -> tuple[float, ...]:
        """Mean nats of the tokens predicted from 1, 2 to 3, 4 to 7, ... tokens: element i from 2^i to 2^(i+1) - 1."""
        octave_T = np.frexp(self.context_T)[1] - 1
        nats, count = np.bincount(octave_T, self.nats_T), np.bincount(octave_T)
        return tuple((nats / count).tolist())

    def to_json(self) -> dict[str, Any]:
        """The sums, without the tokens."""
        return {
            "loss_nats": self.loss_nats,
            "bits_per_token": self.bits_per_token,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "documents": len(self.tokens_D),
            "loss_by_position_nats": list(self.loss_by_position_nats),
        }


@dataclass(frozen=True)
class Alternatives:
    """What else a model expected in place of each of a text's first tokens."""

    rank_T: NDArray[np.int32]
    """1 for the likeliest token: 1 + the tokens that are likelier."""
    tokens_TK: NDArray[np.int32]
    """The likeliest tokens, in order."""
    nats_TK: NDArray[np.float32]
    """-ln p of each."""


def score_text(
    run: TrainedRun,
    documents: Sequence[str | bytes],
    mesh: Mesh | None = None,
    *,
    end: bool = True,
    lines: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> ScoredText:
    """Score `documents`, texts or their UTF-8, each by itself.

    `mesh` is where the parameters lie; `lines` are the lines of a file in which the documents begin, increasing: by
    default each begins a line of its own.

    Raises `UserError` for documents without text, for one that the tokenizer cannot encode, and for a model whose
    losses are no numbers.
    """
    config, params, tokenizer = run
    texts = [_utf8(text, number) for number, text in enumerate(documents, 1)]
    check(any(texts), "there is no text to score: it is empty; give at least one character")
    stream, tokens_D = _stream(tokenizer, texts, end)
    tokens_T = _scored(stream, tokens_D)
    windows = text_windows(tokens_D, config.model.context)
    nats_T, context_T = _read(params, config.model, stream, windows, mesh or make_mesh(MeshConfig()), progress)
    check(
        bool(np.isfinite(nats_T).all()),
        "the model's losses on this text are no numbers: its parameters have diverged; take an earlier checkpoint with "
        "--step, or another run",
    )
    bytes_T, line_D = tokenizer.byte_lengths[tokens_T], np.array(lines or _lines(texts), np.int64)
    return ScoredText(b"".join(texts), tokens_T, bytes_T, nats_T, context_T, tokens_D, line_D)


def alternatives(
    run: TrainedRun, scored: ScoredText, tokens: int, mesh: Mesh | None = None, count: int = 5
) -> Alternatives:
    """The rank of each of the first `tokens` scored tokens, and the `count` likeliest in its place.

    Ids that the tokenizer has no text for are left out of both.
    """
    config, mesh = run.config.model, mesh or make_mesh(MeshConfig())
    most, vocab = min(tokens, scored.tokens), min(run.tokenizer.vocab, config.vocab)
    stream = _with_starts(run.tokenizer, scored)
    windows = text_windows(scored.tokens_D, config.context)
    windows = Windows(*(array[windows.target_W + windows.counted_from_W < most] for array in windows))
    covered = int((windows.target_W + windows.length_W).max())
    rank_T = np.zeros(covered, np.int32)
    tokens_TK = np.zeros((covered, min(count, vocab)), np.int32)
    nats_TK = np.zeros(tokens_TK.shape, np.float32)
    rank = _compiled_ranks(config, vocab, tokens_TK.shape[1], mesh)
    rows = LOGIT_BYTES // (4 * config.vocab * config.context)
    with jax.set_mesh(mesh):
        for batch in batches(stream, windows, config.context, batch_devices(mesh), rows):
            arrays = rank(run.params, jax.device_put(batch.tokens_BS, batch_sharding(mesh)))
            for whole, array in zip((rank_T, tokens_TK, nats_TK), arrays):
                whole[batch.target_N] = np.asarray(array)[batch.counted_BT]
    return Alternatives(rank_T[:most], tokens_TK[:most], nats_TK[:most])


def _utf8(text: str | bytes, number: int) -> bytes:
    """`text` as UTF-8. Raises `UserError` for what is not."""
    if isinstance(text, str):
        return utf8(text, f"text {number}")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"text {number} is not UTF-8 at byte {error.start:,}; convert it to UTF-8") from None
    return text


def _lines(texts: Sequence[bytes]) -> list[int]:
    """The line in which each text begins where a line ends between two."""
    return list(itertools.accumulate((text.count(b"\n") + 1 for text in texts[:-1]), initial=1))


def _stream(tokenizer: Tokenizer, texts: Sequence[bytes], end: bool) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The streams of all documents one after the other, and how many tokens of each are scored."""
    encoded, length_D = tokenizer.encode_documents(texts)
    tokens_D = length_D if end else length_D - 1
    check(bool((tokens_D > 0).all()), "a document is empty, so there is nothing of it to score; leave it out")
    starts = np.cumsum(length_D) - length_D
    if not end:
        encoded = np.delete(encoded, starts + length_D - 1)
        starts = np.cumsum(tokens_D) - tokens_D
    return np.insert(encoded.astype(np.int32), starts, tokenizer.end_of_document), tokens_D


def _with_starts(tokenizer: Tokenizer, scored: ScoredText) -> NDArray[np.int32]:
    """The streams that `scored` was read from."""
    starts = np.cumsum(scored.tokens_D) - scored.tokens_D
    return np.insert(scored.tokens_T, starts, tokenizer.end_of_document)


def _scored(stream: NDArray[np.int32], tokens_D: NDArray[np.int64]) -> NDArray[np.int32]:
    """The streams without their first tokens, which nothing predicts."""
    return np.delete(stream, np.cumsum(tokens_D + 1) - tokens_D - 1)


def _read(
    params: Params,
    config: ModelConfig,
    stream: NDArray[np.int32],
    windows: Windows,
    mesh: Mesh,
    progress: Progress | None,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Surprisal and context of every scored token."""
    total = int((windows.length_W - windows.counted_from_W).sum())
    nats_T, context_T = np.zeros(total, np.float32), np.zeros(total, np.int32)
    losses, done = _compiled_losses(config, mesh), 0
    with jax.set_mesh(mesh):
        for batch in batches(stream, windows, config.context, batch_devices(mesh), TOKENS_PER_CALL):
            nats_BT = np.asarray(losses(params, jax.device_put(batch.tokens_BS, batch_sharding(mesh))))
            nats_T[batch.target_N] = nats_BT[batch.counted_BT]
            context_T[batch.target_N] = np.nonzero(batch.counted_BT)[1] + 1
            done += len(batch.target_N)
            if progress is not None:
                progress(done / total)
    return nats_T, context_T


@functools.lru_cache(maxsize=8)
def _compiled_losses(config: ModelConfig, mesh: Mesh) -> Any:
    def losses(params: Params, tokens_BS: jax.Array) -> jax.Array:
        return token_losses(params, tokens_BS, config)[0]

    return jax.jit(losses, out_shardings=replicated(mesh))


@functools.lru_cache(maxsize=8)
def _compiled_ranks(config: ModelConfig, vocab: int, count: int, mesh: Mesh) -> Any:
    return jax.jit(partial(_ranks, config=config, vocab=vocab, count=count), out_shardings=replicated(mesh))


def _ranks(
    params: Params, tokens_BS: jax.Array, config: ModelConfig, vocab: int, count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rank of each token [B, S - 1]; the likeliest tokens in its place and their -ln p, both [B, S - 1, count]."""
    inputs_BT, targets_BT = jnp.maximum(tokens_BS[:, :-1], 0), jnp.maximum(tokens_BS[:, 1:], 0)
    logprobs_BTV = jax.nn.log_softmax(logits(params, inputs_BT, config), axis=-1)[:, :, :vocab]
    own_BT1 = jnp.take_along_axis(logprobs_BTV, targets_BT[:, :, None], axis=-1)
    likeliest_BTK, tokens_BTK = jax.lax.top_k(logprobs_BTV, count)
    return 1 + (logprobs_BTV > own_BT1).sum(axis=-1), tokens_BTK, -likeliest_BTK
