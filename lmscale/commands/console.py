"""What the verbs share on a terminal: the console itself, whole tables, progress bars.

Importing this loads nothing heavy: every verb's file imports it, and `--help` every verb's file.
"""

import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lmscale.core.streams import unescaped
from lmscale.core.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

WIDTH_OF_A_PIPE = 160
"""Columns of a file or a pipe, which has no width of its own: enough for every table."""
HANGING = 4
"""Blanks by which the second and later rows of a wrapped line stand further in than its first."""
TABULAR = re.compile(r"\S {2,}\S")
"""What tells a row of a table from a sentence: blanks in a row after its first word."""


def open_console() -> "Console":
    """The console that the verbs print on: it writes control sequences of its own, and escapes those of others."""
    from rich.console import Console
    from rich.segment import Segment

    class PrintableConsole(Console):
        """A console that makes the text of everything it renders printable."""

        def render_str(self, text: str, **options: Any) -> "Text":  # before its width is taken
            return super().render_str(printable(text), **options)

        def render(self, *args: Any, **options: Any) -> "Iterator[Segment]":
            for segment in super().render(*args, **options):
                if segment.control is None and (text := printable(segment.text)) != segment.text:
                    segment = Segment(text, segment.style)  # noqa: PLW2901
                yield segment

        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 - called while one is handled; the command line's door ends quietly

    console = PrintableConsole(highlight=False, file=unescaped())
    if not console.is_terminal:
        console.width = WIDTH_OF_A_PIPE
    return console


def print_whole(table: "Table", console: "Console") -> None:
    """Print a table at its own width: a narrower terminal wraps its lines, and no digit is lost."""
    table.width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.print(table, crop=False)


def print_indented(markup: str, console: "Console", indent: int = 2) -> None:
    """Print a sentence `indent` blanks from the left, on every row that the console's width breaks it into."""
    from rich.text import Text

    for row in Text.from_markup(markup).wrap(console, console.width - indent):
        row.rstrip()
        console.print(Text(" " * indent).append_text(row), soft_wrap=True)


def fitted(text: str, console: "Console") -> str:
    """`text` whose sentences are broken between words where a terminal would break them within one.

    Rows of tables stay whole, and so does all that goes into a file or a pipe, where a line is one statement.
    """
    if not console.is_terminal:
        return text
    return "\n".join(_broken(line, console.width) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    if len(line) <= width or TABULAR.search(line):
        return line
    lead = len(line) - len(line.lstrip(" -!"))
    rows = textwrap.wrap(
        line, width, subsequent_indent=" " * (lead + HANGING), break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(rows)


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
