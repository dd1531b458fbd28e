"""The best of n answers to the items of a task, by a reward: an evaluation of a run beside its greedy answers.

So many answers to every item are drawn once, at temperature 1, and every n chooses from them all
(`core.best_of_n.expected_best`). Rewards are those of a checker, 1 for a right answer and 0 else, or of a reward model.

Letters: Q items, M answers to each.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax.numpy as jnp

from lmscale.core.best_of_n import drawn_kl_nats, expected_best, kl_bound_nats, tied_share
from lmscale.core.config import check
from lmscale.lm.eval.score_files import being_scored, conditions_of, write_results
from lmscale.lm.eval.scorer import MOST_ANSWERS
from lmscale.lm.eval.task_eval import first_items, load_tasks, print_header, print_score
from lmscale.lm.eval.tasks import KINDS, Metric, Score, Shots, Task
from lmscale.lm.eval.tasks.task import GENERATED
from lmscale.lm.use.drawn_answers import (
    CheckerReward,
    DrawnAnswers,
    RewardModelReward,
    Rewards,
    draw_answers,
    item_scores,
)
from lmscale.lm.use.score_tasks import newest_scorer, print_end

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Choice:
    """How many answers are drawn, and of how many the best is taken, by which reward."""

    sizes: tuple[int, ...]
    """Every n."""
    answers: int
    """M, drawn to every item."""
    seed: int = 0
    reward: Path | None = None
    """The folder of a reward model's run; None takes the checker of the task."""

    def __post_init__(self) -> None:
        least = min(self.sizes)
        check(least >= 1, f"best of {least}: at least 1, which is any answer")
        check(
            max(self.sizes) <= self.answers <= MOST_ANSWERS,
            f"best of {max(self.sizes)} with {self.answers} answers to every item: take from {max(self.sizes)} to "
            f"{MOST_ANSWERS:,} answers, as a rule twice as many as the largest n",
        )


def show(
    folder: Path,
    specs: Sequence[str],
    shots: Sequence[Shots],
    most_items: int | None,
    choice: Choice,
    console: "Console",
) -> None:
    """Score the run in `folder` on the tasks that `specs` name with the best of n answers, and print every row.

    Raises `UserError` for a task without answers to generate, for parameters that are no numbers, and as
    `score_tasks.newest_scorer` and `RewardModelReward` do.
    """
    tasks = first_items(load_tasks(specs), most_items)
    for task in tasks:
        check(
            bool(GENERATED & set(task.metrics)),
            f"task {task.name} has choices to score and no answer to generate, of which a best one could be chosen; "
            f"name a task with {', '.join(sorted(GENERATED))}",
        )
    scorer, columns = newest_scorer(folder)
    check(
        all(bool(jnp.isfinite(value).all()) for value in scorer.params.values()),
        f"the newest checkpoint in {folder} has parameters that are not finite; take an earlier one",
    )
    reward: CheckerReward | RewardModelReward = CheckerReward()
    if choice.reward is not None:
        reward = RewardModelReward(choice.reward, scorer)
    print_header(console)
    parts = [(task, shot) for task in tasks for shot in shots]
    for number, (task, shot) in enumerate(parts, 1):
        with being_scored(folder, task.name, number, len(parts)):
            start = time.perf_counter()
            drawn = draw_answers(scorer, task, shot, choice.answers, choice.seed)
            rewards = reward(task, drawn)
            _write_and_print(folder, columns, task, shot, choice, reward.name, drawn, rewards, console)
            seconds = time.perf_counter() - start
        console.print(f"  {rewards.size:,} answers in {seconds:.1f} s, compilation included", markup=False)
    print_end(folder, console)


def _write_and_print(
    folder: Path,
    columns: dict[str, Any],
    task: Task,
    shots: Shots,
    choice: Choice,
    reward: str,
    drawn: DrawnAnswers,
    rewards_QM: Rewards,
    console: "Console",
) -> None:
    """The rows of one task at one number of shots, and every answer with its reward."""
    metrics = [metric for metric in task.metrics if metric in GENERATED]
    scores = {metric: item_scores(metric, task, drawn) for metric in metrics}
    if reward != CheckerReward.name:
        scores[cast(Metric, "reward")] = rewards_QM
    ties = tied_share(rewards_QM) if choice.answers > 1 else 0.0
    measured = _conditions(task, shots, choice)
    rows = []
    for n in choice.sizes:
        bound = float(kl_bound_nats(n))
        kl = drawn_kl_nats(rewards_QM, n) if ties else bound
        moved = {"best_of": n, "answers": choice.answers, "reward": reward, "kl_bound_nats": bound, "kl_nats": kl}
        for metric, values_QM in scores.items():
            score = _score(task, metric, shots, n, reward, expected_best(rewards_QM, values_QM, n))
            print_score(score, console)
            rows.append({**columns, **asdict(score), **measured, **moved})
        console.print(f"  {_kl_sentence(n, bound, kl, ties)}", markup=False)
    write_results(folder, rows, _responses(task, drawn, rewards_QM, scores))


def _score(task: Task, metric: Metric, shots: Shots, n: int, reward: str, values_Q: Rewards) -> Score:
    """The mean over items. It moves with every change of a probability, so it is graded, whatever the metric."""
    stderr = float(values_Q.std(ddof=1) / math.sqrt(len(values_Q))) if len(values_Q) > 1 else None
    name = f"{task.name}, best of {n} by {reward}"
    _, higher = KINDS.get(metric, ("graded", True))
    return Score(name, metric, "graded", shots.count, float(values_Q.mean()), stderr, len(values_Q), None, higher)


def _conditions(task: Task, shots: Shots, choice: Choice) -> dict[str, Any]:
    """The conditions of a score, with what was drawn: other answers are another measurement."""
    conditions = conditions_of(task, shots)
    content = json.dumps([conditions["task_hash"], choice.answers, choice.seed])
    return {**conditions, "task_hash": hashlib.sha256(content.encode()).hexdigest()[:16]}


def _kl_sentence(n: int, bound: float, kl: float, ties: float) -> str:
    source = "ln n - (n-1)/n, Beirami 2024"
    if not ties:
        return f"best of {n}: KL from the policy {bound:.4f} nats ({source}), exact where no two answers earn the same"
    return (
        f"best of {n}: KL from the policy at most {bound:.4f} nats ({source}); exact only without ties, and {ties:.0%} "
        f"of the pairs of answers tie: about {kl:.4f} by the shares of the rewards drawn"
    )


def _responses(
    task: Task, drawn: DrawnAnswers, rewards_QM: Rewards, scores: dict[Metric, Rewards]
) -> Iterator[dict[str, Any]]:
    for number, item in enumerate(task.items):
        values: dict[str, Any] = {metric: values_QM[number].tolist() for metric, values_QM in scores.items()}
        yield {"item": item.name, "answers": drawn.texts[number], "reward": rewards_QM[number].tolist(), **values}
