"""How a fit shows itself in a notebook: its warnings, the allocations as a table, and everything else folded below."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmscale.core.numerals import compact, number
from lmscale.core.text import printable

HEADS = ("C, FLOPs", "N*", "95 %", "D*", "95 %", "D*/N*", "95 %", "loss")


class Shown:
    """What `str` prints, as HTML: the first line, warnings, allocations, and the text in full."""

    def _repr_html_(self: Any) -> str:
        title, _, _ = str(self).partition("\n")
        warnings = [status.sentence for status in self.status if status.severity == "warning"]
        return (
            f"<p><strong>{_text(title)}</strong></p>"
            + (f"<ul>{''.join(f'<li>{_text(sentence)}</li>' for sentence in warnings)}</ul>" if warnings else "")
            + allocation_table(self.allocations())
            + f"<details><summary>parameters and checks</summary><pre>{_text(str(self))}</pre></details>"
        )


class Printed:
    """What `str` prints, as a notebook shows it: in columns, where the tables of the text stand straight."""

    def _repr_html_(self: Any) -> str:
        return f"<pre>{_text(str(self))}</pre>"


def allocation_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `allocations` as an HTML table; "" without any."""
    if not rows:
        return ""
    heads = "".join(f"<th>{head}</th>" for head in HEADS)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(map(_row, rows))}</tbody></table>"


def _row(row: Mapping[str, Any]) -> str:
    cells = [f"{row['flops']:.3g}"]
    for name, write in (("params", compact), ("tokens", compact), ("tokens_per_param", number)):
        cells += [write(row[name]), _span(row["intervals"], name, write)]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in (*cells, format(row['loss_nats'], '.4f')))}</tr>"


def _span(
    intervals: Mapping[str, Mapping[str, Sequence[float]]] | None, name: str, write: Callable[[float], str]
) -> str:
    if not intervals or not all(map(math.isfinite, ends := intervals["0.95"][name])):
        return "–"
    return f"{write(ends[0])} – {write(ends[1])}"


def _text(text: str) -> str:
    return html.escape(printable(text))
