"""Sources in the standard library of the running Python: `stdlib`, its modules, or one part of each."""

from lmscale.core.config.checks import check
from lmscale.core.errors import nearest

STDLIB = "stdlib"
PARTS = {"code": "the code, without docstrings, of ", "docstrings": "the docstrings of "}
"""Part of a module, as in `stdlib:code`, and its words in front of those for the library."""


def is_stdlib(source: str) -> bool:
    """Whether a source is the standard library, or is written as a part of it."""
    return source == STDLIB or source.startswith(f"{STDLIB}:")


def part_of(source: str) -> str:
    """The part that such a source names; "" for whole modules. Raises `UserError` naming the nearest part."""
    part = source.removeprefix(STDLIB).removeprefix(":")
    check(
        source == STDLIB or part in PARTS,
        f"the standard library has no part {part!r}{nearest(part, PARTS)}; write {STDLIB}, or "
        f"{' or '.join(f'{STDLIB}:{name}' for name in PARTS)}",
    )
    return part
