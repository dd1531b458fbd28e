"""Tasks on the checkpoint of a run: every item's response kept, and one row of a table for every metric."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale import data
from lmscale.checkpoint import Checkpoints
from lmscale.config import RunConfig, check, from_json
from lmscale.counting import count
from lmscale.files import read_json, write_text
from lmscale.respond import Reader
from lmscale.results import CONFIG_FILE, SCORES_FILE, Outcome
from lmscale.sharding import make_mesh
from lmscale.step import make_step
from lmscale.tasks import Response, Score, Shots, Task, load, scores

if TYPE_CHECKING:
    from rich.console import Console

RESPONSES_FOLDER = "responses"


@dataclass(frozen=True)
class Examination:
    """One task at one number of shots."""

    task: Task
    scores: list[Score]
    responses: list[Response]
    seconds: float
    """Of reading and writing, compilation included."""


def examine(
    folder: Path, tasks: Sequence[Task], shots: Sequence[Shots], most_items: int | None = None
) -> Iterator[Examination]:
    """Score `tasks` on the newest checkpoint in the run folder, each at each of `shots`, one after the other.

    Writes `responses/TASK-SHOTS.jsonl` and the rows of `scores.jsonl`, where rows of the same task, metric and shots
    are replaced. Raises `UserError` for a folder without a run or a checkpoint, and as `Reader.responses` does.
    """
    config = from_json(RunConfig, read_json(folder / CONFIG_FILE, "run configuration"), where=str(folder / CONFIG_FILE))
    reader, step = _reader(config, folder)
    where = _scale(config, folder, step)
    for task in tasks:
        chosen = task if most_items is None else replace(task, items=task.items[:most_items])
        for one in shots:
            start = time.perf_counter()
            responses = reader.responses(chosen, one)
            seconds = time.perf_counter() - start
            found = scores(chosen, responses, one.count)
            _write(folder, task.name, one, responses, [{**where, **asdict(score)} for score in found])
            yield Examination(chosen, found, responses, seconds)


def show(
    folder: Path, specs: Sequence[str], shots: Sequence[Shots], most_items: int | None, console: "Console"
) -> None:
    """Examine the run in `folder` on the tasks that `specs` name, and print a table as it goes."""
    tasks = [task for spec in specs for task in load(spec)]
    columns = "{:34} {:>5}  {:24} {:>9} {:>9} {:>8} {:>6}"
    console.print(columns.format("task", "shots", "metric", "score", "± s.e.", "chance", "n"), style="bold")
    for found in examine(folder, tasks, shots, most_items):
        for score in found.scores:
            numbers = (f"{score.score:.4f}", _number(score.stderr), _number(score.chance), f"{score.n:,}")
            console.print(columns.format(score.task, score.shots, score.metric, *numbers), markup=False)
        for sentence in _sentences(found):
            console.print(f"  {sentence}", markup=False)
    console.print(f"the rows are in {folder / SCORES_FILE}, every item's response in {folder / RESPONSES_FOLDER}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _sentences(found: Examination) -> Iterator[str]:
    items = len(found.task.items)
    yield f"{items:,} items in {found.seconds:.1f} s, {items / found.seconds:,.0f} per second, compilation included"
    if cut := [response for response in found.responses if response.tokens_cut]:
        most = max(response.tokens_cut for response in cut)
        yield f"{len(cut):,} prompts do not fit the context and lost their left end, at most {most:,} tokens"
    if found.task.left_out:
        yield f"not computed: {', '.join(found.task.left_out)}"


def _reader(config: RunConfig, folder: Path) -> tuple[Reader, int]:
    """The model of the newest checkpoint, and its step."""
    mesh = make_mesh(config.mesh)
    checkpoints = Checkpoints(folder, config.run_id)
    state, _, skipped = checkpoints.restore(make_step(config, mesh).state)
    checkpoints.close()
    for sentence in skipped:
        print(sentence)
    check(state is not None, f"{folder} has no checkpoint to examine; train the run with keep_checkpoint=True")
    encoder = data.encoder(data.prepare(config.data).manifest)
    return Reader(state.validated, config.model, encoder, mesh), int(state.step)


def _scale(config: RunConfig, folder: Path, step: int) -> dict[str, Any]:
    """What every row says of the model, as `lmscale emergence` reads it.

    `loss` is the final validation loss, nats per token, where the run has ended.
    """
    outcome, counts = Outcome.read(folder), count(config)
    return {
        "run_id": config.run_id,
        "step": step,
        "params": counts.params,
        "tokens": step * config.batch_tokens,
        "flops": counts.flops * step / config.steps,
        "loss": outcome.loss_nats if outcome is not None and step == config.steps else None,
    }


def _write(folder: Path, task: str, shots: Shots, responses: list[Response], rows: list[dict[str, Any]]) -> None:
    place = folder / RESPONSES_FOLDER
    place.mkdir(exist_ok=True)
    _write_lines(place / f"{task.replace(':', '.').replace('/', '.')}-{shots.count}.jsonl", map(asdict, responses))
    file = folder / SCORES_FILE
    known = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    new = {_key(row) for row in rows}
    _write_lines(file, [row for row in known if _key(row) not in new] + rows)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["step"], row["task"], row["metric"], row["shots"]


def _write_lines(file: Path, rows: Any) -> None:
    write_text(file, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
