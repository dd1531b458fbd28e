"""The program of an exported model, put together from the parts of a template that the model has.

The template is a whole program in three files, one after the other. Lines between `#: if NAME` and `#: end`, with
`#: else` and nesting, stand in the result where the option NAME is on; `#: NAME` alone is replaced by a text, and so is
NAME in double braces.
"""

import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).with_name("program")
FILES = ("model.py.template", "tokenizer.py.template", "generation.py.template")


def program(options: Mapping[str, bool], texts: Mapping[str, str]) -> str:
    """The program with these options on and off, and these texts. Raises `KeyError` for a name that is not given."""
    lines: list[str] = []
    conditions: list[bool] = []
    for line in _template().splitlines():
        match line.strip().split():
            case ["#:", "if", name]:
                conditions.append(options[name])
            case ["#:", "else"]:
                conditions[-1] = not conditions[-1]
            case ["#:", "end"]:
                conditions.pop()
            case ["#:", name] if all(conditions):
                lines.append(texts[name])
            case ["#:", _]:
                pass
            case _ if all(conditions):
                lines.append(re.sub(r"\{\{(\w+)\}\}", lambda name: texts[name[1]], line))
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)) + "\n"


def _template() -> str:
    return "".join((FOLDER / name).read_text(encoding="utf-8") for name in FILES)
