"""Symbols of a synthetic language, each written as one character, so that bits per byte has its usual meaning."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError

SYMBOLS = "symbols:"
PRINTABLE = range(0x21, 0x7F)
IDEOGRAPHS = range(0x4E00, 0x9FA6)


class SymbolTokenizer:
    """See `Tokenizer`: one id per character, V - 1 of them; the last id is the end of a document.

    Up to 94 symbols are the printable characters of ASCII, one byte each; more are ideographs, three bytes each.
    """

    def __init__(self, vocab: int) -> None:
        """Raises `UserError` for more symbols than there are characters."""
        self.name = f"{SYMBOLS}{vocab}"
        self.vocab = vocab
        self.end_of_document = vocab - 1
        alphabet = PRINTABLE if vocab - 1 <= len(PRINTABLE) else IDEOGRAPHS
        if not 2 <= vocab <= len(IDEOGRAPHS) + 1:
            raise UserError(f"{self.name}: a language has 1 to {len(IDEOGRAPHS):,} symbols and an end of document")
        self._first, self._width = alphabet.start, len(chr(alphabet.start).encode())
        self.dtype: np.dtype[Any] = np.dtype(np.uint8 if vocab <= 1 << 8 else np.uint16)
        self.byte_lengths: NDArray[np.int64] = np.full(vocab, self._width, np.int64)
        self.byte_lengths[self.end_of_document] = 0
        self.fingerprint = hashlib.sha256(f"{self.name} from {self._first}".encode()).hexdigest()[:16]

    def encode(self, text: str) -> NDArray[Any]:
        """[T] ids of `text`. Raises `UserError` for a character that is not a symbol."""
        ids = np.array([ord(char) - self._first for char in text], np.int64)
        if len(wrong := np.flatnonzero((ids < 0) | (ids >= self.end_of_document))):
            raise UserError(f"character {wrong[0]} of the text, {text[wrong[0]]!r}, is no symbol of {self.name}")
        return ids.astype(self.dtype)

    def decode(self, tokens: Any) -> str:
        """Text of `tokens` [T]; document ends vanish."""
        return "".join(chr(self._first + i) for i in np.asarray(tokens).ravel().tolist() if i != self.end_of_document)

    def encode_documents(self, texts: Sequence[bytes]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """([T] ids, [documents] lengths, ends included). Raises `UserError` as `encode` does."""
        end = np.array([self.end_of_document], self.dtype)
        tokens = [ids for text in texts for ids in (self.encode(text.decode()), end)]
        lengths = [len(ids) + 1 for ids in tokens[::2]]
        return np.concatenate([np.empty(0, self.dtype), *tokens]), np.array(lengths, np.int64)

    def decode_documents(self, tokens: Any) -> list[bytes]:
        """The texts of whole documents. Raises `UserError` where the last one has no end."""
        *texts, rest = np.split(tokens := np.asarray(tokens), np.flatnonzero(tokens == self.end_of_document) + 1)
        if len(rest):
            raise UserError(f"the last {len(rest)} tokens lack their end of document (id {self.end_of_document})")
        return [self.decode(text).encode() for text in texts]
