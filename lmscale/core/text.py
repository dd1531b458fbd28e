"""Text that comes from elsewhere: made printable for a terminal, and checked before it becomes a path or a script."""

import hashlib
import re
from pathlib import Path

from lmscale.core.errors import UserError

HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
"""Characters that a terminal obeys or hides: C0 but for tab and newline, DEL, C1, marks and overrides of the direction
of writing, spaces without a width, separators of lines, and what stands for bytes that are not UTF-8."""
UNSAFE = re.compile("[\t\n]|" + HIDDEN.pattern)
"""`HIDDEN`, and what ends a line or a column."""
LONGEST_NAME_BYTES = 200
"""File systems take 255 bytes, and some of our files put an ending or a prefix around a name."""
LONGEST_SHOWN = 80
"""Letters of a refused name that its error repeats."""
NAME = re.compile(r"(?=.*\w)[\w.-]+")


def printable(text: str) -> str:
    """`text` with every character that a terminal would obey or hide written as an escape: "\\x1b", "\\u202e".

    Tabs and newlines stay. A byte that was no UTF-8, as in a file's name, is shown as "\\xff".
    """
    return text if text.isascii() and text.isprintable() else HIDDEN.sub(_escape, text)


def one_line(text: str) -> str:
    """`printable`, with tabs and newlines written as escapes too: for a name or a reason within a line."""
    return text if text.isascii() and text.isprintable() else UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that it could not decode
        code -= 0xDC00
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def checked_name(name: object, what: str) -> str:
    """`name`, which names a file or folder of its own. Raises `UserError` for what could lead elsewhere.

    Names that were read from a file pass through here before they become part of a path.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        shown = one_line(str(name))
        shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[: LONGEST_SHOWN - 3]}..."
        raise UserError(f"{what} is '{shown}': it names a folder or file, so use letters, digits, '-', '_' and '.'")
    if len(name.encode()) > LONGEST_NAME_BYTES:
        raise UserError(f"{what} has {len(name)} letters: at most {LONGEST_NAME_BYTES}, and fewer of other alphabets")
    return name


def checked_line(text: str | Path, what: str) -> str:
    """`text` of one line, for a script or a list. Raises `UserError` where it has a character that a script would obey.

    Such characters are those that end a line or a string, and those that hide what the line does.
    """
    if match := UNSAFE.search(str(text)):
        raise UserError(
            f"{what} is '{one_line(str(text))}': the character {one_line(match[0])} cannot stand in a script; rename it"
        )
    return str(text)


def utf8(text: str, what: str = "the text") -> bytes:
    """`text` in UTF-8. Raises `UserError`, which calls it `what`, for a lone surrogate, which has no UTF-8 form."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"character {error.start} of {what} is the lone surrogate {text[error.start]!r}, which UTF-8 cannot "
            f"write; remove it"
        ) from None


def short_name(text: str, most: int) -> str:
    """`text` as a name of at most `most` letters, digits, '-', '_' and '.', with a letter or digit at both ends.

    Where that changes the text, eight digits of its hash follow, so that different texts keep different names.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", text)
    if plain == text and len(text) <= most and text[:1].isalnum() and text[-1:].isalnum():
        return text
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
    stem = plain[: most - len(digest) - 1].strip("-_.")
    return f"{stem}-{digest}" if stem else digest
