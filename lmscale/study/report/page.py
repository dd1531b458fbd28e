"""One self-contained HTML page: style, headings, lists, tables. Nothing is loaded from elsewhere.

A page with `data` has the package's own scripts and charts, under a policy that lets nothing else run; every sentence,
number and drawing is there without them too.
"""

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmscale.core.text import printable
from lmscale.study.fits.results.common import clean
from lmscale.study.plots import INK, SEQUENCE
from lmscale.study.report import assets

DARK = {
    "text": "#e6e8eb", "muted": "#9aa0a8", "line": "#3a3f47", "paper": "#15181c",
    "1": "#2fc393", "2": "#f08a4b", "3": "#5cb2f2", "rule": "#d08fcb",
}  # fmt: skip
DARK_SEQUENCE = (
    "#9a86e8", "#8396e6", "#63a3dc", "#4bb3c6", "#3fc3ae", "#52cf8d", "#85d66a", "#b5d84b", "#e0d03f", "#f5b13d",
)  # fmt: skip


CODE = re.compile(r"`([^`]+)`")
"""Code within a sentence, as the terminal shows it too."""


def _variables(ink: dict[str, str], sequence: Sequence[str], shade: str) -> str:
    named = [f"--ink-{name}:{colour}" for name, colour in ink.items()]
    return ";".join([*named, *(f"--s{i}:{colour}" for i, colour in enumerate(sequence)), f"--ink-shade:{shade}"])


def document(
    title: str,
    body: Iterable[str],
    more_style: str = "",
    data: Mapping[str, Any] | None = None,
    refresh_seconds: int | None = None,
) -> str:
    """The whole page. `body` is HTML, `title` text, `more_style` CSS. Printing takes the light colours.

    `data` are what the scripts of an interactive page read, None for a page without them; a page with
    `refresh_seconds` loads itself again.
    """
    scripts = [] if data is None else [assets.library(), assets.script()]
    style = theme() + (assets.library_style() + "\n" if scripts else "") + assets.style() + more_style
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        *([f'<meta http-equiv="refresh" content="{refresh_seconds}">'] if refresh_seconds else []),
        *([f'<meta http-equiv="Content-Security-Policy" content="{assets.policy(scripts, [style])}">'] * bool(scripts)),
        f"<title>{text(title)}</title>",
        f"<style>{style}</style>",
    ]
    parts = [*body] if data is None else ["<main>", *body, "</main>"]
    if data is not None:
        parts.append(f'<script type="application/json" id="page-data">{embedded(data)}</script>')
        parts += [f"<script>{script}</script>" for script in scripts]
    inner = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{chr(10).join(head)}\n</head>\n<body>\n{inner}\n</body>\n</html>\n'
    )


def theme() -> str:
    """The colours as CSS variables: the reader's theme, or the one that the page's button chose."""
    light, dark = _variables(INK, SEQUENCE, "#f3f4f6"), _variables(DARK, DARK_SEQUENCE, "#1f2329")
    sans = "--sans:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif"
    return (
        f":root{{color-scheme:light dark;{sans};{light}}}"
        f"\n@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}"
        f"\n@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}"
        ":root[data-theme=light]{color-scheme:light}}\n"
    )


def embedded(value: Any) -> str:
    """JSON that no text in it can end: a `<` is written as an escape, what is not finite as null."""
    return json.dumps(clean(value), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def text(value: object) -> str:
    """A value as HTML text: escaped, and without characters that a browser obeys or hides."""
    return html.escape(printable(str(value)), quote=True)


def prose(sentence: str) -> str:
    """A sentence as HTML text; what stands between backticks is code."""
    return CODE.sub(r"<code>\1</code>", text(sentence))


def heading(title: str, level: int = 2) -> str:
    """A heading that can be linked to."""
    anchor = "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")
    return f'<h{level} id="{anchor}">{text(title)}</h{level}>'


def paragraphs(sentences: Iterable[str], css: str = "") -> str:
    """One paragraph per sentence, in a box where `css` names one."""
    inner = "".join(f"<p>{prose(sentence)}</p>" for sentence in sentences)
    return f'<div class="{css}">{inner}</div>' if css else inner


def bullets(items: Iterable[str]) -> str:
    """A bulleted list."""
    return "<ul>" + "".join(f"<li>{prose(item)}</li>" for item in items) + "</ul>"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Terms and what they mean."""
    return "<dl>" + "".join(f"<dt>{text(term)}</dt><dd>{prose(meaning)}</dd>" for term, meaning in pairs) + "</dl>"


@dataclass(frozen=True)
class Number:
    """A cell that shows `text` and is sorted and copied as `value`."""

    text: str
    value: float | None = None


Cell = str | Number


@dataclass(frozen=True)
class Row:
    """A row of a table: its cells, a CSS class, and the run that it is of."""

    cells: Sequence[Cell]
    css: str = ""
    run: str = ""


def table(
    heads: Sequence[tuple[str, str]],
    rows: Iterable[Row | tuple[str, Sequence[Cell]]],
    text_columns: Sequence[int] = (0,),
    css: str = "",
) -> str:
    """A table. `heads` are (name, unit) pairs; rows may be (CSS class, cells); `text_columns` are set flush left."""
    top = "".join(
        f"<th{_text_cell(i, text_columns)}>{text(name)}{f'<span>{text(unit)}</span>' if unit else ''}</th>"
        for i, (name, unit) in enumerate(heads)
    )
    body = "".join(_row(row if isinstance(row, Row) else Row(row[1], row[0]), text_columns) for row in rows)
    named = f' class="{css}"' if css else ""
    return f'<div class="wide"><table{named}><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _row(row: Row, text_columns: Sequence[int]) -> str:
    run = f' data-run="{text(row.run)}"' if row.run else ""
    css = f" class={row.css!r}" if row.css else ""
    cells = "".join(_cell(index, cell, text_columns) for index, cell in enumerate(row.cells))
    return f"<tr{css}{run}>{cells}</tr>\n"


def _cell(column: int, cell: Cell, text_columns: Sequence[int]) -> str:
    shown, value = (cell, None) if isinstance(cell, str) else (cell.text, cell.value)
    exact = "" if value is None else f' data-value="{float(value)!r}"'
    return f"<td{_text_cell(column, text_columns, shown)}{exact}>{text(shown)}</td>"


def _text_cell(column: int, text_columns: Sequence[int], cell: str = "") -> str:
    """The class of a cell that is set flush left; long ones may wrap."""
    if column not in text_columns:
        return ""
    return ' class="word long"' if len(cell) > 24 else ' class="word"'


def code(lines: Iterable[str]) -> str:
    """Shell lines in a box, which the keyboard can scroll."""
    return f'<pre tabindex="0">{text(chr(10).join(lines))}</pre>'


def folded(summary: str, inner: str, *, open_: bool) -> str:
    """A part that can be folded away."""
    return f"<details{' open' if open_ else ''}><summary>{text(summary)}</summary>{inner}</details>"


def contents(parts: Iterable[str]) -> str:
    """Links to the sections of a page, by their headings of the second level."""
    headings = re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', "\n".join(parts))
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in headings)
    return f'<nav class="contents" aria-label="Contents"><ul>{links}</ul></nav>' if links else ""
