"""One self-contained HTML page: style, headings, lists, tables. No script, nothing loaded from elsewhere."""

import html
from collections.abc import Iterable, Sequence

from lmscale.core.text import printable
from lmscale.study.plots import INK, SEQUENCE

DARK = {
    "text": "#e6e8eb", "muted": "#9aa0a8", "line": "#3a3f47", "paper": "#15181c",
    "1": "#2fc393", "2": "#f08a4b", "3": "#5cb2f2", "rule": "#d08fcb",
}  # fmt: skip
DARK_SEQUENCE = (
    "#9a86e8", "#8396e6", "#63a3dc", "#4bb3c6", "#3fc3ae", "#52cf8d", "#85d66a", "#b5d84b", "#e0d03f", "#f5b13d",
)  # fmt: skip

STYLE = """
*{box-sizing:border-box}
html{font:16px/1.55 var(--sans);color:var(--ink-text);background:var(--ink-paper)}
body{max-width:62rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;letter-spacing:-.01em}
h2{font-size:1.25rem;line-height:1.3;margin:2.6rem 0 .6rem;padding-top:.7rem;border-top:1px solid var(--ink-line)}
h3{font-size:1rem;margin:1.8rem 0 .3rem}
p{margin:.5rem 0;max-width:46rem}
.question{font-size:1.12rem;color:var(--ink-muted)}
.answer{border-left:4px solid var(--ink-3);padding:.2rem 0 .2rem 1rem;margin:1.2rem 0}
.answer p{font-size:1.06rem}
.caution{border-left:4px solid var(--ink-2);padding:.1rem 0 .1rem 1rem;margin:1.2rem 0}
ul{padding-left:1.2rem;margin:.5rem 0;max-width:46rem}
li{margin:.3rem 0}
figure{margin:.4rem 0 1.6rem;break-inside:avoid}
figure svg{display:block;width:100%;height:auto}
figcaption,.small{font-size:.88rem;color:var(--ink-muted);max-width:46rem}
.wide{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-size:.8rem;line-height:1.4;font-variant-numeric:tabular-nums;min-width:60%}
th,td{padding:.26rem .5rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--ink-line)}
th{font-weight:600;vertical-align:bottom;border-bottom:1.5px solid var(--ink-muted)}
th span{display:block;font-weight:400;color:var(--ink-muted)}
td.word,th.word{text-align:left}
td.long{white-space:normal;min-width:11rem}
tr.held td{color:var(--ink-3)}
tr.out td{color:var(--ink-muted)}
tr.beyond td{font-style:italic}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.35rem 1.2rem;max-width:50rem;font-size:.94rem}
dt{font-weight:600}dd{margin:0}
code,pre{font:.86rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}
pre{background:var(--ink-shade);padding:.7rem .9rem;overflow-x:auto;border-radius:4px}
details summary{cursor:pointer;color:var(--ink-3)}
@media print{html{font-size:10pt}body{max-width:none;padding:0}.wide{overflow:visible}table{font-size:7pt}
th,td{padding:.15rem .35rem}h2{break-after:avoid}}
"""


def _variables(ink: dict[str, str], sequence: Sequence[str], shade: str) -> str:
    named = [f"--ink-{name}:{colour}" for name, colour in ink.items()]
    return ";".join([*named, *(f"--s{i}:{colour}" for i, colour in enumerate(sequence)), f"--ink-shade:{shade}"])


def document(title: str, body: Iterable[str], more_style: str = "") -> str:
    """The whole page. `body` is HTML, `title` text, `more_style` CSS. Printing takes the light colours."""
    light, dark = _variables(INK, SEQUENCE, "#f3f4f6"), _variables(DARK, DARK_SEQUENCE, "#1f2329")
    sans = "--sans:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif"
    style = f":root{{color-scheme:light dark;{sans};{light}}}"
    style += f"\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">\n<title>{text(title)}</title>\n'
        f"<style>{style}{STYLE}{more_style}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """A value as HTML text: escaped, and without characters that a browser obeys or hides."""
    return html.escape(printable(str(value)), quote=True)


def heading(title: str, level: int = 2) -> str:
    """A heading that can be linked to."""
    anchor = "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")
    return f'<h{level} id="{anchor}">{text(title)}</h{level}>'


def paragraphs(sentences: Iterable[str], css: str = "") -> str:
    """One paragraph per sentence, in a box where `css` names one."""
    inner = "".join(f"<p>{text(sentence)}</p>" for sentence in sentences)
    return f'<div class="{css}">{inner}</div>' if css else inner


def bullets(items: Iterable[str]) -> str:
    """A bulleted list."""
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Terms and what they mean."""
    return "<dl>" + "".join(f"<dt>{text(term)}</dt><dd>{text(meaning)}</dd>" for term, meaning in pairs) + "</dl>"


def table(
    heads: Sequence[tuple[str, str]], rows: Iterable[tuple[str, Sequence[str]]], text_columns: Sequence[int] = (0,)
) -> str:
    """A table. `heads` are (name, unit) pairs; `rows` (CSS class, cells); `text_columns` are set flush left."""
    top = "".join(
        f"<th{_text_cell(i, text_columns)}>{text(name)}{f'<span>{text(unit)}</span>' if unit else ''}</th>"
        for i, (name, unit) in enumerate(heads)
    )
    body = "".join(
        f"<tr{f' class={css!r}' if css else ''}>"
        + "".join(f"<td{_text_cell(i, text_columns, cell)}>{text(cell)}</td>" for i, cell in enumerate(cells))
        + "</tr>\n"
        for css, cells in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _text_cell(column: int, text_columns: Sequence[int], cell: str = "") -> str:
    """The class of a cell that is set flush left; long ones may wrap."""
    if column not in text_columns:
        return ""
    return ' class="word long"' if len(cell) > 24 else ' class="word"'


def code(lines: Iterable[str]) -> str:
    """Shell lines in a box."""
    return f"<pre>{text(chr(10).join(lines))}</pre>"


def folded(summary: str, inner: str, *, open_: bool) -> str:
    """A part that can be folded away."""
    return f"<details{' open' if open_ else ''}><summary>{text(summary)}</summary>{inner}</details>"
