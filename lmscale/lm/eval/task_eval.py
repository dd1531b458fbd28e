"""Task evaluation: every item's response and a row for every metric, written into the folder of a run."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core.config import RunConfig
from lmscale.core.counting import count
from lmscale.lm.devices.distributed import is_main
from lmscale.lm.eval.score_files import being_scored, conditions_of, write_results
from lmscale.lm.eval.scorer import LMScorer
from lmscale.lm.eval.tasks import NotFinite, Response, Score, Shots, Task, load, scores

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = "{:34} {:>5}  {:24} {:>9} {:>9} {:>8} {:>6}"


@dataclass(frozen=True)
class TaskResult:
    """One task at one number of shots."""

    task: Task
    scores: list[Score]
    responses: list[Response]
    seconds: float
    """Time to read and generate, compilation included."""
    problem: str = ""
    """Why there are no scores, where the model's responses are no numbers."""


def load_tasks(specs: Sequence[str]) -> list[Task]:
    """The tasks that `specs` name. A name that several sources share gets its source, so that all rows are kept."""
    tasks = [(spec, task) for spec in dict.fromkeys(specs) for task in load(spec)]
    sources = Counter(name for _, name in {(spec, task.name) for spec, task in tasks})
    return [task if sources[task.name] == 1 else replace(task, name=f"{task.name} of {spec}") for spec, task in tasks]


def first_items(tasks: Iterable[Task], most: int | None) -> list[Task]:
    """The tasks with their first `most` items, or with all."""
    return [task if most is None else replace(task, items=task.items[:most]) for task in tasks]


def evaluate(
    scorer: LMScorer, tasks: Iterable[Task], shots: Sequence[Shots], folder: Path, model_columns: dict[str, Any]
) -> Iterator[TaskResult]:
    """Evaluate every task at every number of shots; a result is on disk when it is yielded.

    `model_columns` stand in every row of the scores.
    """
    parts = [(task, shot) for task in tasks for shot in shots]
    for number, (task, shot) in enumerate(parts, 1):
        with being_scored(folder, task.name, number, len(parts)) if is_main() else nullcontext():
            result = _result(scorer, task, shot)
            if is_main():
                measured = conditions_of(task, shot)
                rows = [{**model_columns, **asdict(score), **measured} for score in result.scores]
                write_results(folder, rows, map(asdict, result.responses))
        yield result


def _result(scorer: LMScorer, task: Task, shots: Shots) -> TaskResult:
    start = time.perf_counter()
    responses = scorer.responses(task, shots)
    seconds = time.perf_counter() - start
    try:
        return TaskResult(task, scores(task, responses, shots.count), responses, seconds)
    except NotFinite as error:
        return TaskResult(task, [], responses, seconds, str(error))


def model_columns(config: RunConfig, step: int, loss_nats: float | None) -> dict[str, Any]:
    """The columns about the model that `lmscale emergence` reads: which run, how large, how far trained.

    `loss` is the validation loss at that step, nats per token, where it was measured; that of pairs of answers is
    no such loss.
    """
    counts = count(config)
    return {
        "run_id": config.run_id,
        "step": step,
        "params": counts.params,
        "active_params": counts.active_params,
        "tokens": step * config.batch_tokens,
        "flops": counts.flops * step / config.steps,
        "loss": None if config.data.pairs else loss_nats,
    }


def print_header(console: "Console") -> None:
    """The names of the columns that `print_score` fills."""
    console.print(COLUMNS.format("task", "shots", "metric", "score", "± s.e.", "chance", "n"), style="bold")


def print_score(score: Score, console: "Console") -> None:
    """One row of the printed table."""
    numbers = (f"{score.score:.4f}", _number(score.stderr), _number(score.chance), f"{score.n:,}")
    console.print(COLUMNS.format(score.task, score.shots, score.metric, *numbers), markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def remarks(result: TaskResult) -> Iterator[str]:
    """What to know about a result besides its scores: speed, prompts cut, metrics not computed."""
    if result.problem:
        yield f"not scored: {result.problem}"
    items = len(result.task.items)
    yield f"{items:,} items in {result.seconds:.1f} s, {items / result.seconds:,.0f} per second, compilation included"
    if cut := [response.tokens_cut for response in result.responses if response.tokens_cut]:
        yield f"{len(cut):,} prompts do not fit the context and lost their left end, at most {max(cut):,} tokens"
    if result.task.left_out:
        yield f"not computed: {', '.join(result.task.left_out)}"
