"""A benchmark task: its questions, how a prompt is written, and which answers are right."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lmscale.core.config import check

Metric = Literal[
    "accuracy", "accuracy_per_character", "accuracy_per_byte", "grade", "gold_probability", "brier",
    "calibration_error", "gold_bits_per_byte", "exact_match", "edit_similarity", "share_in_place",
]  # fmt: skip

GENERATED: frozenset[Metric] = frozenset(("exact_match", "edit_similarity", "share_in_place"))
"""Metrics of a generated answer."""


@dataclass(frozen=True)
class Item:
    """One question. It has choices to be scored, answers to be generated, or both."""

    name: str
    """Unique within its task."""
    question: str
    """The prompt of this item alone, up to where the task's `delimiter` and an answer follow."""
    choices: tuple[str, ...] = ()
    """Possible answers without the delimiter, in the order of the file."""
    gold: tuple[float, ...] = ()
    """How right each choice is; the largest are the right ones."""
    answers: tuple[str, ...] = ()
    """Generated answers that are right; the first stands in exemplars."""

    def __post_init__(self) -> None:
        check(
            len(self.choices) == len(self.gold),
            f"item {self.name}: {len(self.choices)} choices, but {len(self.gold)} values of gold; give one for each",
        )
        check(
            not self.choices or (len(self.choices) > 1 and max(self.gold) > min(self.gold)),
            f"item {self.name}: gold = {list(self.gold)} makes no choice better than the others; "
            "give the right ones a larger value",
        )
        check(all(self.choices), f"item {self.name}: a choice is empty; every choice needs text to be scored")

    @property
    def right(self) -> tuple[int, ...]:
        """Numbers of the choices that are right: those of the largest gold."""
        return tuple(i for i, value in enumerate(self.gold) if value == max(self.gold))

    @property
    def shown(self) -> str:
        """The answer that stands behind the question where this item is an exemplar."""
        return self.answers[0] if self.answers else self.choices[self.right[0]]


@dataclass(frozen=True)
class Task:
    """Items with one form of prompt, scored together."""

    name: str
    items: tuple[Item, ...]
    metrics: tuple[Metric, ...]
    description: str = ""
    """Text before everything else in a prompt."""
    delimiter: str = " "
    """Text between a question and its answer."""
    separator: str | None = "\n\n"
    """Text after every exemplar; None where each is a document of its own."""
    exemplars: tuple[Item, ...] = ()
    """Worked examples, taken from the front; where there are none, they are drawn from the other items."""
    stop: tuple[str, ...] = ()
    """A generated answer ends before the first of these."""
    extract: str | None = None
    """Regular expression of the answer in what was generated: its first group, or all of it; no match, no answer."""
    ignore: str | None = None
    """Regular expression of what does not count when a generated answer is compared with a right one."""
    longest_answer: int = 128
    """Characters that are generated at most."""
    chance: tuple[tuple[Metric, float], ...] = ()
    """Expected scores of guessing, where they do not follow from the choices; 0 where not given."""
    left_out: tuple[str, ...] = ()
    """Requests of the file that are not fulfilled: metrics of other libraries, duplicate items."""

    def __post_init__(self) -> None:
        check(bool(self.items), f"task {self.name} has no items")
        names = [item.name for item in self.items]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        check(twice is None, f"task {self.name}: two items are called {twice}; give each a name of its own")
        for item in (*self.items, *self.exemplars):
            check(
                bool(item.choices or item.answers) or not self.metrics,
                f"task {self.name}, item {item.name}: neither choices nor answers; give one of them",
            )

    def check_metrics(self) -> None:
        """Raise `UserError` where a metric needs what an item does not have."""
        of_choices = set(self.metrics) - GENERATED - {"gold_bits_per_byte"}
        for item in self.items:
            missing = sorted(of_choices) if not item.choices else []
            needed = "choices"
            if not missing and not self.right_answers(item):
                missing, needed = sorted(GENERATED & set(self.metrics)), "a right answer that is not empty"
            check(
                not missing,
                f"task {self.name}, item {item.name}: the metric {missing and missing[0]} needs {needed}; leave it out",
            )

    def answer_in(self, generated: str) -> str:
        """The answer in a text that a model generated."""
        for mark in self.stop:
            generated = generated.split(mark, maxsplit=1)[0]
        if self.extract is not None:
            match = re.search(self.extract, generated)
            generated = "" if match is None else match.group(1 if match.re.groups else 0)
        return generated.strip()

    def right_answers(self, item: Item) -> tuple[str, ...]:
        """The right answers to `item`, whole and as `answer_in` extracts them."""
        whole = {answer.strip() for answer in item.answers}
        return tuple(sorted((whole | {self.answer_in(answer) for answer in item.answers}) - {""}))

    def same(self, one: str, other: str) -> bool:
        """Whether two answers are equal apart from what `ignore` matches."""
        if self.ignore is None:
            return one == other
        return re.sub(self.ignore, "", one) == re.sub(self.ignore, "", other)


@dataclass(frozen=True)
class Shots:
    """How many worked examples stand before a question, and which."""

    count: int = 0
    seed: int = 0
    draw: Literal["shared", "each"] = "shared"
    """The same examples for all questions of a task, which a model then reads once, or new ones for each question, as
    in BIG-bench and the evaluation harness. A task with exemplars of its own takes the first of those."""

    def __post_init__(self) -> None:
        check(self.count >= 0, f"shots = {self.count}: must be 0 or more")


def exemplars(task: Task, item: Item, shots: Shots) -> tuple[Item, ...]:
    """The worked examples before `item`, never `item` itself. Raises `UserError` where there are too few."""
    from random import Random

    if shots.count == 0:
        return ()
    pool: Sequence[Item] = task.exemplars or task.items
    if task.exemplars:
        ordered = list(pool[: shots.count + 1])
    else:
        key = f"{task.name}/{shots.seed}" + (f"/{item.name}" if shots.draw == "each" else "")
        ordered = Random(key).sample(pool, min(shots.count + 1, len(pool)))
    others = [other for other in ordered if other != item]
    check(
        len(others) >= shots.count,
        f"task {task.name} has {len(others)} other items to show, fewer than the {shots.count} shots asked for; "
        f"take {len(others)} shots",
    )
    return tuple(others[: shots.count])


class Prompt(NamedTuple):
    """The text before an answer. All but the question may be the same for many items."""

    documents: tuple[str, ...]
    """Documents before that of the question."""
    opening: str
    """Text before the question in its document."""
    question: str


def prompt(task: Task, item: Item, shots: Shots) -> Prompt:
    """The prompt of `item`. Raises `UserError` where the task has too few other items to show."""
    shown = [f"{one.question}{task.delimiter}{one.shown}" for one in exemplars(task, item, shots)]
    if task.separator is None:
        return Prompt(tuple(shown), task.description, item.question)
    return Prompt((), task.description + "".join(text + task.separator for text in shown), item.question)
