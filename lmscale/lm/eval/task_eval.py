"""Tasks on a model: every item's response, and a row for every metric, written into the folder of its run."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jax.sharding import Mesh

from lmscale.core.config import ExamConfig, RunConfig
from lmscale.core.counting import count
from lmscale.core.files import write_text
from lmscale.core.run_folder import RESPONSES_FOLDER, SCORES_FILE
from lmscale.lm import data
from lmscale.lm.devices.distributed import is_main
from lmscale.lm.eval.scorer import Reader
from lmscale.lm.eval.tasks import Response, Score, Shots, Task, load, scores
from lmscale.lm.model.parameters import Params

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = "{:34} {:>5}  {:24} {:>9} {:>9} {:>8} {:>6}"


@dataclass(frozen=True)
class Examination:
    """One task at one number of shots."""

    task: Task
    scores: list[Score]
    responses: list[Response]
    seconds: float
    """Of reading and writing, compilation included."""


class Examiner:
    """Scores runs that share a program on the tasks that their configurations ask for, while they train."""

    def __init__(self, configs: Sequence[RunConfig], manifest: data.Manifest, mesh: Mesh) -> None:
        """Raises `UserError` for tasks that cannot be read, before anything is compiled."""
        self._tasks = {exam: _tasks(exam) for exam in {config.exam for config in configs}}
        self._manifest, self._mesh = manifest, mesh
        self._reader: Reader | None = None

    def score(self, config: RunConfig, folder: Path, params: Params, step: int, loss_nats: float | None) -> None:
        """Score the model of a run after `step` steps and keep what was found in its folder.

        Several processes call it together; the first writes.
        """
        if self._reader is None:
            self._reader = Reader(params, config.model, data.load_tokenizer(self._manifest), self._mesh)
        self._reader.params = params
        shots = [Shots(count, config.exam.seed, config.exam.draw) for count in config.exam.shots]
        for _ in scored(self._reader, self._tasks[config.exam], shots, folder, scale(config, step, loss_nats)):
            pass


def _tasks(exam: ExamConfig) -> list[Task]:
    return cut(loaded(exam.tasks), exam.items)


def loaded(specs: Sequence[str]) -> list[Task]:
    """The tasks that `specs` name. A name that several of them have says of which it is, so that all rows are kept."""
    loaded = [(spec, task) for spec in dict.fromkeys(specs) for task in load(spec)]
    count = Counter(name for _, name in {(spec, task.name) for spec, task in loaded})
    return [task if count[task.name] == 1 else replace(task, name=f"{task.name} of {spec}") for spec, task in loaded]


def cut(tasks: Iterable[Task], most_items: int | None) -> list[Task]:
    """The tasks with their first items only."""
    return [task if most_items is None else replace(task, items=task.items[:most_items]) for task in tasks]


def scored(
    reader: Reader, tasks: Iterable[Task], shots: Sequence[Shots], folder: Path, where: dict[str, Any]
) -> Iterator[Examination]:
    """Every task at every number of shots; what comes out is on disk. `where` stands in every row of the scores."""
    for task in tasks:
        for one in shots:
            start = time.perf_counter()
            responses = reader.responses(task, one)
            seconds = time.perf_counter() - start
            found = scores(task, responses, one.count)
            if is_main():
                keep(folder, task.name, one.count, map(asdict, responses), [{**where, **asdict(x)} for x in found])
            yield Examination(task, found, responses, seconds)


def say_header(console: "Console") -> None:
    """The names of the columns that `say` fills."""
    console.print(COLUMNS.format("task", "shots", "metric", "score", "± s.e.", "chance", "n"), style="bold")


def say(score: Score, console: "Console") -> None:
    """One row of the printed table."""
    numbers = (f"{score.score:.4f}", _number(score.stderr), _number(score.chance), f"{score.n:,}")
    console.print(COLUMNS.format(score.task, score.shots, score.metric, *numbers), markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def sentences(found: Examination) -> Iterator[str]:
    items = len(found.task.items)
    yield f"{items:,} items in {found.seconds:.1f} s, {items / found.seconds:,.0f} per second, compilation included"
    if cut := [response for response in found.responses if response.tokens_cut]:
        most = max(response.tokens_cut for response in cut)
        yield f"{len(cut):,} prompts do not fit the context and lost their left end, at most {most:,} tokens"
    if found.task.left_out:
        yield f"not computed: {', '.join(found.task.left_out)}"


def scale(config: RunConfig, step: int, loss_nats: float | None) -> dict[str, Any]:
    """What every row says of the model, as `lmscale emergence` reads it.

    `loss` is the validation loss there, nats per token, where it was measured.
    """
    counts = count(config)
    return {
        "run_id": config.run_id,
        "step": step,
        "params": counts.params,
        "tokens": step * config.batch_tokens,
        "flops": counts.flops * step / config.steps,
        "loss": loss_nats,
    }


def keep(folder: Path, task: str, shots: int, responses: Iterable[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Write the responses to a task, and its rows of the scores in the place of those it had at that step."""
    place = folder / RESPONSES_FOLDER
    place.mkdir(exist_ok=True)
    _write_lines(place / f"{task.replace(':', '.').replace('/', '.')}-{shots}.jsonl", responses)
    file = folder / SCORES_FILE
    known = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    new = {_key(row) for row in rows}
    _write_lines(file, [row for row in known if _key(row) not in new] + rows)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["step"], row["task"], row["metric"], row["shots"]


def _write_lines(file: Path, rows: Any) -> None:
    write_text(file, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
