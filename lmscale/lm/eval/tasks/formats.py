"""The file formats of benchmark tasks, by name: a new one is a reader and its entry here."""

from collections.abc import Callable
from pathlib import Path

from lmscale.core.errors import UserError, nearest
from lmscale.core.files import expanded
from lmscale.lm.eval.tasks import bigbench, generation, multiple_choice
from lmscale.lm.eval.tasks.task import Task

FORMATS: dict[str, Callable[[Path], list[Task]]] = {
    "bigbench": bigbench.load,
    "mmlu": multiple_choice.mmlu,
    "truthfulqa": multiple_choice.truthfulqa,
    "wic": multiple_choice.word_in_context,
    "gsm8k": generation.gsm8k,
    "stories": generation.stories,
    "task": generation.own_task,
}
"""Name of a file format -> its reader, from a file or the folder that holds it to its tasks."""


def load(spec: str) -> list[Task]:
    """The tasks that FORMAT:PATH names, or those of a language, `synthetic:tasks(...)`.

    Raises `UserError` naming the file, the item and the field that is wrong, or the nearest format.
    """
    name, colon, location = spec.partition(":")
    if name == "synthetic":
        return generation.synthetic_tasks(spec)
    if name not in FORMATS:
        raise UserError(
            f"{spec!r} names no tasks: write FORMAT:PATH or synthetic:tasks(...)"
            f"{nearest(name, (*FORMATS, 'synthetic', 'inside'))}"
        )
    if not colon or not location.strip():
        raise UserError(f"{spec!r} lacks its files: write {name}:PATH, nothing is downloaded")
    path = expanded(location)
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:  # a name that no file can have
        raise UserError(f"{spec!r:.80}: no file can have this name: {error.args[-1]}") from None
    if not exists:
        raise UserError(f"{spec}: there is no {path}; give the benchmark's file or folder, nothing is downloaded")
    try:
        tasks = FORMATS[name](path)
    except OSError as error:
        raise UserError(f"{spec}: {error.filename or path} cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise UserError(f"{spec}: the file is nested too deeply to be a benchmark") from None
    for task in tasks:
        task.check_metrics()
    return tasks
