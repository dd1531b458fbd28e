"""Benchmark tasks on the newest checkpoint of a run."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core.config import RunConfig, check, from_json
from lmscale.core.files import read_json
from lmscale.core.results import Outcome
from lmscale.core.run_folder import CONFIG_FILE, RESPONSES_FOLDER, SCORES_FILE
from lmscale.lm import data
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.eval import lm_eval_adapter
from lmscale.lm.eval.scorer import Reader
from lmscale.lm.eval.task_eval import Examination, cut, loaded, say, say_header, scale, scored, sentences
from lmscale.lm.eval.tasks import Shots, Task
from lmscale.lm.train.checkpoint import Checkpoints
from lmscale.lm.train.step import make_step

if TYPE_CHECKING:
    from rich.console import Console


def examine(
    folder: Path, tasks: Sequence[Task], shots: Sequence[Shots], most_items: int | None = None
) -> Iterator[Examination]:
    """Score `tasks` on the newest checkpoint in the run folder, each at each of `shots`, one after the other.

    Writes `responses/TASK-SHOTS.jsonl`, of the last step that was scored, and the rows of `scores.jsonl`, where rows of
    the same step, task, metric and shots are replaced. Raises `UserError` for a folder without a run or a checkpoint,
    and as `Reader.responses` does.
    """
    reader, where = newest(folder)
    yield from scored(reader, cut(tasks, most_items), shots, folder, where)


def newest(folder: Path) -> tuple[Reader, dict[str, Any]]:
    """The model of the newest checkpoint in the run folder, and what every row of its scores says of it.

    Raises `UserError` for a folder without a run or a checkpoint.
    """
    config = from_json(RunConfig, read_json(folder / CONFIG_FILE, "run configuration"), where=str(folder / CONFIG_FILE))
    reader, step = _reader(config, folder)
    outcome = Outcome.read(folder)
    loss_nats = outcome.loss_nats if outcome is not None and step == config.steps else None
    return reader, scale(config, step, loss_nats)


def show(
    folder: Path, specs: Sequence[str], shots: Sequence[Shots], most_items: int | None, console: "Console"
) -> None:
    """Examine the run in `folder` on the tasks that `specs` name, and print a table as it goes."""
    tasks = loaded(specs)
    say_header(console)
    for found in examine(folder, tasks, shots, most_items):
        for score in found.scores:
            say(score, console)
        for sentence in sentences(found):
            console.print(f"  {sentence}", markup=False)
    console.print(f"the rows are in {folder / SCORES_FILE}, every item's response in {folder / RESPONSES_FOLDER}")


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
    reader, where = newest(folder)
    lm_eval_adapter.show(reader, where, folder, specs, manager, shots, most_items, seed, console)


def _reader(config: RunConfig, folder: Path) -> tuple[Reader, int]:
    """The model of the newest checkpoint, and its step."""
    mesh = make_mesh(config.mesh)
    checkpoints = Checkpoints(folder, config.run_id)
    state, _, skipped = checkpoints.restore(make_step(config, mesh).state)
    checkpoints.close()
    for sentence in skipped:
        print(sentence)
    check(state is not None, f"{folder} has no checkpoint to examine; train the run with keep_checkpoint=True")
    encoder = data.load_tokenizer(data.prepare(config.data).manifest)
    return Reader(state.validated, config.model, encoder, mesh), int(state.step)
