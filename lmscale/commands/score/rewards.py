"""`lmscale score` with a reward model: the reward of every answer of a file of JSON lines."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lmscale.commands.answer import is_standard_output, write_answer
from lmscale.commands.console import print_whole
from lmscale.commands.score.arguments import ScoreArgs
from lmscale.commands.score.text_file import read_text_file
from lmscale.core.config import DataConfig, check
from lmscale.core.errors import UserError
from lmscale.core.files import parse_json

SHOWN = 40
"""Lines whose rewards are shown; --json has all."""


def main(args: ScoreArgs, run: Path, path: str, console: Console) -> None:
    """Score and show. Raises `UserError` for lines that are no records of the run's data, and for what it cannot do."""
    check(
        args.html is None and not args.tokens,
        f"{run} is a reward model, which gives one number for an answer and none for its tokens; leave out --html and "
        f"--tokens",
    )
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.lm.use.load import open_run
    from lmscale.lm.use.score_answers import score_answers

    opened = open_run(run, args.step)
    lines = read_text_file(path, "lines")
    asked = [record_of(text, number, opened.run.config.data) for text, number in zip(lines.documents, lines.lines)]
    rewards = score_answers(opened.run, asked, opened.mesh)
    value = {"run": str(run), "step": opened.step, **summary(lines.lines, rewards)}
    write_answer(args.json, value)
    if is_standard_output(args.json):
        return
    show(value, console)
    if args.json is not None:
        console.print(f"{args.json}: written", markup=False, highlight=False)


def record_of(text: bytes, number: int, data: DataConfig) -> Any:
    """The prompt of a line with its answer, or with both of a pair. Raises `UserError`."""
    from lmscale.lm.data.corpora.records import Problem
    from lmscale.lm.data.corpora.writers import prompt_and_answers
    from lmscale.lm.use.score_answers import Asked

    try:
        record = parse_json(text)
    except ValueError:
        record = None
    check(
        isinstance(record, dict),
        f"line {number:,} is no JSON object; a reward model reads JSON lines with the fields of its data",
    )
    try:
        prompt, *answers = prompt_and_answers(data, record)
    except Problem as problem:
        raise UserError(f"line {number:,} is a record {problem.problem}{problem.detail}") from None
    return Asked(prompt, answers, f"line {number:,}")


def summary(lines: list[int], rewards: list[list[float]]) -> dict[str, Any]:
    """What `--json` writes: the rewards of every line, and how often the chosen answer of a pair has the higher one."""
    rows = [
        {"line": line, "reward": own[0], **({"rejected_reward": own[1]} if len(own) > 1 else {})}
        for line, own in zip(lines, rewards)
    ]
    margins = [own[0] - own[1] for own in rewards if len(own) > 1]
    right = sum((margin > 0) + (margin == 0) / 2 for margin in margins)
    pairs = {"pairs": len(margins), "accuracy": right / len(margins)} if margins else {}
    return {"answers": rows, "mean_reward": sum(own[0] for own in rewards) / len(rewards), **pairs}


def show(value: dict[str, Any], console: Console) -> None:
    """The rewards line by line, then their mean and, of pairs, the accuracy."""
    rows, names = value["answers"], ["line", "reward"]
    if any("rejected_reward" in row for row in rows):
        names.append("rejected_reward")
    table = Table(title=f"rewards by {value['run']}, after {value['step']:,} updates", title_justify="left")
    for name in names:
        table.add_column(name.replace("rejected_reward", "of the rejected"), justify="right")
    for row in rows[:SHOWN]:
        cells = (f"{row[name]:.4f}" if name in row else "" for name in names[1:])
        table.add_row(f"{row['line']:,}", *cells)
    print_whole(table, console)
    if len(rows) > SHOWN:
        console.print(f"... {len(rows) - SHOWN:,} more lines: --json FILE writes all")
    accuracy = f", the chosen answer of {value['accuracy']:.1%} of {value['pairs']:,} pairs is preferred"
    console.print(f"mean reward {value['mean_reward']:.4f}{accuracy if 'accuracy' in value else ''}")
