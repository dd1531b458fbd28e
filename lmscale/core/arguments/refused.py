"""How a value that was given is shown, and refused."""

import reprlib
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SIMPLE = (str, bytes, int, float, complex, list, tuple, dict, set, type(None))


class Refused(Exception):
    """`value`, or a part of what was given, breaks the rule of its annotation."""

    def __init__(self, value: Any, words: str = "") -> None:
        super().__init__(words)
        self.value = value
        self.words = words
        """The rule of the part; "" for that of the whole."""


def shown(value: Any) -> str:
    """A value as a sentence repeats it: simple ones as Python writes them, others by their type."""
    if not isinstance(value, _SIMPLE):
        return f"<{type(value).__name__}>"
    try:
        return _SHORT.repr(value)
    except Exception:  # an integer of ten thousand digits, or an item that cannot be written
        return f"<{type(value).__name__}>"


def hint(value: Any, wants_number: bool) -> str:
    """A clause with the nearest fix, where what was given tells it."""
    if wants_number and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return ""
        return "; write it without quotation marks"
    return ""
