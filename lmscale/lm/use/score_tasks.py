"""Benchmark tasks on the newest checkpoint of a run, what is measured inside of it, what retrieval is worth, and how
its own texts are judged."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core.config.exam import check_datastores, inside_spec, is_task, retrieval_spec
from lmscale.core.config.judge import judge_spec
from lmscale.core.errors import UserError
from lmscale.core.results import Outcome
from lmscale.core.run_folder import RESPONSES_FOLDER, SCORES_FILE
from lmscale.core.scores import best_measured, read_rows
from lmscale.lm.eval import lm_eval_adapter, task_eval
from lmscale.lm.eval.judge import exam as judge
from lmscale.lm.eval.measurement import Measurement
from lmscale.lm.eval.scorer import LMScorer
from lmscale.lm.eval.tasks import Score, Shots, Task
from lmscale.lm.inspect import exam as inside
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.retrieve import exam as retrieval
from lmscale.lm.use.load import Opened, open_run

if TYPE_CHECKING:
    from rich.console import Console


def score_run(
    folder: Path, tasks: Sequence[Task], shots: Sequence[Shots], most_items: int | None = None
) -> Iterator[task_eval.TaskResult]:
    """Score `tasks` on the newest checkpoint in the run folder, each at each of `shots`, one after the other.

    Writes the responses and the rows of `scores.jsonl`, where only rows of the same measurement are replaced
    (`core.scores.identity`). Raises `UserError` for a folder without a run or a checkpoint, and as
    `LMScorer.responses` does.
    """
    scorer, model_columns = newest_scorer(folder)
    yield from task_eval.evaluate(scorer, task_eval.first_items(tasks, most_items), shots, folder, model_columns)


def newest_scorer(folder: Path) -> tuple[LMScorer, dict[str, Any]]:
    """The model of the newest checkpoint in the run folder, and its `task_eval.model_columns`.

    Raises `UserError` for a folder without a run or a checkpoint.
    """
    opened = open_run(folder)
    config, params, tokenizer = opened.run
    return LMScorer(params, config.model, tokenizer, opened.mesh), _columns(folder, opened)


def _columns(folder: Path, opened: Opened) -> dict[str, Any]:
    """The columns about the model, with the loss of the outcome where the checkpoint is that of the run's end."""
    outcome, config = Outcome.read(folder), opened.run.config
    loss_nats = outcome.loss_nats if outcome is not None and opened.step == config.steps else None
    return task_eval.model_columns(config, opened.step, loss_nats)


def show(
    folder: Path,
    specs: Sequence[str],
    shots: Sequence[Shots],
    most_items: int | None,
    console: "Console",
    datastores: Sequence[int] = (),
) -> None:
    """Score the run in `folder` on what `specs` name, and print each row as soon as it is known.

    `datastores` are the sizes, in tokens, at which retrieval is measured. Raises `UserError` at the end where some of
    the scores could not be computed.
    """
    check_datastores(tuple(datastores), specs, "datastore_tokens")
    of_tasks = [spec for spec in specs if is_task(spec)]
    tasks = task_eval.load_tasks(of_tasks)
    task_eval.print_header(console)
    problems = []
    if tasks:
        for result in score_run(folder, tasks, shots, most_items):
            _print_scores(result.scores, task_eval.remarks(result), console)
            problems += [result.problem] * bool(result.problem)
    if any(inside_spec(spec) for spec in specs):
        problems += _show_inside(folder, specs, most_items, console)
    if any(retrieval_spec(spec) for spec in specs):
        problems += _show_retrieval(folder, specs, most_items, datastores, console)
    if any(judge_spec(spec) for spec in specs):
        problems += _show_judged(folder, specs, most_items, console)
    print_end(folder, console)
    if problems:
        raise UserError(f"{len(problems)} of the scores asked for could not be computed: {problems[0]}")


def _show_inside(folder: Path, specs: Sequence[str], most_items: int | None, console: "Console") -> list[str]:
    """Measure and print what `specs` ask for inside the model; why some of it has no scores."""
    opened = open_run(folder)
    config, params, tokenizer = opened.run
    parts, without = inside.parts_of(specs, config.model, tokenizer, most_items)
    for sentence in without:
        console.print(sentence, markup=False)
    subject = Subject(config, params, tokenizer, opened.mesh)
    return _show_measured(inside.evaluate(subject, parts, folder, _columns(folder, opened)), console)


def _show_retrieval(
    folder: Path, specs: Sequence[str], most_items: int | None, datastores: Sequence[int], console: "Console"
) -> list[str]:
    """Measure and print what `specs` ask for with retrieval; why some of it has no scores."""
    opened = open_run(folder)
    parts = retrieval.parts_of(specs, opened.run.config, most_items, datastores)
    subject = Subject(*opened.run, opened.mesh)
    return _show_measured(retrieval.evaluate(subject, parts, folder, _columns(folder, opened)), console)


def _show_judged(folder: Path, specs: Sequence[str], most_items: int | None, console: "Console") -> list[str]:
    """Judge and print what the run writes, as `specs` ask for; why some of it has no scores."""
    parts = judge.parts_of(specs, most_items)
    scorer, columns = newest_scorer(folder)
    return _show_measured(judge.evaluate(scorer, parts, folder, columns), console)


def _show_measured(measurements: Iterable[Measurement], console: "Console") -> list[str]:
    """Print each measurement as it comes; the problems among them."""
    problems = []
    for measurement in measurements:
        _print_scores(measurement.scores, measurement.sentences(), console)
        problems += [measurement.problem] * bool(measurement.problem)
    return problems


def _print_scores(scores: Iterable[Score], sentences: Iterable[str], console: "Console") -> None:
    for score in scores:
        task_eval.print_score(score, console)
    for sentence in sentences:
        console.print(f"  {sentence}", markup=False)


def print_end(folder: Path, console: "Console") -> None:
    """Where the results are, and which of several measurements of one score counts."""
    console.print(
        f"the rows are in {folder / SCORES_FILE}, every item's response in {folder / RESPONSES_FOLDER}", markup=False
    )
    for sentence in best_measured(read_rows(folder / SCORES_FILE))[1]:
        console.print(sentence, markup=False)


def show_lm_eval(
    folder: Path,
    specs: Sequence[str],
    shots: Sequence[int | None],
    most_items: int | None,
    seed: int,
    include: Path | None,
    console: "Console",
) -> None:
    """Score the run in `folder` on tasks of lm-evaluation-harness (`lm_eval_adapter.show`)."""
    manager = lm_eval_adapter.task_manager(specs, include)
    scorer, model_columns = newest_scorer(folder)
    lm_eval_adapter.show(scorer, model_columns, folder, specs, manager, shots, most_items, seed, console)
    print_end(folder, console)
