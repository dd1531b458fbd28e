"""What the verbs share on a terminal: the console itself, how numbers are written, whole tables, progress bars.

Importing this loads nothing heavy: every verb's file imports it, and `--help` every verb's file.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH_OF_A_PIPE = 160
"""Columns of a file or a pipe, which has no width of its own: enough for every table."""
THOUSANDS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def open_console() -> "Console":
    """The console that the verbs print on."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH_OF_A_PIPE)


def quantity(value: float) -> str:
    """Three significant digits with the letter of a thousand: 33.4k, 1.2M, 7.25B."""
    for size, letter in THOUSANDS:
        if abs(value) >= 0.9995 * size:  # 999,900 is 1M, not 1e+03k
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def print_whole(table: "Table", console: "Console") -> None:
    """Print a table at its own width: a narrower terminal wraps its lines, and no digit is lost."""
    table.width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.print(table, crop=False)


@contextmanager
def preparing(console: "Console") -> Iterator[Callable[[str, float], None]]:
    """A bar for each stage of preparing text, gone at the end; none where the console is no terminal."""
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bars:
        stages: dict[str, TaskID] = {}

        def progress(stage: str, share: float) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(escape(stage), total=1.0)
            bars.update(stages[stage], completed=share)

        yield progress
