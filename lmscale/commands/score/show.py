"""A scored text on the terminal: its sums, the text coloured by surprise, the spans that stand out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmscale.commands.console import print_whole
from lmscale.commands.score.models import ScoredModel
from lmscale.core.quantities import quantity
from lmscale.core.text import one_line, printable

if TYPE_CHECKING:
    from lmscale.lm.use.score_text import ScoredText
    from lmscale.lm.use.surprise import Span

SHOWN_TOKENS = 2_000
"""Tokens of the text that are shown; a page shows more."""
STYLES = (
    "",
    "black on #fff1b8",
    "black on #ffd27f",
    "underline black on #ffa66b",
    "bold underline white on #b3261e",
)
"""Styles by class of surprise: the darker the ground the less likely, with lines where there are no colours."""
LONGEST_SPAN = 60
"""Characters of a span that are listed."""
END = "<end of document>"


def show(models: Sequence[ScoredModel], most_spans: int, remarks: Sequence[str], console: Console) -> None:
    """Print the losses and, of the models that are shown, the text (on a terminal) and its most surprising spans."""
    from lmscale.lm.use.surprise import surprising_spans

    print_whole(loss_table(models), console)
    for remark in remarks:
        console.print(remark, markup=False)
    if console.is_terminal:
        console.print(legend())
    for model in models:
        if model.reading is None:
            continue
        scored = model.reading.scored
        console.print()
        updates = "" if model.step is None else f", after {model.step:,} updates"
        console.print(f"{model.folder}{updates}", markup=False)
        console.print(_positions(scored), markup=False)
        if console.is_terminal:
            console.print(coloured(scored))
        _print_spans(surprising_spans(scored, most_spans), console)


def loss_table(models: Sequence[ScoredModel]) -> Table:
    """One row per model, in order of scale."""
    sums = models[0].sums
    table = Table(
        title=f"{sums['tokens']:,} tokens, {sums['bytes']:,} bytes" if len({m.sums["tokens"] for m in models}) == 1
        else f"{sums['bytes']:,} bytes",
        title_justify="left",
    )  # fmt: skip
    table.add_column("run", overflow="fold")
    for head in ("N", "D", "nats/token", "bits/token", "bits/byte"):
        table.add_column(head, justify="right")
    for model in models:
        sums = model.sums
        trained = "-" if model.training_tokens is None else quantity(model.training_tokens)
        losses = (f"{sums[name]:.4f}" for name in ("loss_nats", "bits_per_token", "bits_per_byte"))
        table.add_row(Text(printable(str(model.folder))), model.size, trained, *losses)
    return table


def legend() -> Text:
    """What the colours mean."""
    from lmscale.lm.use.surprise import CLASSES

    text = Text("probability of what is written, given what stands before: ")
    for style, meaning in zip(STYLES, CLASSES):
        text.append(f" {meaning} ", style).append("  ")
    return text


def coloured(scored: "ScoredText", tokens: int = SHOWN_TOKENS) -> Text:
    """The first `tokens` tokens of the text, each piece on the ground of its class."""
    from lmscale.lm.use.surprise import pieces

    text, seen = Text(overflow="fold"), 0
    for piece in pieces(scored, tokens):
        text.append(printable(piece.text) if piece.text else "\u220e\n", STYLES[piece.surprise])
        text.append("\n" if piece.text and piece.ends_document else "")  # its end is not scored
        seen = piece.last
    if seen < scored.tokens:
        text.append(f"\n... {scored.tokens - seen:,} more tokens are scored and not shown", "dim")
    return text


def _positions(scored: "ScoredText") -> str:
    most = int(scored.context_T.max())
    parts = [f"{octave(i, most)}: {loss:.3f}" for i, loss in enumerate(scored.loss_by_position_nats)]
    return f"nats per token by tokens of context: {', '.join(parts)}"


def octave(i: int, most: int) -> str:
    """The numbers of tokens, at most `most`, that are averaged together."""
    last = min(2 ** (i + 1) - 1, most)
    return str(last) if last == 2**i else f"{2**i}-{last}"


def _print_spans(spans: "Sequence[Span]", console: Console) -> None:
    if not spans:
        return
    table = Table(title="most surprising spans", title_justify="left", box=None)
    for head in ("nats", "tokens", "line"):
        table.add_column(head, justify="right")
    table.add_column("text", overflow="fold")
    for span in spans:
        marked = f"{one_line(span.before)}[{shortened(span.text)}]{one_line(span.after)}"
        table.add_row(f"{span.nats:.2f}", str(span.tokens), str(span.line), Text(marked))
    console.print(table)


def shortened(text: str) -> str:
    """A span's text in a line."""
    line = one_line(text) if text else END
    return line if len(line) <= LONGEST_SPAN else f"{line[: LONGEST_SPAN - 3]}..."
