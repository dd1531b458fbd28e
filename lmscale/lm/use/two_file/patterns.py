"""Regular expressions of published tokenizers, rewritten for Python's module `re`.

Those are written for Oniguruma, which knows categories of Unicode: `\\p{L}` is a letter, and `\\s` is what Unicode
calls white space, which differs from Python's. In the program a text is matched by its outline, which has one character
for all beyond ASCII that are of one category, so that a class stays short; its name stands in braces.
"""

import re
from collections.abc import Iterator
from typing import Any

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How GPT-2 cuts a text into words (Radford 2019), as the library `tokenizers` has it."""
SPACES = r'r"\t-\r\x85" + characters("Zs", "Zl", "Zp")'
"""White_Space of Unicode, as an expression of the program."""
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn".split()
PART = re.compile(
    r"\\(?P<letter>[pP])\{(?P<power>\^?)(?P<category>\w+)\}|\\(?P<escape>.)|(?P<bracket>\[\^?|\])|(?P<both>&&)"
    r"|(?P<brace>[{}])|.",
    re.DOTALL,
)
CATEGORY = re.compile("[LMNPSZC][a-z]?")
SAME_ESCAPES = "rntfv"
"""Letters that mean the same behind a backslash in both languages."""


def pre_tokenizer_patterns(pre_tokenizer: dict[str, Any] | None) -> list[str]:
    """The expressions by which a text is cut, one after the other, by the value in a tokenizer.json.

    Raises `ValueError` for a way of cutting that is not among them.
    """
    steps = _steps(pre_tokenizer)
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        raise ValueError("its pre-tokenizer does not end in ByteLevel without a space in front")
    return [*map(_pattern, steps[:-1]), *([GPT2] if steps[-1].get("use_regex", True) else [])]


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    return list(pre_tokenizer["pretokenizers"]) if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _pattern(step: dict[str, Any]) -> str:
    match step:
        case {"type": "Digits", "individual_digits": individual}:
            return r"\p{N}" if individual else r"\p{N}+"
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            return str(pattern)
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}:
            return str(pattern)
    raise ValueError(f"its pre-tokenizer {step['type']} has no counterpart")


def python_source(patterns: list[str]) -> str:
    """The lines of the program that define PATTERNS. Raises `ValueError` as `translated` does."""
    parts = [translated(pattern) for pattern in patterns]
    names = sorted({name for part in parts for name in re.findall(r"(?<!\{)\{([A-Z]\w*)\}", part)})
    lines = ["PATTERNS = [", *(line for part in parts for line in _compiled(part)), "]"]
    return "\n".join([*(f"{name} = {_expression(name)}" for name in names), *lines])


def _expression(name: str) -> str:
    inside = ", ".join(f'"{category}"' for category in CATEGORIES if category.startswith(name))
    return SPACES if name == "SPACES" else f"characters({inside})"


def _compiled(part: str) -> list[str]:
    """The call that compiles an expression, with a line for each of its alternatives."""
    first, *others = _alternatives(part)
    return [
        "    re.compile(",
        *(f"        {_quoted(text)}" for text in (first, *(f"|{text}" for text in others))),
        "    ),",
    ]


def _alternatives(part: str) -> list[str]:
    texts, depth = [""], 0
    for text in re.findall(r"\\.|\[(?:\\.|[^\]\\])*\]|.", part, re.DOTALL):
        depth += (text == "(") - (text == ")")
        if text == "|" and depth == 0:
            texts.append("")
        else:
            texts[-1] += text
    return texts


def _quoted(text: str) -> str:
    for quote in ('"', "'"):
        if quote not in text:
            return f"rf{quote}{text}{quote}"
    raise ValueError("its regular expression has quotation marks of both kinds")


def translated(pattern: str) -> str:
    """A regular expression of Oniguruma as the inside of an f-string with one of Python.

    Raises `ValueError` for what is not known to mean the same.
    """
    return "".join(_translated(pattern))


def _translated(pattern: str) -> Iterator[str]:
    inside = False  # a class
    for match in PART.finditer(pattern):
        text, category, escape, bracket = match[0], match["category"], match["escape"], match["bracket"]
        if category is not None:
            if not CATEGORY.fullmatch(category):
                raise ValueError(f"its regular expression has the class {text}")
            yield _class(category, inside, (match["letter"] == "P") != bool(match["power"]), text)
        elif escape in ("s", "S"):
            yield _class("SPACES", inside, escape == "S", text)
        elif escape == "d":
            yield _class("Nd", inside, False, text)
        elif (
            match["both"] or (inside and bracket == "[") or (escape and escape.isalnum() and escape not in SAME_ESCAPES)
        ):
            raise ValueError(f"its regular expression has {text}")
        elif bracket:
            inside = bracket != "]"
            yield text
        elif match["brace"] or escape in ("{", "}"):
            yield text + text[-1]
        else:
            yield _literal(text)


def _class(name: str, inside: bool, negated: bool, text: str) -> str:
    if inside and negated:
        raise ValueError(f"its regular expression has {text} within a class")
    return f"{{{name}}}" if inside else f"[{'^' * negated}{{{name}}}]"


def _literal(text: str) -> str:
    if not text.isascii():  # the outline has none
        raise ValueError(f"its regular expression has the character {text}")
    return text if text.isprintable() else f"\\x{ord(text):02x}"
