"""BIG-bench's JSON tasks (Srivastava 2022, arXiv 2206.04615), formatted as in its own evaluation."""

import json
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.lm.eval.tasks.files import field, number, pattern, read_object, texts
from lmscale.lm.eval.tasks.task import Item, Metric, Task

DEFAULT_REGEX = r"[^\.\?\!\;\n]+"
CHOICE_ORDER_SEED = 42
"""Choices are appended to each question in an order drawn afresh from this seed, as in BIG-bench."""
PREFIXES = {"example_input_prefix": "\nQ: ", "example_output_prefix": "\nA: "}
"""Text around a question, by field, where a task gives none."""
METRICS: dict[str, tuple[Metric, ...]] = {
    "multiple_choice_grade": ("grade", "accuracy", "gold_probability", "brier", "calibration_error"),
    "exact_str_match": ("exact_match", "edit_similarity"),
}
"""Its names -> ours. `brier` here sums over choices, theirs is also divided by their number. Every task
also has bits per byte of the right answer."""


def load(path: Path) -> list[Task]:
    """The task of a task.json or of its folder; one task for every subtask where it has those."""
    file = path / "task.json" if path.is_dir() else path
    given = read_object(file)
    name = str(given.get("name", file.parent.name))
    if "examples" in given:
        return [_task(given, name, str(file))]
    below = sorted(file.parent.glob("*/task.json"))
    if not below:
        raise UserError(f"{file} has neither examples nor subtasks in folders beside it")
    return [_task(read_object(one), f"{name}:{one.parent.name}", str(one)) for one in below]


def _task(given: dict[str, Any], name: str, where: str) -> Task:
    for text in ("task_prefix", "few_shot_example_separator", "choice_prefix", *PREFIXES):
        if text in given:
            field(given, text, str, where)
    examples = field(given, "examples", list, where)
    distinct = list({json.dumps(example): example for example in examples}.values())
    requested = texts(given, "metrics", where)
    metrics = dict.fromkeys(ours for theirs in requested for ours in METRICS.get(theirs, ()))
    left_out = [f"metric {metric}" for metric in requested if metric not in METRICS]
    if len(distinct) < len(examples):
        left_out.append(f"{len(examples) - len(distinct)} duplicate examples")
    stop = field(given, "stop_string", (str, NoneType), where) if "stop_string" in given else None
    regex = DEFAULT_REGEX if stop is None else None
    if "output_regex" in given:
        regex = pattern(field(given, "output_regex", (str, NoneType), where), f"{where}: the field 'output_regex'")
    return Task(
        name=name,
        items=tuple(_item(example, given, f"{where}, example {n}", str(n)) for n, example in enumerate(distinct)),
        metrics=(*metrics, "gold_bits_per_byte"),
        description=str(given.get("task_prefix", "")),
        delimiter="",  # the question ends with the output prefix
        separator=str(given.get("few_shot_example_separator", "\n")),
        stop=(stop,) if stop else (),
        extract=regex,
        left_out=tuple(left_out),
    )


@lru_cache(maxsize=64)
def _order(count: int) -> tuple[int, ...]:
    return tuple(np.random.RandomState(CHOICE_ORDER_SEED).permutation(count).tolist())


def _item(example: Any, given: dict[str, Any], where: str, name: str) -> Item:
    if not isinstance(example, dict):
        raise UserError(f"{where}: a {type(example).__name__} stands where an object is expected")
    question = field(example, "input", str, where)
    scores = field(example, "target_scores", dict, where) if "target_scores" in example else {}
    if scores and given.get("append_choices_to_input", True):
        before = str(given.get("choice_prefix", "\n  choice: "))
        ordered = sorted(scores)
        question += "".join(before + ordered[i] for i in _order(len(ordered)))
    target = field(example, "target", (str, list), where) if "target" in example else []
    prefix, suffix = (given.get(name, default) for name, default in PREFIXES.items())
    return Item(
        name=name,
        question=f"{prefix}{question}{suffix}",
        choices=tuple(scores),
        gold=tuple(float(number(value, f"{where}: target_scores {choice!r:.40}")) for choice, value in scores.items()),
        answers=(target,) if isinstance(target, str) else texts(example, "target", where) if target else (),
    )
