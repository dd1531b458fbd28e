"""Scores of a task from a model's responses, each with its standard error, its chance level and its n.

Kinds: a *hard* metric gives an item all or nothing, a *graded* one moves with every change of a probability
(Schaeffer 2023, arXiv 2304.15004); one evaluation keeps both. A tie of choices is shared, so that a model that knows
nothing is at chance.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError
from lmscale.lm.eval.tasks.task import GENERATED, Item, Metric, Task

CALIBRATION_BUCKETS = 15
"""Buckets of equal width in the probability of the likeliest choice, as in BIG-bench (Guo 2017)."""
TIE = 1e-6
"""Log-probabilities this close, relative to the largest, are equal: they are sums of float32 numbers."""
RESAMPLES = 200
"""Bootstrap resamples for the standard error of a score that is not a mean over items."""


@dataclass(frozen=True)
class Response:
    """A model's response to one item, from which any metric can be computed later without the model."""

    item: str
    choice_logprobs: tuple[float, ...] = ()
    """ln p(choice | prompt), summed over its tokens."""
    choice_greedy: tuple[bool, ...] = ()
    """Whether every token of the choice was the likeliest."""
    answer_logprobs: tuple[float, ...] = ()
    """ln p of each right answer, likewise."""
    answer_greedy: tuple[bool, ...] = ()
    generated: str | None = None
    """The greedy continuation of the prompt; None where no metric needs one."""
    tokens_cut: int = 0
    """Tokens of the prompt that did not fit the context, cut from its left."""


@dataclass(frozen=True)
class Score:
    """One metric of one task."""

    task: str
    metric: str
    """A `Metric`, or what is measured otherwise than from responses to items."""
    kind: Literal["hard", "graded"]
    shots: int
    score: float
    stderr: float | None
    """Standard error of the mean over items; None with a single item."""
    n: int
    chance: float | None
    """Expected score of guessing; None where guessing has no score, as for bits per byte."""
    higher_is_better: bool


def scores(task: Task, responses: Sequence[Response], shots: int = 0) -> list[Score]:
    """All metrics of a task from one response per item, in any order.

    Raises `UserError` where an item has no response, or one without what a metric needs, and `NotFinite` where a model
    answers with NaN: such an item is neither right nor wrong.
    """
    by_item = {response.item: response for response in responses}
    if missing := [item.name for item in task.items if item.name not in by_item]:
        raise UserError(f"task {task.name}: {len(missing)} items have no response, the first is {missing[0]}")
    pairs = [(item, by_item[item.name]) for item in task.items]
    if bad := [item.name for item, response in pairs if not _is_finite(response)]:
        raise NotFinite(
            f"task {task.name}: the model's log-probabilities of {len(bad):,} of {len(pairs):,} items are not finite, "
            f"first of item {bad[0]}; take an earlier checkpoint"
        )
    return [_score(task, metric, pairs, shots) for metric in task.metrics]


class NotFinite(UserError):
    """A model's responses hold NaN or infinity, so nothing can be scored."""


def _is_finite(response: Response) -> bool:
    return all(map(math.isfinite, (*response.choice_logprobs, *response.answer_logprobs)))


Pair = tuple[Item, Response]


def _score(task: Task, metric: Metric, pairs: list[Pair], shots: int) -> Score:
    kind, higher = KINDS[metric]
    if metric == "calibration_error":
        score, stderr, chance = *_calibration(pairs), None
    else:
        values = np.array([ITEM_SCORES[metric](task, item, response) for item, response in pairs])
        score = float(values.mean())
        stderr = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
        chance = _chance(task, metric)
    return Score(task.name, metric, kind, shots, score, stderr, len(pairs), chance, higher)


def _probabilities(response: Response) -> NDArray[np.float64]:
    """Probabilities of the choices among themselves."""
    logprobs = np.array(response.choice_logprobs)
    weights = np.exp(logprobs - logprobs.max())
    return weights / weights.sum()


def _chosen(weights: Sequence[float]) -> list[int]:
    """The choices of the largest weight: several where they are equal but for rounding in the model."""
    most = max(weights)
    return [number for number, weight in enumerate(weights) if most - weight <= TIE * abs(most)]


def _share_right(weights: Sequence[float], item: Item) -> float:
    """1 or 0; where several choices are the likeliest, the share of them that is right, as if one were drawn."""
    chosen = _chosen(weights)
    return len(set(chosen) & set(item.right)) / len(chosen)


def _accuracy(task: Task, item: Item, response: Response) -> float:
    return _share_right(response.choice_logprobs, item)


def _per(size: Callable[[str], int]) -> Callable[[Task, Item, Response], float]:
    """Accuracy of the choice whose ln p per unit of length is largest."""

    def accuracy(task: Task, item: Item, response: Response) -> float:
        return _share_right([x / size(text) for x, text in zip(response.choice_logprobs, item.choices)], item)

    return accuracy


def _grade(task: Task, item: Item, response: Response) -> float:
    """The target score of the likeliest choice, or the mean of several: BIG-bench's multiple_choice_grade."""
    return float(np.mean([item.gold[number] for number in _chosen(response.choice_logprobs)]))


def _gold_probability(task: Task, item: Item, response: Response) -> float:
    """Probability of the right choices among all: TruthfulQA's mc2 (Lin 2021)."""
    return float(_probabilities(response)[list(item.right)].sum())


def _brier(task: Task, item: Item, response: Response) -> float:
    """sum_k (p_k - o_k)^2 with o uniform over the right choices (Brier 1950): 0 at best, 2 at worst."""
    outcome = np.zeros(len(item.choices))
    outcome[list(item.right)] = 1 / len(item.right)
    return float(((_probabilities(response) - outcome) ** 2).sum())


def _gold_bits_per_byte(task: Task, item: Item, response: Response) -> float:
    """Bits per byte of the likeliest right answer, its delimiter counted."""
    if item.answers:
        texts, logprobs = item.answers, response.answer_logprobs
    else:
        texts = tuple(item.choices[i] for i in item.right)
        logprobs = tuple(response.choice_logprobs[i] for i in item.right)
    sizes = [len(f"{task.delimiter}{text}".encode()) for text in texts]
    return min(-x / math.log(2) / size for x, size in zip(logprobs, sizes, strict=True))


def _generated(task: Task, response: Response) -> str:
    if response.generated is None:
        raise UserError(
            f"task {task.name}, item {response.item}: this metric needs a generated answer, and there is none"
        )
    return task.answer_in(response.generated)


def _exact_match(task: Task, item: Item, response: Response) -> float:
    given = _generated(task, response)
    return float(any(task.same(given, right) for right in task.right_answers(item)))


def _edit_similarity(task: Task, item: Item, response: Response) -> float:
    """1 - Levenshtein distance / length of the longer, in characters, to the nearest right answer."""
    given = _generated(task, response)
    return max(1 - edits(given, right) / max(len(given), len(right)) for right in task.right_answers(item))


def _share_in_place(task: Task, item: Item, response: Response) -> float:
    """Share of a right answer's characters that are generated at their position."""
    given = _generated(task, response)
    return max(share_in_place(right, given) for right in task.right_answers(item))


def share_in_place(right: str, given: str) -> float:
    """Share of the characters of a right answer that another has in their place."""
    return sum(map(str.__eq__, given, right)) / len(right)


def edits(one: str, other: str) -> int:
    """Least number of characters to insert, delete or replace (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def _calibration(pairs: list[Pair]) -> tuple[float, float | None]:
    """Expected calibration error (Guo 2017): |accuracy - confidence| averaged over buckets of confidence, by size."""
    confidence = np.array([_probabilities(response).max() for _, response in pairs])
    right = np.array([_share_right(response.choice_logprobs, item) for item, response in pairs])
    bucket = np.minimum((confidence * CALIBRATION_BUCKETS).astype(int), CALIBRATION_BUCKETS - 1)

    def error(rows: NDArray[np.int64]) -> float:
        gap = np.bincount(bucket[rows], (right - confidence)[rows], CALIBRATION_BUCKETS)
        return float(np.abs(gap).sum() / len(rows))

    every = np.arange(len(pairs))
    if len(pairs) == 1:
        return error(every), None
    draws = np.random.default_rng(0).integers(0, len(pairs), (RESAMPLES, len(pairs)))
    return error(every), float(np.std([error(rows) for rows in draws], ddof=1))


def _chance(task: Task, metric: Metric) -> float | None:
    """Expected score of a model that does not look at the question."""
    given = dict(task.chance)
    if metric in given:
        return given[metric]
    if metric == "gold_bits_per_byte":
        return None
    if metric in GENERATED:
        return 0.0
    if metric == "grade":
        return float(np.mean([np.mean(item.gold) for item in task.items]))
    if metric == "brier":
        return float(np.mean([1 / len(item.right) - 1 / len(item.choices) for item in task.items]))
    return float(np.mean([len(item.right) / len(item.choices) for item in task.items]))


KINDS: dict[Metric, tuple[Literal["hard", "graded"], bool]] = {
    "accuracy": ("hard", True),
    "accuracy_per_character": ("hard", True),
    "accuracy_per_byte": ("hard", True),
    "grade": ("hard", True),
    "gold_probability": ("graded", True),
    "brier": ("graded", False),
    "calibration_error": ("graded", False),
    "gold_bits_per_byte": ("graded", False),
    "exact_match": ("hard", True),
    "edit_similarity": ("graded", True),
    "share_in_place": ("graded", True),
}
"""Metric -> kind, and whether more is better."""

ITEM_SCORES: dict[Metric, Callable[[Task, Item, Response], float]] = {
    "accuracy": _accuracy,
    "accuracy_per_character": _per(len),
    "accuracy_per_byte": _per(lambda text: len(text.encode())),
    "grade": _grade,
    "gold_probability": _gold_probability,
    "brier": _brier,
    "gold_bits_per_byte": _gold_bits_per_byte,
    "exact_match": _exact_match,
    "edit_similarity": _edit_similarity,
    "share_in_place": _share_in_place,
}
