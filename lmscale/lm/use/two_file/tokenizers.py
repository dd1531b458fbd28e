"""A tokenizer as a part of the program of an exported model."""

import json
import runpy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError
from lmscale.lm.data.tokenizer import ByteTokenizer, FileTokenizer, SymbolTokenizer, Tokenizer
from lmscale.lm.data.tokenizer.file import byte_alphabet
from lmscale.lm.use.two_file.constants import Constant
from lmscale.lm.use.two_file.patterns import pre_tokenizer_patterns, python_source

TOKENIZER_OPTIONS = (
    "bytes_tokenizer", "symbols_tokenizer", "bpe", "bpe_words", "bpe_nfc", "bpe_added", "bpe_whole_words",
    "needs_re", "needs_unicodedata",
)  # fmt: skip
"""The options of the template that are about the tokenizer."""
UTF8 = frozenset(range(256)) - {0xC0, 0xC1, *range(0xF5, 0x100)}
"""The bytes that UTF-8 uses (RFC 3629)."""
PROBES = (
    "The quick brown fox's 3 dogs don't; they'LL run 1,234.5678 miles -- in 2026!?\n\n",
    "  two  spaces,\ttabs\t\t and \r\n lines \n \n  \n",
    "naïve café Ångström \u017f e\u0301 ß it'\u017fx \u212a'K ŒUVRE I'M",
    "Привет, мир 你好世界 こんにちは 안녕하세요 שלום مرحبا नमस्ते",
    "🙂👩\u200d🚀 ½ Ⅷ ² ٣ x\u00a0y\u2003z\u3000\u0085\u001c\u200b _under_score_",
    "def f(x):\n    return {x: [1, 2]}  # why\n\t\t\treturn None\n" + 40 * " " + "end   ",
    "\0\x7f\ufffd a'b'c''d \u2028",
)
"""Texts of many scripts, on which an exported tokenizer must give the tokens of the original."""


@dataclass(frozen=True)
class TokenizerPart:
    """What the program has of a tokenizer."""

    options: frozenset[str]
    """Names of `TOKENIZER_OPTIONS` that are on."""
    constants: tuple[Constant, ...]
    patterns: str = ""
    """The lines that define how a text is cut into words."""
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What lies beside the model's parameters."""


def tokenizer_part(tokenizer: Tokenizer) -> TokenizerPart:
    """Raises `UserError` for a tokenizer that the program cannot have, and names why."""
    end = Constant("END_OF_DOCUMENT", tokenizer.end_of_document, "the token at which a text ends")
    if isinstance(tokenizer, ByteTokenizer):
        return TokenizerPart(frozenset({"bytes_tokenizer"}), (end,))
    if isinstance(tokenizer, SymbolTokenizer):
        first = Constant("FIRST_SYMBOL", ord(tokenizer.decode([0])), "the character of token 0")
        return TokenizerPart(frozenset({"symbols_tokenizer"}), (end, first))
    assert isinstance(tokenizer, FileTokenizer)
    try:
        return _byte_level(tokenizer, end)
    except (ValueError, KeyError, TypeError) as error:
        raise _refusal(tokenizer, str(error)) from None


def _refusal(tokenizer: Tokenizer, reason: str) -> UserError:
    return UserError(
        f"the tokenizer {tokenizer.name} has no counterpart in two-file, which has bytes, symbols and byte-level BPE: "
        f"{reason}; take --format hf, which writes any tokenizer"
    )


def _byte_level(tokenizer: FileTokenizer, end: Constant) -> TokenizerPart:
    """Byte-level BPE. Raises `ValueError` and `KeyError` for what is none."""
    spec = json.loads(tokenizer.content)
    model, normalizer = spec["model"], spec.get("normalizer")
    _check_model(model)
    if normalizer not in (None, {"type": "NFC"}):
        raise ValueError(f"its normalizer {normalizer.get('type')} changes the text")
    patterns = pre_tokenizer_patterns(spec.get("pre_tokenizer"))
    added = _added(spec)
    options = {
        "bpe": True,
        "bpe_words": bool(patterns),
        "bpe_nfc": normalizer is not None,
        "bpe_added": bool(added),
        "bpe_whole_words": bool(model.get("ignore_merges")),
        "needs_re": bool(patterns or added),
        "needs_unicodedata": bool(patterns or normalizer),
    }
    constants = [end, Constant("VOCAB", tokenizer.vocab, "tokens")]
    if added:
        constants.append(Constant("ADDED", added, "texts that are one token each, wherever they stand"))
    on = frozenset(name for name, value in options.items() if value)
    return TokenizerPart(on, tuple(constants), python_source(patterns), _arrays(tokenizer, model))


def _check_model(model: dict[str, Any]) -> None:
    """Raises `ValueError` for another model than plain BPE."""
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"its model is {model['type']}")
    for name in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name):
            raise ValueError(f"its BPE has {name} = {model[name]!r}")


def _added(spec: dict[str, Any]) -> dict[str, int]:
    """Tokens added behind the vocabulary that are text. Raises `ValueError` for those that are matched otherwise."""
    added = [token for token in spec.get("added_tokens") or [] if not token["special"]]
    for token in added:
        for name in ("single_word", "lstrip", "rstrip"):
            if token.get(name):
                raise ValueError(f"its token {token['content']!r} has {name}")
    return {token["content"]: token["id"] for token in added}


def _arrays(tokenizer: FileTokenizer, model: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Merges as rows (left, right, merged), the token of every byte, and the bytes of every token."""
    vocab = model["vocab"]
    byte_tokens = np.full(256, -1, np.int32)
    for character, byte in byte_alphabet().items():
        byte_tokens[byte] = vocab.get(character, -1)
    if missing := [byte for byte in sorted(UTF8) if byte_tokens[byte] < 0]:
        raise ValueError(f"it has no token for the byte 0x{missing[0]:02X}")
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    rows = [(vocab[left], vocab[right], vocab[left + right]) for left, right in merges]
    return {
        "merges": np.array(rows, np.int32).reshape(-1, 3),
        "byte_tokens": byte_tokens,
        "pieces": np.frombuffer(b"".join(tokenizer.pieces), np.uint8),
        "piece_ends": np.cumsum([len(piece) for piece in tokenizer.pieces]),
    }


def check_tokenizer(program: str, tokenizer: Tokenizer, part: TokenizerPart, parameters_file: str) -> None:
    """Raise `UserError` where the program encodes one of `PROBES` as other tokens than the tokenizer does."""
    if "bpe" not in part.options:
        return
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / parameters_file, allow_pickle=False, **part.arrays)
        (Path(folder) / "program.py").write_text(program, encoding="utf-8")
        encode = runpy.run_path(str(Path(folder) / "program.py"))["encode"]
    for text in PROBES:
        if encode(text) != tokenizer.encode(text).tolist():
            raise _refusal(tokenizer, f"it would encode {text[:30]!r} as other tokens")
