"""A text as a heat map: one self-contained page on which up to three models read it side by side.

Every piece lies on a ground that says how likely it was, with a line below it that says the same without colour;
pointing at it shows token, nats, rank and what the model expected instead. Text and names are escaped.
"""

from collections.abc import Iterable, Sequence
from math import exp
from typing import TYPE_CHECKING

from lmscale.commands.score.models import Reading, ScoredModel
from lmscale.commands.score.show import octave, shortened
from lmscale.core.quantities import quantity
from lmscale.core.text import one_line
from lmscale.study.report.page import bullets, document, heading, paragraphs, table, text

if TYPE_CHECKING:
    from lmscale.lm.use.surprise import Piece, Span

SHOWN_TOKENS = 3_000
"""Tokens of the text on the page, so that it stays small."""
GROUNDS = (("#fff3bf", "#ffd57e", "#ffab73", "#ff8a80"), ("#3f3810", "#5f4708", "#803707", "#96152a"))
"""Grounds of the classes of surprise from 1 on, light and dark. Text of `TEXT` has a contrast of at least 7 on each."""
TEXT = ("#1c1e21", "#f4f5f7")
LINES = ("dotted 1px", "dashed 1px", "solid 2px", "double 4px")
"""Below a piece, by class: the same without colours."""
STYLE = """
body{max-width:96rem}
.readings{display:flex;flex-wrap:wrap;gap:1rem 1.6rem}
.reading{flex:1 1 20rem;min-width:0}
.heat{white-space:pre-wrap;overflow-wrap:anywhere;font:.9rem/1.75 ui-monospace,SFMono-Regular,Menlo,Consolas,
'DejaVu Sans Mono',monospace;color:var(--heat-text);
border:1px solid var(--ink-line);border-radius:4px;padding:.7rem .8rem}
.heat i{font-style:normal;opacity:.75}
.legend span{padding:.1rem .5rem;margin-right:.6rem;white-space:nowrap}
mark{background:none;color:inherit;font-weight:700;border-bottom:2px solid}
"""


def page(models: Sequence[ScoredModel], name: str, most_spans: int, remarks: Sequence[str] = ()) -> str:
    """The whole page about the text called `name`."""
    from lmscale.lm.use.surprise import surprising_spans

    readings = [(model, model.reading) for model in models if model.reading and model.reading.alternatives]
    plural = f"{len(models)} models" if len(models) > 1 else "a model"
    title = f"{one_line(name)} as read by {plural}"
    body = [heading(title, 1), paragraphs(_introduction(models[0].sums, readings), "answer"), _losses(models)]
    body += [bullets(remarks)] if remarks else []
    body += [heading("The text"), _legend(), '<div class="readings">']
    body += [_column(model, reading) for model, reading in readings]
    body += ["</div>", heading("Most surprising spans")]
    for model, reading in readings:
        body += [heading(_caption(model), 3), _spans(surprising_spans(reading.scored, most_spans))]
    body += [heading("Loss by context"), _positions(readings)]
    return document(title, body, _variables() + STYLE)


def _variables() -> str:
    light, dark = (
        f"--heat-text:{ink};" + ";".join(f"--heat-{i}:{ground}" for i, ground in enumerate(grounds, 1))
        for ink, grounds in zip(TEXT, GROUNDS)
    )
    classes = "".join(
        f".k{i}{{background:var(--heat-{i});border-bottom:{line} currentColor}}" for i, line in enumerate(LINES, 1)
    )
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{classes}"


def _introduction(sums: dict[str, object], readings: Sequence[tuple[ScoredModel, Reading]]) -> list[str]:
    documents = f"{sums['documents']:,} documents" if sums["documents"] != 1 else "one document"
    longest = max(reading.scored.tokens for _, reading in readings)
    return [
        f"{sums['bytes']:,} bytes of text, {documents}. Each token is predicted from those before it; a document "
        "begins after the end of another, as in training, and text longer than the context is read in windows that "
        "overlap by half.",
        *[f"The first {SHOWN_TOKENS:,} tokens are shown; losses and spans are of all."][: longest > SHOWN_TOKENS],
    ]


def _losses(models: Sequence[ScoredModel]) -> str:
    heads = [("model", ""), ("N", "parameters"), ("D", "training tokens"), ("tokens", ""), ("loss", "nats per token"),
             ("loss", "bits per token"), ("loss", "bits per byte")]  # fmt: skip
    rows = []
    for model in models:
        sums, trained = model.sums, model.training_tokens
        losses = [f"{sums[key]:.4f}" for key in ("loss_nats", "bits_per_token", "bits_per_byte")]
        cells = [str(model.folder), model.size, "-" if trained is None else quantity(trained)]
        rows.append(("", [*cells, f"{sums['tokens']:,}", *losses]))
    return table(heads, rows)


def _legend() -> str:
    from lmscale.lm.use.surprise import CLASSES

    samples = "".join(f'<span class="k{i}">{text(meaning)}</span>' for i, meaning in enumerate(CLASSES))
    return (
        f'<p class="legend heat">Probability of what is written, given what stands before: {samples}</p>'
        f'<p class="small">{text(chr(0x23CE))} is a newline, {text(chr(0x220E))} the end of a document. Pointing at a '
        "piece shows its tokens, their nats (-ln p), their rank among all tokens, and what the model expected.</p>"
    )


def _caption(model: ScoredModel) -> str:
    return f"{model.folder.name}: N = {model.size}, {model.sums['bits_per_byte']:.4f} bits per byte"


def _column(model: ScoredModel, reading: Reading) -> str:
    from lmscale.lm.use.surprise import pieces

    caption = _caption(model)
    inner = "".join(_piece(piece, reading) for piece in pieces(reading.scored, SHOWN_TOKENS))
    return (
        f'<section class="reading" aria-label="{text(caption)}">{heading(caption, 3)}'
        f'<div class="heat" dir="auto">{inner}</div></section>'
    )


def _piece(piece: "Piece", reading: Reading) -> str:
    css = f' class="k{piece.surprise}"' if piece.surprise else ""
    inner = text(piece.text).replace("\n", "<i>\u23ce</i>\n") if piece.text else "<i>\u220e</i>\n"
    title = "\n".join(_explained(token, reading) for token in range(piece.first, piece.last))
    beyond = "\n" if piece.text and piece.ends_document else ""  # its end is not scored
    return f'<span{css} title="{text(title)}">{inner}</span>{beyond}'


def _explained(token: int, reading: Reading) -> str:
    """What is known of one token: itself, its nats and rank, and what was likelier."""
    scored, others = reading.scored, reading.alternatives
    assert others is not None
    nats = f"{scored.nats_T[token]:.2f} nats, rank {others.rank_T[token]:,}"
    likeliest = ", ".join(
        f"{_token(other, reading)} {_percent(nats)}"
        for other, nats in zip(others.tokens_TK[token].tolist(), others.nats_TK[token].tolist())
    )
    return f"{_token(int(scored.tokens_T[token]), reading)}: {nats}; expected {likeliest}"


def _token(number: int, reading: Reading) -> str:
    """The text of a token in quotes, or its number where it is no text by itself."""
    tokenizer = reading.tokenizer
    if number == tokenizer.end_of_document:
        return "end of document"
    written = tokenizer.decode([number])
    return f"token {number}" if "\ufffd" in written or not written else repr(written)


def _percent(nats: float) -> str:
    return f"{exp(-nats):.1%}"


def _spans(spans: "Iterable[Span]") -> str:
    rows = "".join(
        f"<tr><td>{span.nats:.2f}</td><td>{span.tokens:,}</td><td>{span.line:,}</td>"
        f'<td class="word">{text(one_line(span.before))}<mark>{text(shortened(span.text))}</mark>'
        f"{text(one_line(span.after))}</td></tr>\n"
        for span in spans
    )
    top = '<th>nats</th><th>tokens</th><th>line</th><th class="word">text</th>'
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>\n{rows}</tbody></table></div>'


def _positions(readings: Sequence[tuple[ScoredModel, Reading]]) -> str:
    most = max(int(reading.scored.context_T.max()) for _, reading in readings)
    losses = [reading.scored.loss_by_position_nats for _, reading in readings]
    heads = [("tokens of context", ""), *((model.folder.name, "nats per token") for model, _ in readings)]
    rows = []
    for i in range(max(map(len, losses))):
        rows.append(("", [octave(i, most), *(f"{values[i]:.4f}" if i < len(values) else "-" for values in losses)]))
    return table(heads, rows)
