"""`lmscale eval`: benchmark tasks, scored on a run's checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional, UseAppendAction

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next
from lmscale.core.config import check
from lmscale.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.lm.use.best_of_n import Choice


@dataclass(frozen=True)
class EvalArgs:
    """Score benchmark tasks on the checkpoint of a run."""

    run: Positional[Path]
    """The folder of a run, runs/<sweep>/<run_id>."""
    tasks: Positional[tuple[str, ...]]
    """FORMAT:PATH, with FORMAT one of bigbench, mmlu, truthfulqa, wic, gsm8k, stories or task (a JSON file of your
    own); or synthetic:tasks(...). Nothing is downloaded. inside:heads, inside:context and inside:neurons(TASKS) measure
    induction heads, what the context saves, and the share of neurons that each of TASKS uses. retrieval:knn and
    retrieval:passages measure the loss with a datastore, retrieval:docstrings how docstrings are retrieved by the
    bodies of functions. judge:offline and judge:grades(server=URL, model=NAME) score what the run writes. With
    --harness: the harness's tasks by name, or YAML files."""
    harness: bool = False
    """Let lm-evaluation-harness ask and score its tasks: pip install 'lmscale[lm-eval]'."""
    include_path: Path | None = None
    """Folder of further tasks for the harness."""
    shots: UseAppendAction[tuple[int, ...]] = ()
    """Worked examples before every question, one table row for each number; by default none, or with --harness as many
    as the task says."""
    draw: Literal["shared", "each"] = "shared"
    """Use the same examples for all questions of a task, or draw them for each."""
    seed: int = 0
    """Seed for drawing the examples, and the answers of --best-of."""
    items: int | None = None
    """Score only this many items of every task, from the first on."""
    datastore_tokens: UseAppendAction[tuple[int, ...]] = ()
    """Sizes of the datastore of retrieval:knn and retrieval:passages, one table row for each; by default 0, 4,096, four
    times as many, ..., and the whole text."""
    best_of: UseAppendAction[tuple[int, ...]] = ()
    """Instead of greedy answers, draw several and take the best of n by --reward, for each n; one table row for each,
    with the KL of the choice from the model."""
    reward: str = "checker"
    """What chooses the best answer: `checker` (1 for a right answer, else 0), or the folder of a reward model's run."""
    answers: int | None = None
    """Answers drawn to every item with --best-of; by default twice the largest n."""
    json: Path | None = None
    """Write the rows of this call, as scores.jsonl has them, here (- or no file: to standard output, alone)."""


def main(args: EvalArgs, console: "Console") -> None:
    """Score and print. Raises `UserError` for a run without a checkpoint and for a task that cannot be read."""
    _check(args)
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.core.run_folder import PLAN_FILE, SCORES_FILE
    from lmscale.lm.eval.score_files import rows_written

    problem: UserError | None = None
    with rows_written() as rows:
        try:
            _score(args, console)
        except UserError as error:  # of some of the scores; the others are written
            problem = error
    if rows:
        write_answer(args.json, {"run": str(args.run), "scores": rows, "problem": str(problem) if problem else None})
    if problem is not None:
        raise problem
    if (args.run.parent / PLAN_FILE).is_file():
        print_next("table", args.run.parent, "--scores")
    else:
        print_next("emergence", args.run / SCORES_FILE)


def _score(args: EvalArgs, console: "Console") -> None:
    from lmscale.lm.eval.tasks import Shots
    from lmscale.lm.use import best_of_n, score_tasks

    if args.harness:
        shots = args.shots or (None,)
        score_tasks.show_lm_eval(args.run, args.tasks, shots, args.items, args.seed, args.include_path, console)
    else:
        drawn = [Shots(count, args.seed, args.draw) for count in args.shots or (0,)]
        if args.best_of:
            best_of_n.show(args.run, args.tasks, drawn, args.items, _choice(args), console)
        else:
            score_tasks.show(args.run, args.tasks, drawn, args.items, console, args.datastore_tokens)


def _check(args: EvalArgs) -> None:
    """Raise `UserError` for options that contradict each other."""
    check(
        not (args.harness and args.best_of),
        "--best-of draws the answers itself, which the harness does not; leave one of --harness and --best-of out",
    )
    check(
        not args.datastore_tokens or not (args.harness or args.best_of),
        "--datastore-tokens is of retrieval:knn and retrieval:passages; leave it out with --harness and --best-of",
    )
    check(
        bool(args.best_of) or (args.reward == "checker" and args.answers is None),
        "--reward and --answers say which answer is the best of n; add --best-of N, or leave them out",
    )


def _choice(args: EvalArgs) -> "Choice":
    from lmscale.lm.use.best_of_n import Choice

    answers = 2 * max(args.best_of) if args.answers is None else args.answers
    reward = None if args.reward == "checker" else Path(args.reward)
    return Choice(tuple(dict.fromkeys(args.best_of)), answers, args.seed, reward)
