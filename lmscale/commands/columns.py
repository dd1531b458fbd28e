"""Columns of text on a terminal: as wide as their widest cell, and as many of them as fit."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console

Columns: TypeAlias = Mapping[str, Sequence[str]]
"""Heading -> cells from top to bottom."""
WIDEST = 100
"""Columns of text that a table takes at most where nothing says how wide the reader's window is."""
NARROWEST = 80
"""Columns of text that a table may take in any window: a narrower one wraps its lines."""
LEFT_BOUND = ("run", "shape", "by", "state", "there", "")


def width_of(columns: Columns, gap: int) -> int:
    """Letters of the longest line, with `gap` blanks between columns."""
    return sum(_widths(columns).values()) + gap * (len(columns) - 1)


def room(console: "Console") -> int:
    """Columns of text that a table may take on a console."""
    return max(NARROWEST, console.width) if console.is_terminal else WIDEST


def omitted(columns: Columns, width: int, least_first: Sequence[str]) -> list[str]:
    """Headings of the columns that must go so that the others fit into `width`, taken from `least_first` in order."""
    gone: list[str] = []
    for name in (name for name in least_first if name in columns):
        if width_of({key: cells for key, cells in columns.items() if key not in gone}, gap=1) <= width:
            break
        gone.append(name)
    return gone


def print_columns(columns: Columns, width: int, console: "Console") -> None:
    """Print a line of headings and a line per row; two blanks between columns where `width` allows it, else one."""
    from rich.text import Text

    widths, gap = _widths(columns), " " * (2 if width_of(columns, gap=2) <= width else 1)
    lines = []
    for row in zip(*([name, *cells] for name, cells in columns.items())):
        cells = (
            cell.ljust(widths[name]) if name in LEFT_BOUND else cell.rjust(widths[name])
            for name, cell in zip(columns, row)
        )
        lines.append(gap.join(cells).rstrip())
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _widths(columns: Columns) -> dict[str, int]:
    return {name: max(map(len, (name, *cells))) for name, cells in columns.items()}
