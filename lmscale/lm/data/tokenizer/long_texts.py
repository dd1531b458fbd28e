"""Long texts in pieces that give the tokens of the whole; the library `tokenizers` takes 200 bytes per byte of text."""

import re
from collections.abc import Iterator
from typing import Any

PIECE_BYTES = 256 << 10
BORDER = re.compile(rb"(?<=[!-~])[ \n]")
"""A space or a newline after a visible character: GPT-2's expression (Radford 2019) always begins a new word there, and
looks at nothing before it."""


def pieces(text: bytes) -> Iterator[bytes]:
    """`text` in pieces of about `PIECE_BYTES`, cut before white space; longer where there is none."""
    start = 0
    while (border := BORDER.search(text, start + PIECE_BYTES)) is not None:
        yield text[start : border.start()]
        start = border.start()
    yield text[start:]


def may_be_cut(spec: dict[str, Any]) -> bool:
    """Whether a tokenizer.json splits text into words by GPT-2's expression and does nothing else to it."""
    splitter = spec.get("pre_tokenizer")
    return (
        isinstance(splitter, dict)
        and splitter.get("type") == "ByteLevel"
        and splitter.get("add_prefix_space") is False
        and splitter.get("use_regex", True) is True
        and not spec.get("normalizer")
        and all(item["special"] for item in spec.get("added_tokens") or [])
    )
