"""Where the results of a call go: rows and responses into the folders of runs, everything as JSON."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console

from lmscale.commands.answer import write_answer
from lmscale.commands.judge.arguments import JudgeArgs
from lmscale.commands.judge.sources import Texts, prompts_of
from lmscale.core.run_folder import SCORES_FILE
from lmscale.lm.eval.judge.rubric import Rubric
from lmscale.lm.eval.score_files import write_results

NOT_OF_RUNS = ("model",)
"""Columns that a run's own scores do not need: its run_id names it."""


def conditions(args: JudgeArgs, rubric: Rubric, *more: object) -> str:
    """A hash of everything that was the same for all texts: scores that share it can be compared."""
    prompts = prompts_of(args, rubric) if rubric.openings or args.prompts else []
    generation = prompts, args.max_tokens, args.text_temperature, args.n, args.seed
    return hashlib.sha256(json.dumps([rubric.hash, generation, *map(str, more)]).encode()).hexdigest()[:16]


def record(
    rows: Sequence[dict[str, Any]],
    texts: Texts,
    columns: dict[str, Any],
    responses: Callable[[str], Iterable[dict[str, Any]]],
    console: Console,
) -> None:
    """Write rows and responses into the folder of every run that was judged.

    `columns` stand in every row, `responses` are asked for by the name of an author. Raises `UserError` as
    `write_results` does.
    """
    folders = []
    for author in texts.authors:
        own = [row for row in rows if row["model"] == author.name]
        if author.folder is not None and own:
            stripped = [{k: v for k, v in row.items() if k not in NOT_OF_RUNS} | columns for row in own]
            write_results(author.folder, stripped, responses(author.name))
            folders.append(author.folder)
    if folders:
        where = folders[0] / SCORES_FILE if len(folders) == 1 else f"{SCORES_FILE} of {len(folders)} runs"
        console.print(f"the rows are in {where}, beside them every answer", markup=False)


def write_all(args: JudgeArgs, value: dict[str, Any]) -> None:
    """Write --json."""
    write_answer(args.json, value)


def judge_columns(args: JudgeArgs) -> dict[str, Any]:
    """The judge, as rows and JSON name it; the key is not there."""
    return {"judge": args.model, "samples": args.samples, "judge_temperature": args.temperature}
