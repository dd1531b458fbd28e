"""`lmscale ask`: a question answered from an index. Importing this loads nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from lmscale.commands.answer import is_standard_output, write_answer
from lmscale.commands.next_step import print_next, repeat
from lmscale.core.config import check
from lmscale.core.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.lm.use.ask import Answer

SHOWN = 160
"""Characters of a passage that are shown."""


@dataclass(frozen=True)
class AskArgs:
    """Answer a question from the passages of an index that are nearest to it, and cite them."""

    run: Positional[Path]
    """The folder of the run that made the index, runs/<sweep>/<run_id>."""
    index: Positional[Path]
    """The folder of the index, as `lmscale index` wrote it."""
    question: Positional[str]
    """The question, or - for standard input."""
    passages: int = 4
    """How many passages are retrieved; as many of the nearest are read as fit into the context."""
    max_tokens: int | None = None
    """Tokens of the answer, at most; by default 128, or a quarter of a short context."""
    temperature: float = 0.0
    """Logits are divided by it; 0 takes the likeliest token each time."""
    seed: int = 0
    """Seed of the draws."""
    exact: bool = False
    """Compare the question with every vector, though the index has a graph."""
    step: int | None = None
    """Checkpoint after this many updates; by default the newest."""
    json: Path | None = None
    """Write question, answer and passages here (- or no file: to standard output, alone)."""


def main(args: AskArgs, console: "Console") -> None:
    """Answer and print.

    Raises `UserError` for a folder without a whole index, for an index that another run made, and for a question that
    is empty or too long.
    """
    from lmscale.commands.score.text_file import text_or_standard_input

    question = text_or_standard_input(args.question)
    check(bool(question.strip()), "the question is empty; ask something")
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.lm.use.ask import AskSettings, ask_run
    from lmscale.lm.use.sampling import Sampling

    settings = AskSettings(
        args.passages, args.max_tokens, Sampling(temperature=args.temperature), args.seed, args.exact
    )
    answer = ask_run(args.run, args.index, question, settings, args.step)
    write_answer(args.json, answer.to_json())
    if is_standard_output(args.json):
        return
    show(answer, console)
    if args.json is None:
        print_next(*repeat("--json", "answer.json"), stderr=True)
    else:
        print_next("sample", args.run, stderr=True)


def show(answer: "Answer", console: "Console") -> None:
    """Print the answer with its citations, what each number stands for, and what was read."""
    cited = {number for sentence in answer.sentences for number in sentence.passages}
    text = " ".join(map(str, answer.sentences)) or "(the run wrote nothing)"
    console.print(text, markup=False, highlight=False)
    if answer.sentences and not cited:
        console.print("no sentence of it rests on a passage", markup=False, style="dim")
    console.print()
    for number, passage in enumerate(answer.passages, 1):
        mark = "cited" if number in cited else "read"
        beginning = one_line(passage.text.strip())[:SHOWN]
        console.print(
            f"[{number}] {passage.source}, similarity {passage.score:.3f}, {mark}: {beginning}",
            markup=False, highlight=False,
        )  # fmt: skip
    console.print(f"{answer.fit}; {answer.flops:.3g} FLOPs", markup=False, style="dim")
