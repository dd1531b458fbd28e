"""Benchmark tasks in their official files, prompts with worked examples, and scores from a model's responses.

    load("mmlu:data/mmlu")               # a list of Task
    prompt(task, item, Shots(5))         # the text before an answer
    scores(task, responses)              # every metric with standard error, chance and n

Nothing here runs a model or downloads a file.
"""

from collections.abc import Callable
from pathlib import Path

from lmscale.core.errors import UserError, nearest
from lmscale.lm.eval.tasks import bigbench, generation, multiple_choice
from lmscale.lm.eval.tasks.scores import KINDS, Response, Score, scores
from lmscale.lm.eval.tasks.task import Item, Metric, Prompt, Shots, Task, exemplars, prompt

__all__ = [
    "FORMATS",
    "KINDS",
    "Item",
    "Metric",
    "Prompt",
    "Response",
    "Score",
    "Shots",
    "Task",
    "exemplars",
    "load",
    "prompt",
    "scores",
]

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
    if not colon or name not in FORMATS:
        raise UserError(f"{spec!r} names no tasks{nearest(name, FORMATS)}; write FORMAT:PATH or synthetic:tasks(...)")
    path = Path(location).expanduser()
    if not path.exists():
        raise UserError(f"{spec}: there is no {path}; give the benchmark's file or folder, nothing is downloaded")
    return FORMATS[name](path)
