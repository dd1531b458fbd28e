"""Pairs of prompts from tasks: an algorithmic question with one character changed, or two questions that differ least.

Nothing here runs a model.
"""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import numpy as np

from lmscale.core.config import check
from lmscale.core.config.synthetic import Tasks, is_synthetic, parse
from lmscale.lm.data.languages.tasks import LanguageTask, all_tasks
from lmscale.lm.data.tokenizer import Tokenizer
from lmscale.lm.eval import tasks
from lmscale.lm.eval.tasks import Item, Shots, Task
from lmscale.lm.inspect.pairs import Pair, comparable, pair_tokens

ALPHABETS = ("0123456789", "()")
"""Characters of questions besides letters: one is replaced by another of its kind, and `+` stays."""
MOST_COMPARED = 2000
"""Questions of one length among which partners are looked for."""
SPARE = 4
"""Pairs made for each that is wanted: those that the tokenizer or the context does not let be compared are left out."""


class PairsOfTasks(NamedTuple):
    """Pairs of all tasks that a specification names."""

    by_task: dict[str, list[Pair]]
    """Fewer than were asked for where a task has no more."""
    without: tuple[str, ...]
    """Tasks that have none."""


def pairs_of(
    spec: str, tokenizer: Tokenizer, context: int, count: int, seed: int = 0, *, one_length: bool = False
) -> PairsOfTasks:
    """At most `count` pairs of every task that `spec` names, as `lmscale eval` reads it; with `one_length` those of the
    length that most of a task's pairs have, so that their positions correspond.

    Raises `UserError` where no task has one, and as `tasks.load` does.
    """
    check(count >= 1, f"{count} pairs: at least 1")
    most = SPARE * count
    if is_synthetic(spec):
        language = parse(spec)
        check(isinstance(language, Tasks), f"{spec} has no questions and answers; take synthetic:tasks(...)")
        candidates = {task.name: language_pairs(task, most, seed) for task in all_tasks(language)}
    else:
        candidates = {task.name: task_pairs(task, tokenizer, most) for task in tasks.load(spec)}
    check(
        any(candidates.values()),
        f"{spec}: no two questions of a task have as many tokens and different answers; give your own pairs as JSONL",
    )
    by_task = {name: comparable(pairs, tokenizer, context) for name, pairs in candidates.items()}
    if one_length:
        by_task = {name: _of_one_length(pairs, tokenizer, context) for name, pairs in by_task.items()}
    by_task = {name: pairs[:count] for name, pairs in by_task.items()}
    if not any(by_task.values()):
        name = next(name for name, pairs in candidates.items() if pairs)
        pair_tokens(candidates[name], tokenizer, context, f"{name}, pair")  # raises what stands in the way
    without = tuple(name for name, pairs in by_task.items() if not pairs)
    return PairsOfTasks({name: pairs for name, pairs in by_task.items() if pairs}, without)


def _of_one_length(pairs: Sequence[Pair], tokenizer: Tokenizer, context: int) -> list[Pair]:
    """The pairs whose prompts are as long as most are."""
    if not pairs:
        return []
    end_N = pair_tokens(pairs, tokenizer, context).end_N
    return [pair for pair, end in zip(pairs, end_N) if end == np.bincount(end_N).argmax()]


def language_pairs(task: LanguageTask, count: int, seed: int = 0) -> list[Pair]:
    """Questions of an algorithmic task, each with one character replaced so that the answer changes.

    At most `count` pairs; fewer where the language has not as many questions that one character changes.
    """
    random, pairs = Random(f"{task.name}/{seed}"), []
    for question, answer in dict.fromkeys(task.examples(2 * count, stream=seed)):
        changed = _changed(task, question, answer, random)
        if changed is not None:
            pairs.append(Pair(task.prompt(question), answer, task.prompt(changed), task.answer(changed)))
    return pairs[:count]


def _changed(task: LanguageTask, question: str, answer: str, random: Random) -> str | None:
    """The question with one character replaced by another of its kind, whose answer differs; None where none does."""
    letters = "".join(chr(ord("a") + number) for number in range(task.spec.letters))
    kinds = [kind for kind in (*ALPHABETS, letters) if question[0] in kind]
    options = [
        question[:place] + other + question[place + 1 :]
        for place, char in enumerate(question)
        for kind in kinds
        for other in kind
        if char in kind and other != char
    ]
    random.shuffle(options)
    return next((option for option in options if task.answer(option) != answer), None)


def task_pairs(task: Task, tokenizer: Tokenizer, count: int) -> list[Pair]:
    """Pairs of questions of a task whose prompts have as many tokens and whose right answers differ.

    Pairs that differ in the fewest tokens come first, and no question is in two of them.
    """
    asked = [(_prompt(task, item), f"{task.delimiter}{item.shown}", item) for item in task.items]
    encoded = [np.asarray(tokenizer.encode(prompt), np.int32) for prompt, *_ in asked]
    by_length: dict[int, list[int]] = {}
    for number, ids in enumerate(encoded):
        by_length.setdefault(len(ids), []).append(number)
    candidates = [
        (int(distance), one, other)
        for numbers in by_length.values()
        for one, other, distance in _distances(numbers[:MOST_COMPARED], encoded)
        if distance > 0
        and _distinct(asked[one][1], asked[other][1])
        and not _share_answer(asked[one][2], asked[other][2])
    ]
    pairs: list[Pair] = []
    used: set[int] = set()
    for _, one, other in sorted(candidates):
        if len(pairs) < count and used.isdisjoint((one, other)):
            used |= {one, other}
            pairs.append(Pair(*asked[one][:2], *asked[other][:2]))
    return pairs


def _prompt(task: Task, item: Item) -> str:
    documents, opening, question = tasks.prompt(task, item, Shots())
    return "".join(documents) + opening + question


def _share_answer(item: Item, other: Item) -> bool:
    """Whether the answer that one item shows is right for the other, too, or the other way round."""
    one, two = (each.answers or tuple(each.choices[i] for i in each.right) for each in (item, other))
    return item.shown in two or other.shown in one


def _distinct(answer: str, other: str) -> bool:
    """Whether neither answer begins with the other, so that a token tells them apart."""
    return not answer.startswith(other) and not other.startswith(answer)


def _distances(numbers: Sequence[int], encoded: Sequence[np.ndarray]) -> list[tuple[int, int, int]]:
    """Every two of the texts, which have as many tokens, and in how many tokens they differ: the nearest of each."""
    if len(numbers) < 2:
        return []
    block = np.stack([encoded[number] for number in numbers])
    pairs = []
    for place, ids in enumerate(block[:-1]):
        apart = (block[place + 1 :] != ids).sum(axis=1)
        for other in np.argsort(apart, kind="stable")[:32]:
            pairs.append((numbers[place], numbers[place + 1 + int(other)], int(apart[other])))
    return pairs
