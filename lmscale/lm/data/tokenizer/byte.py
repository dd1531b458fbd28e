"""One token per byte of UTF-8."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError
from lmscale.core.text import utf8


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
        return np.frombuffer(utf8(text), np.uint8)

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
        tokens = np.frombuffer(b"".join(piece for text in texts for piece in (text, end)), np.uint8)
        return tokens, np.array([len(text) + 1 for text in texts], np.int64)

    def decode_documents(self, tokens: Any) -> list[bytes]:
        """The texts of whole documents. Raises `UserError` where the last one has no end."""
        *texts, rest = np.asarray(tokens).astype(np.uint8).tobytes().split(bytes([self.end_of_document]))
        if rest:
            raise UserError(f"the last {len(rest)} tokens lack their end of document (id {self.end_of_document})")
        return texts
