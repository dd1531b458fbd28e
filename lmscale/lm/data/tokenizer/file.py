"""Any `tokenizer.json` of the library `tokenizers` whose tokens, joined, are the text."""

import contextlib
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core import files
from lmscale.core.errors import UserError
from lmscale.core.text import utf8
from lmscale.lm.data.tokenizer import long_texts
from lmscale.lm.data.tokenizer.long_texts import PIECE_BYTES

ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "<|im_end|>", "[SEP]", "[EOS]", "<end>")
"""Names of the end of a text in published tokenizers, the likelier first."""
MOST_IDS = 1 << 24
"""Ids of published tokenizers stay below a fifteenth of this."""
MOST_REASON = 300
"""Characters of a library's reason that are shown."""
SPACE = "\u2581"
"""SentencePiece's character for a space."""


def byte_alphabet() -> dict[str, int]:
    """The characters by which byte-level tokenizers write bytes: printable ones as themselves, the rest from U+0100 on.

    The table of GPT-2 (Radford 2019).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


class FileTokenizer:
    """See `Tokenizer`. The end of a document has the file's own id, or one more id where the file has none."""

    def __init__(self, content: str, name: str, end_of_document: int | None = None) -> None:
        """`content` is that of a tokenizer.json; `end_of_document` replaces the id that its names suggest.

        Raises `UserError` if it is not one or if its tokens are not text.
        """
        self.name = name
        self.content = content
        """The bytes of the file."""
        try:
            spec = json.loads(content)
            added = [(item["id"], item["content"], item["special"]) for item in spec.get("added_tokens") or []]
            self._special = checked_ids((number, text) for number, text, special in added if special)
            self._added = checked_ids((number, text) for number, text, special in added if not special)
            self._pieces = checked_ids((number, piece) for piece, number in _vocabulary(spec["model"]))
            self._decoders = _kinds(spec.get("decoder"))
            self._may_be_cut = long_texts.may_be_cut(spec)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{name} is no tokenizer.json ({type(error).__name__}: {error}); give one that the library "
                f"`tokenizers` saved"
            ) from None
        known = {text: number for number, text in self._special.items()}
        size = max([*self._pieces, *self._special, *self._added], default=-1) + 1
        suggested = next((known[end] for end in ENDS if end in known), size)
        self.end_of_document: int = suggested if end_of_document is None else end_of_document
        self.vocab: int = max(size, self.end_of_document + 1)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]
        self.dtype: np.dtype[Any] = np.dtype(
            np.uint8 if self.vocab <= 1 << 8 else np.uint16 if self.vocab <= 1 << 16 else np.uint32
        )

    @classmethod
    def read(cls, path: str | Path, name: str = "", end_of_document: int | None = None) -> "FileTokenizer":
        """The tokenizer of a file. Raises `UserError` where it cannot be read."""
        try:
            content = files.read_bytes(path).decode("utf-8")
        except FileNotFoundError:
            raise UserError(
                f"there is no tokenizer file {name or path}; give `bytes`, `bpe:4096` or a path that exists"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"the tokenizer file {path} cannot be read: {getattr(error, 'strerror', error)}") from None
        return cls(content, name or str(path), end_of_document)

    @functools.cached_property
    def pieces(self) -> list[bytes]:
        """[V]: the bytes that each id stands for, none for special tokens."""
        kinds, to_bytes = self._decoders, _plain
        if "ByteLevel" in kinds:
            to_bytes = _from_bytes
        elif kinds & {"Metaspace", "ByteFallback"}:
            to_bytes = _from_spaces
        pieces = [b""] * self.vocab
        for number, text in self._pieces.items():
            pieces[number] = to_bytes(text)
        for number, text in self._added.items():
            pieces[number] = text.encode()
        for number in (*self._special, self.end_of_document):
            pieces[number] = b""
        return pieces

    @functools.cached_property
    def byte_lengths(self) -> NDArray[np.int64]:
        """[V]: bytes of text that each id stands for."""
        return np.array([len(piece) for piece in self.pieces], np.int64)

    @functools.cached_property
    def _inner(self) -> Any:
        import tokenizers

        with in_one_sentence(f"the library `tokenizers` cannot read {self.name}"):
            inner = tokenizers.Tokenizer.from_str(self.content)
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True  # text that spells a special token is text
        return inner

    def encode(self, text: str) -> NDArray[Any]:
        """[T] ids of `text`. Raises `UserError` for a lone surrogate."""
        utf8(text)
        with in_one_sentence(f"the tokenizer {self.name} cannot read a text"):
            ids = self._inner.encode(text, add_special_tokens=False).ids
        return np.array(ids, self.dtype)

    def decode(self, tokens: Any) -> str:
        """Text of `tokens` [T]; bytes that are not UTF-8 become U+FFFD and special tokens vanish."""
        return b"".join(self.pieces[i] for i in np.asarray(tokens).ravel().tolist()).decode(errors="replace")

    def encode_documents(self, texts: Sequence[bytes]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """([T] ids, [documents] lengths, ends included). Raises `UserError` for a text that its tokens do not spell."""
        end = np.array([self.end_of_document], self.dtype)
        tokens = [np.empty(0, self.dtype)]
        lengths = []
        for number, (text, (ids, spelled)) in enumerate(zip(texts, self._encoded(texts))):
            if spelled != text:
                raise UserError(self._mismatch(number, text, spelled))
            tokens += [ids, end]
            lengths.append(len(ids) + 1)
        return np.concatenate(tokens), np.array(lengths, np.int64)

    def _encoded(self, texts: Sequence[bytes]) -> Iterator[tuple[NDArray[Any], bytes]]:
        """The ids of every text, and what they spell; long texts are read piece by piece where that changes nothing."""
        for long, group in itertools.groupby(texts, lambda text: self._may_be_cut and len(text) > PIECE_BYTES):
            if not long:
                yield from self._batch(list(group))
                continue
            for text in group:
                parts = [part for piece in long_texts.pieces(text) for part in self._batch([piece])]
                yield np.concatenate([ids for ids, _ in parts]), b"".join(spelled for _, spelled in parts)

    def _batch(self, texts: Sequence[bytes]) -> Iterator[tuple[NDArray[Any], bytes]]:
        with in_one_sentence(f"the tokenizer {self.name} cannot read a text"):
            encodings = self._inner.encode_batch_fast([text.decode() for text in texts], add_special_tokens=False)
        pieces = self.pieces
        for encoding in encodings:
            ids = encoding.ids
            yield np.array(ids, self.dtype), b"".join([pieces[i] for i in ids])

    def _mismatch(self, number: int, text: bytes, spelled: bytes) -> str:
        at = next((i for i, (a, b) in enumerate(zip(text, spelled)) if a != b), min(len(text), len(spelled)))
        return (
            f"the tokenizer {self.name} does not give text {number} back: from byte {at:,} on it reads "
            f"{_excerpt(spelled[at:])} instead of {_excerpt(text[at:])}; bits per byte would be wrong, so take bytes, "
            f"bpe:V or a byte-level tokenizer.json that neither normalises text nor puts a space before it"
        )

    def decode_documents(self, tokens: Any) -> list[bytes]:
        """The texts of whole documents. Raises `UserError` where the last one has no end."""
        tokens = np.asarray(tokens)
        ends = np.flatnonzero(tokens == self.end_of_document)
        last = int(ends[-1]) + 1 if len(ends) else 0
        if rest := len(tokens) - last:
            raise UserError(f"the last {rest} tokens lack their end of document (id {self.end_of_document})")
        starts = [0, *(ends[:-1] + 1).tolist()] if len(ends) else []
        return [
            b"".join(self.pieces[i] for i in tokens[start:end].tolist()) for start, end in zip(starts, ends.tolist())
        ]


@contextlib.contextmanager
def in_one_sentence(what: str) -> Iterator[None]:
    """Raise `UserError` for what the library `tokenizers` raises: bare exceptions, and panics, which are none."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{what}: {' '.join(str(error).split())[:MOST_REASON]}") from None


def checked_ids(tokens: Iterable[tuple[Any, Any]]) -> dict[int, str]:
    """Texts by id. Raises ValueError for what is no id or no text."""
    checked = dict(tokens)
    for number, text in checked.items():
        if type(number) is not int or not 0 <= number < MOST_IDS:
            raise ValueError(f"an id must be a whole number from 0 to {MOST_IDS - 1:,}")
        if not isinstance(text, str):
            raise ValueError(f"the token {number} is no text")
        text.encode()
    return checked


def _excerpt(text: bytes) -> str:
    return repr(text[:20].decode(errors="replace"))


def _vocabulary(model: dict[str, Any]) -> list[tuple[str, int]]:
    """Every token and its id: a mapping in BPE, WordPiece and WordLevel, a list of scores in Unigram."""
    vocab = model["vocab"]
    return list(vocab.items()) if isinstance(vocab, dict) else [(piece, i) for i, (piece, _) in enumerate(vocab)]


def _kinds(decoder: Any) -> set[str]:
    """The types of a decoder and of the decoders that it consists of."""
    if not decoder:
        return set()
    return {decoder["type"]}.union(*(_kinds(inner) for inner in decoder.get("decoders", [])))


_BYTES = byte_alphabet()


def _from_bytes(piece: str) -> bytes:
    return bytes(_BYTES[char] for char in piece) if all(char in _BYTES for char in piece) else piece.encode()


def _from_spaces(piece: str) -> bytes:
    if byte := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece):
        return bytes([int(byte[1], 16)])
    return piece.replace(SPACE, " ").encode()


def _plain(piece: str) -> bytes:
    return piece.encode()
