"""Answers that a trained run draws to the items of a task, and what each of them earns.

Letters: Q items, M answers to each, B = Q M rows, R tokens of an answer, S positions.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import check
from lmscale.lm.eval.batching import Ids
from lmscale.lm.eval.scorer import LMScorer
from lmscale.lm.eval.tasks import Metric, Response, Shots, Task
from lmscale.lm.eval.tasks.scores import ITEM_SCORES
from lmscale.lm.train.rewards import ModelReward
from lmscale.lm.train.sampled_answers import laid_out
from lmscale.lm.use.load import open_run

Rewards = NDArray[np.float64]
ROWS_PER_CALL = 256
"""Answers that a reward model reads together."""


@dataclass(frozen=True)
class DrawnAnswers:
    """What was drawn to the items of a task."""

    prompts: list[Ids]
    """The prompts as the model has read them."""
    tokens: list[Ids]
    """Per item [M, R]: up to and with the end, or to a stop, then -1."""
    texts: list[list[str]]
    """Per item and answer, without the end."""


def draw_answers(scorer: LMScorer, task: Task, shots: Shots, answers: int, seed: int) -> DrawnAnswers:
    """Draw a number of answers to every item at temperature 1, each at most as long as a greedy one, and its end."""
    most = min(task.longest_answer, scorer.config.context // 2) + 1
    prompts = [tokens[-(scorer.config.context + 1 - most) :] for tokens in scorer.answer_prompts(task, shots)]
    drawn = scorer.draw(prompts, answers, most, seed)
    tokens = [np.stack([_to_stop(row, task, scorer) for row in rows]) for rows in drawn]
    texts = [[scorer.text_before_end(row[row >= 0])[: task.longest_answer] for row in rows] for rows in tokens]
    return DrawnAnswers(prompts, tokens, texts)


def _to_stop(row: Ids, task: Task, scorer: LMScorer) -> Ids:
    """The tokens of an answer before the first stop of its task, then -1."""
    length = int((row >= 0).sum())
    if not any(mark in scorer.text_before_end(row[:length]) for mark in task.stop):
        return row
    whole = next(
        tokens for tokens in range(1, length + 1) if any(m in scorer.text_before_end(row[:tokens]) for m in task.stop)
    )
    return np.where(np.arange(len(row)) < max(1, whole - 1), row, -1).astype(row.dtype)


def item_scores(metric: Metric, task: Task, drawn: DrawnAnswers) -> Rewards:
    """[Q, M]: a metric of every answer."""
    score = ITEM_SCORES[metric]
    return np.array(
        [
            [score(task, item, Response(item.name, generated=text)) for text in texts]
            for item, texts in zip(task.items, drawn.texts, strict=True)
        ]
    )


class CheckerReward:
    """1 for a right answer of a task, 0 else."""

    name = "checker"

    def __call__(self, task: Task, drawn: DrawnAnswers) -> Rewards:
        return item_scores("exact_match", task, drawn)


class RewardModelReward:
    """The number that a reward model gives to prompt and answer."""

    def __init__(self, folder: Path, scorer: LMScorer) -> None:
        """Raises `UserError` for a folder without a reward model, and for one that reads other ids or less text."""
        opened = open_run(folder)
        model = opened.run.config.model
        check(
            model.scalar_head,
            f"{folder} is a language model, which gives no reward; name the run of a reward model, or `checker`",
        )
        check(
            opened.run.tokenizer.fingerprint == scorer.tokenizer.fingerprint,
            f"the reward model {folder} reads with another tokenizer ({opened.run.tokenizer.name!r}) than the run "
            f"({scorer.tokenizer.name!r}), so that an id would mean other text to each; give both one tokenizer",
        )
        check(
            scorer.config.context <= model.context,
            f"the reward model {folder} reads at most {model.context:,} tokens, and the run's context is "
            f"{scorer.config.context:,}; name one with a context of at least that",
        )
        self.name = f"{opened.run.config.run_id}@{opened.step}"
        self._mesh, self._context = opened.mesh, scorer.config.context
        self._reward = ModelReward(model, opened.run.params, self._context)

    def __call__(self, task: Task, drawn: DrawnAnswers) -> Rewards:
        answers = len(drawn.texts[0])
        prompts = [prompt for prompt in drawn.prompts for _ in range(answers)]
        tokens_BS, scored_BT = laid_out(prompts, np.concatenate(drawn.tokens), self._context)
        rows = len(prompts)
        rewards = np.empty(rows)
        with jax.set_mesh(self._mesh):
            for start in range(0, rows, ROWS_PER_CALL):  # the last call repeats a row: one shape, one program
                chosen = np.minimum(np.arange(start, start + ROWS_PER_CALL), rows - 1)
                part = self._reward.of_tokens(jnp.asarray(tokens_BS[chosen]), jnp.asarray(scored_BT[chosen]))
                rewards[start : start + ROWS_PER_CALL] = part[: rows - start]
        wrong = int((~np.isfinite(rewards)).sum())
        check(
            not wrong,
            f"task {task.name}: the reward model, run {self.name}, gave {wrong:,} of {rows:,} answers a reward that is "
            f"not finite; name another",
        )
        return rewards.reshape(-1, answers)
