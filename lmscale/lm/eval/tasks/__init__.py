"""Benchmark tasks in their official files, prompts with worked examples, and scores from a model's responses.

    load("mmlu:data/mmlu")               # a list of Task
    prompt(task, item, Shots(5))         # the text before an answer
    scores(task, responses)              # every metric with standard error, chance and n

Nothing here runs a model or downloads a file.
"""

from lmscale.lm.eval.tasks.formats import FORMATS, load
from lmscale.lm.eval.tasks.scores import KINDS, NotFinite, Response, Score, scores
from lmscale.lm.eval.tasks.task import Item, Metric, Prompt, Shots, Task, exemplars, prompt

__all__ = [
    "FORMATS",
    "KINDS",
    "Item",
    "Metric",
    "NotFinite",
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
