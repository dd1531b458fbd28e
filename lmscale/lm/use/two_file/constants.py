"""The numbers at the top of the program of an exported model."""

from collections.abc import Iterable
from dataclasses import dataclass

LONGEST_LINE = 120


@dataclass(frozen=True)
class Constant:
    """One line of the program."""

    name: str
    value: object
    comment: str = ""
    expression: bool = False
    """`value` is Python, not a value."""


def source(constants: Iterable[Constant]) -> str:
    """The lines, long comments above what they are about."""
    return "\n".join(map(_line, constants))


def _line(constant: Constant) -> str:
    assignment = f"{constant.name} = {constant.value if constant.expression else repr(constant.value)}"
    if not constant.comment:
        return assignment
    line = f"{assignment}  # {constant.comment}"
    return line if len(line) <= LONGEST_LINE else f"# {constant.comment}\n{assignment}"
