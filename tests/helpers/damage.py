"""What can happen to a file: strategies that damage its bytes, its lines or its JSON, and what may lie in its place."""

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

DIGITS, BEYOND, DEEP = "<5000 digits>", "<1e999>", "<100000 brackets>"
"""Texts that stand for values which Python's json does not write."""
PIECES = (
    b"\0", b"\n", b"\r\n", b"\r", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc3\x28", b"\x80", b"\xed\xa0\x80",
    b'"', b"'", b",", b";", b"\t", b"{", b"}", b"[", b"]", b":", b"(", b")", b"\\", b"\\ud800", b"\\u2028", b"-", b".",
    b"e", b"%",
    b"NaN", b"Infinity", b"1e999", b"-1", b"0", b"null", b"true", b'""', b"[]", b"{}", b"9" * 400, b"9" * 5000,
    b"[" * 3000, b"(" * 3000, b'{"a":' * 3000, b"-" * 3000, b"x" * 100_000, b"\x1b[2J", b"=1+1", b"**9", b"'a'*9**9",
    b"not ", b"lambda:0", b" | ", b"*", b"\xe2\x88\x9e", b"\xef\xbc\x91", b"\x1f\x8b\x08",
)  # fmt: skip
"""Bytes that readers stumble over."""


WHOLE = (
    b"", b"\0", b"\n", b"\xff\xfe", b"\xc3\x28", b"null", b"1", b"[]", b"{}", b"[[]]", b"[{}]", b'"text"', b"NaN",
    b"9" * 5000, b"[" * 100_000, b'{"a":' * 100_000, b"\x1f\x8b\x08", b"x" * 1_000_000,
)  # fmt: skip
"""Contents in place of all of a file's: each is tried."""


def nested(depth: int) -> list[Any]:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 0.5, -0.0, 1e-320, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, DIGITS, BEYOND,
    DEEP, float("nan"), float("inf"), float("-inf"), "", " ",
    "0", "1e3", "nan", "\ud800", "\u2028", "\0", "a\nb", "..", "/",
    "../../x", "/dev/zero", "\x1b[2J", "é", "x" * 10_000, [], {}, [None], [1, 2, 3], ["a"], {"": 0}, {"a": {}}, [[1.0]],
    [[]], [{}], nested(10), nested(900),
)  # fmt: skip
"""Values of JSON that may stand where another is expected."""
FIELDS = ("", "a", "x" * 1000, "\ud800", "a\nb", "__class__", "run_id", "=1")
"""Names of fields that nobody expects."""


def damaged(content: bytes, form: str) -> st.SearchStrategy[bytes]:
    """Damaged copies of `content`, whose `form` is "json", "lines" (of JSON), "text" or "binary"."""
    if form == "json":
        return _damaged_json(content) | _damaged_bytes(content)
    if form == "lines":
        return _damaged_lines(content) | _damaged_bytes(content)
    return _damaged_bytes(content)


@st.composite
def _damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from((1, 1, 2, 8, 64, 1 << 30))))
        part, piece = content[start:end], b""
        match draw(st.sampled_from(("flip", "byte", "digit", "cut", "delete", "repeat", "insert", "replace", "zero"))):
            case "flip":
                piece = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in part[:1]) + part[1:]
            case "byte":
                piece = draw(st.binary(min_size=1, max_size=1)) + part[1:]
            case "digit":
                piece = draw(st.sampled_from([b"0", b"7", b"9"])) + part[1:]
            case "cut":
                piece, end = b"", len(content)
            case "repeat":
                piece = part * draw(st.sampled_from((2, 3, 50)))
            case "insert":
                piece = draw(st.sampled_from(PIECES)) + part
            case "replace":
                piece = draw(st.sampled_from(PIECES))
            case "zero":
                piece = bytes(len(part))
        content = (content[:start] + piece + content[end:])[: 1 << 22]
    return content


@st.composite
def _damaged_json(draw: st.DrawFn, content: bytes) -> bytes:
    value = json.loads(content)
    for _ in range(draw(st.integers(1, 2))):
        value = draw(_damaged_value(value))
    return dumps(value)


@st.composite
def _damaged_lines(draw: st.DrawFn, content: bytes) -> bytes:
    lines = content.splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    match draw(st.sampled_from(("value", "value", "value", "twice", "swap", "remove"))):
        case "value":
            lines[number] = draw(_damaged_json(lines[number]))
        case "twice":
            lines.insert(number, lines[number])
        case "swap":
            lines[number], lines[0] = lines[0], lines[number]
        case "remove":
            del lines[number]
    return b"\n".join(lines) + b"\n" * draw(st.integers(0, 1))


@st.composite
def _damaged_value(draw: st.DrawFn, whole: Any) -> Any:
    """A value of JSON in which one part is another, gone, twice, or has a field too many."""
    box = [copy.deepcopy(whole)]
    parts = list(_parts(box))
    holder, key = draw(st.sampled_from(parts))
    match draw(st.sampled_from(("value", "value", "remove", "add", "swap", "wrap", "text"))):
        case "value":
            holder[key] = draw(st.sampled_from(VALUES))
        case "remove" if holder is not box:
            del holder[key]
        case "add" if isinstance(holder[key], dict):
            holder[key][draw(st.sampled_from(FIELDS))] = draw(st.sampled_from(VALUES))
        case "add" if isinstance(holder[key], list):
            holder[key].append(draw(st.sampled_from((*VALUES, *holder[key][:1]))))
        case "swap":
            other, place = draw(st.sampled_from(parts))
            holder[key] = copy.deepcopy(other[place])
        case "wrap":
            holder[key] = [holder[key]]
        case "text":
            holder[key] = str(holder[key])[:1000]
    return box[0]


def _parts(holder: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of every part, breadth first in effect: of long lists only the first items and the last."""
    keys = list(holder) if isinstance(holder, dict) else [*range(min(3, len(holder))), *range(3, len(holder))[-1:]]
    for key in keys:
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _parts(holder[key])


def dumps(value: Any) -> bytes:
    """JSON with the values that `DIGITS`, `BEYOND` and `DEEP` stand for."""
    text = json.dumps(value)
    text = text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)
    return text.replace(f'"{DIGITS}"', "7" * 5000).replace(f'"{BEYOND}"', "1e999").encode()


def _folder(path: Path) -> None:
    path.mkdir()


def _unreadable(path: Path) -> None:
    path.write_bytes(b"{}")
    path.chmod(0)


def _missing(path: Path) -> None:
    """Nothing lies there."""


PLACES: dict[str, Callable[[Path], None]] = {
    "missing": _missing,
    "empty": Path.touch,
    "folder": _folder,
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to nothing": lambda path: path.symlink_to(path.with_name("nothing-here")),
    "link to itself": lambda path: path.symlink_to(path.name),
    "unreadable": _unreadable,
}
"""What may lie where a file is expected, and how it gets there. Nothing is unreadable to root."""
