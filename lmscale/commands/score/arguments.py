"""The arguments of `lmscale score`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class ScoreArgs:
    """Score any text under a trained run: nats and bits per token, bits per byte, and where the text surprises.

    A text is read as in training: its first token is predicted from the end of a document, and its own end is predicted
    too, a token of zero bytes. One longer than the context is read in windows that overlap by half, so that every token
    is predicted once, from all tokens before it or from more than half a context.

    Of a reward model FILE is JSON lines with the fields of its data, a prompt and an answer or a pair of them; what
    each answer is worth is shown, and how often the chosen one is preferred.
    """

    run: Positional[str]
    """The run's folder, runs/<sweep>/<run_id>; with --sweep, the text."""
    file: Positional[str | None] = None
    """The text: a UTF-8 file, or - for standard input."""
    further: Positional[tuple[str, ...]] = ()
    """RUN RUN ... FILE scores with several runs: all arguments but the last are runs."""
    sweep: Path | None = None
    """Score with every run of runs/NAME that has a checkpoint; show the smallest, the middle and the largest."""
    documents: Literal["file", "lines"] = "file"
    """Read the file as one document, or every line that is not empty as a document of its own."""
    end: bool = True
    """Score the end of every document, as the validation loss does; --no-end is for a text that goes on."""
    html: Path | None = None
    """Write a self-contained page: the beginning of the text, coloured by surprise, by up to three models side by
    side."""
    json: Path | None = None
    """Write loss_nats, bits_per_token, bits_per_byte, tokens, bytes, loss_by_position_nats, lines and spans; of
    several models as a list (- or no file: to standard output, alone)."""
    tokens: bool = False
    """With --json, write also the surprisal of every token, its id and from how many tokens it was predicted."""
    spans: int = 10
    """List this many of the most surprising spans."""
    step: int | None = None
    """Checkpoint after this many updates; by default the newest."""
