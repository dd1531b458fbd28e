"""Text to token ids and back, with the bytes of text that each token stands for.

`bytes` is a token per byte; `bpe:V` is byte-level BPE trained on the corpus; a path ending in .json is a file of the
Hugging Face library `tokenizers`. Every id stands for a fixed string of bytes, and joined they are the text: this
is checked on every document, so the bytes of any tokens are known exactly.

Bits per byte is the loss that tokenizers share: the nats of all scored tokens, the end-of-document tokens among them,
over ln 2 and over the bytes of text of those very tokens. An end-of-document token, like every special token, counts
zero bytes: a model pays for predicting where a text ends and gets no bytes for it. `encode_documents` produces no
special tokens other than the end of a document; text that spells one is split like any other text.

Letters: V vocabulary, T tokens.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmscale.core import files
from lmscale.core.errors import UserError, nearest
from lmscale.core.run_folder import IMPORTED_FILE
from lmscale.lm.data.tokenizer.byte import ByteTokenizer
from lmscale.lm.data.tokenizer.file import FileTokenizer
from lmscale.lm.data.tokenizer.symbols import SYMBOLS, SymbolTokenizer
from lmscale.lm.data.tokenizer.train import BPE, train_bpe

__all__ = [
    "BPE",
    "ByteTokenizer",
    "FileTokenizer",
    "SymbolTokenizer",
    "Tokenizer",
    "bits_per_byte",
    "count_bytes",
    "imported_tokenizer",
    "load",
    "train_bpe",
]


class Tokenizer(Protocol):
    """The interface of a tokenizer, for data preparation, scoring and sampling."""

    @property
    def name(self) -> str:
        """What `DataConfig.tokenizer` calls it."""

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
        """The smallest unsigned type that holds an id, and the type of tokens on disk."""

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


def imported_tokenizer(folder: Path, name: str) -> FileTokenizer:
    """The tokenizer that an imported model brings, in its run's folder."""
    origin = files.read_json(folder / IMPORTED_FILE, "record of an imported model", files.IMPORT_AGAIN)
    end = origin.get("end_of_document") if isinstance(origin, dict) else None
    if type(end) is not int:
        raise UserError(f"{folder / IMPORTED_FILE} does not say which token ends a text; import the model again")
    return FileTokenizer.read(folder / name, name, end)


def load(name: str) -> Tokenizer:
    """The tokenizer `bytes`, that of a synthetic language, or that of a file.

    Raises `UserError` for an unknown name, a bad file and `bpe:V`.
    """
    if name == "bytes":
        return ByteTokenizer()
    if name.startswith(SYMBOLS) and name.removeprefix(SYMBOLS).isdecimal():
        return SymbolTokenizer(int(name.removeprefix(SYMBOLS)))
    if name.startswith(BPE):
        raise UserError(
            f"{name} is trained on a corpus, so a name is not enough: take `data.load_tokenizer` of its manifest, or "
            f"the path of the tokenizer.json that was trained"
        )
    if Path(name).suffix == ".json":
        return FileTokenizer.read(files.resolved(name), name)
    raise UserError(f"there is no tokenizer {name!r}{nearest(name, ['bytes', 'bpe:4096', 'path/to/tokenizer.json'])}")


def count_bytes(tokenizer: Tokenizer, tokens: Any) -> int:
    """Bytes of text that `tokens` (any shape) stand for."""
    counts = np.bincount(np.asarray(tokens).ravel(), minlength=tokenizer.vocab)
    return int(counts @ tokenizer.byte_lengths)


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Total `nats` of the scored tokens, document ends included, in bits per byte of their text."""
    if text_bytes <= 0:
        raise UserError(f"bits per byte need scored text, but the scored tokens stand for {text_bytes} bytes")
    return nats / math.log(2) / text_bytes
