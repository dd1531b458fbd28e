"""Text to token ids and back, with the bytes of text that each token stands for.

Bits per byte is the loss that tokenizers share: the nats of all scored tokens, the end-of-document tokens among them,
over ln 2 and over the bytes of text of those very tokens. An end-of-document token counts zero bytes, so a model pays
for saying where a text stops and gets no bytes for it.

Letters: V vocabulary, T tokens.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmscale.errors import UserError, nearest


class Tokenizer(Protocol):
    """What data preparation, scoring and sampling ask of a tokenizer."""

    @property
    def name(self) -> str:
        """As `DataConfig.tokenizer` says it."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same text would give other tokens."""

    @property
    def vocab(self) -> int:
        """V: ids are 0 ... V - 1, the end of a document among them."""

    @property
    def end_of_document(self) -> int:
        """The id that follows the last token of every document."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned type that holds an id: how tokens lie on disk."""

    @property
    def byte_lengths(self) -> NDArray[np.int64]:
        """[V]: bytes of text that each id stands for, 0 for the end of a document."""

    def encode(self, text: str) -> NDArray[Any]:
        """[T] ids of `text`, no end of document."""

    def decode(self, tokens: Any) -> str:
        """The text of any ids, in particular sampled ones; what is not UTF-8 becomes U+FFFD, document ends vanish."""

    def encode_documents(self, texts: Sequence[bytes]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Ids of UTF-8 `texts` one after the other, each closed by its end of document, and each one's length."""

    def decode_documents(self, tokens: Any) -> list[bytes]:
        """The inverse of `encode_documents`, exactly."""


class ByteTokenizer:
    """One token per byte of UTF-8, V = 256. The end of a document is 0xFF, a byte that UTF-8 never uses."""

    name = "bytes"
    vocab = 256
    end_of_document = 0xFF
    dtype: np.dtype[Any] = np.dtype(np.uint8)

    def __init__(self) -> None:
        self.byte_lengths = np.ones(self.vocab, np.int64)
        self.byte_lengths[self.end_of_document] = 0
        self.fingerprint = hashlib.sha256(b"bytes of UTF-8, document end 0xFF").hexdigest()[:16]

    def encode(self, text: str) -> NDArray[np.uint8]:
        """[T] bytes of `text`. Raises `UserError` for a lone surrogate, which has no UTF-8 form."""
        try:
            return np.frombuffer(text.encode(), np.uint8)
        except UnicodeEncodeError as error:
            raise UserError(
                f"character {error.start} of the text is the lone surrogate {text[error.start]!r}, which UTF-8 cannot "
                f"write; remove it"
            ) from None

    def decode(self, tokens: Any) -> str:
        """Text of `tokens` [T]; bytes that are not UTF-8 become U+FFFD and document ends vanish."""
        tokens = np.asarray(tokens)
        return tokens[tokens != self.end_of_document].astype(np.uint8).tobytes().decode(errors="replace")

    def encode_documents(self, texts: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """([T] ids, [documents] lengths, ends included). Raises `UserError` for a text with the byte 0xFF."""
        end = bytes([self.end_of_document])
        for number, text in enumerate(texts):
            if end in text:
                raise UserError(f"text {number} holds the byte 0xFF, which UTF-8 never uses; give UTF-8 text")
        tokens = np.frombuffer(b"".join(part for text in texts for part in (text, end)), np.uint8)
        return tokens, np.array([len(text) + 1 for text in texts], np.int64)

    def decode_documents(self, tokens: Any) -> list[bytes]:
        """The texts of whole documents. Raises `UserError` where the last one has no end."""
        *texts, rest = np.asarray(tokens).astype(np.uint8).tobytes().split(bytes([self.end_of_document]))
        if rest:
            raise UserError(f"the last {len(rest)} tokens lack their end of document (id {self.end_of_document})")
        return texts


TOKENIZERS = {"bytes": ByteTokenizer}


def load(name: str) -> Tokenizer:
    """The tokenizer that `DataConfig.tokenizer` names. Raises `UserError` for an unknown one."""
    if name not in TOKENIZERS:
        raise UserError(f"there is no tokenizer {name!r}{nearest(name, TOKENIZERS)}")
    return TOKENIZERS[name]()


def count_bytes(tokenizer: Tokenizer, tokens: Any) -> int:
    """Bytes of text that `tokens` (any shape) stand for."""
    counts = np.bincount(np.asarray(tokens).ravel(), minlength=tokenizer.vocab)
    return int(counts @ tokenizer.byte_lengths)


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Total `nats` of the scored tokens, document ends included, in bits per byte of their text."""
    if text_bytes <= 0:
        raise UserError(f"bits per byte need scored text, but the scored tokens stand for {text_bytes} bytes")
    return nats / math.log(2) / text_bytes
