"""How a sweep and a plan show themselves in a notebook: as tables, which it draws in its own style."""

import html
from collections.abc import Callable, Sequence
from typing import Any

from lmscale.core.plans import PlannedRun
from lmscale.core.quantities import counted
from lmscale.core.text import printable
from lmscale.study.sweep.points import Point
from lmscale.study.sweep.text import SHOWN, cells


def plan_html(title: str, runs: Sequence[PlannedRun], below: Sequence[str]) -> str:
    """The runs of a plan in the columns of its text, under its title, and the sentences below them."""
    (heads, *rows), omitted = cells(runs)
    return _titled(title, _table(heads, rows, omitted, "run"), below)


def points_html(title: str, points: Sequence[Point], held_out: Callable[[Point], bool], below: Sequence[str]) -> str:
    """The points of a sweep with a column for every coordinate, and a mark where a point is held out."""
    names = list(dict.fromkeys(name for point in points for name in point))
    half = SHOWN // 2
    omitted = len(points) - 2 * half if len(points) > SHOWN else 0
    shown = [*points[:half], *points[-half:]] if omitted else points
    rows = [[*(coordinate_text(point.get(name)) for name in names), "held out" * held_out(point)] for point in shown]
    return _titled(title, _table([*names, ""], rows, omitted, "point"), below)


def _titled(title: str, table: str, below: Sequence[str]) -> str:
    return f"<p><strong>{_text(title)}</strong></p>{table}{''.join(f'<p>{_text(sentence)}</p>' for sentence in below)}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], omitted: int, noun: str) -> str:
    """A table; with `omitted`, a row in its middle says how many are not shown."""
    lines = [_row(row, "td") for row in rows]
    if omitted:
        lines.insert(SHOWN // 2, f"<tr><td colspan={len(heads)}>... {counted(omitted, f'more {noun}')}</td></tr>")
    return f"<table><thead>{_row(heads, 'th')}</thead><tbody>{''.join(lines)}</tbody></table>"


def _row(row: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_text(cell)}</{tag}>' for cell in row)}</tr>"


def coordinate_text(value: Any) -> str:
    """A coordinate: a number in few digits, "" where the point has none."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    return html.escape(printable(text))
