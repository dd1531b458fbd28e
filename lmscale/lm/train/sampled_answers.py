"""Batches of answers that the policy itself draws, with their rewards and advantages: a `BatchSource`.

Letters: B sequences, P positions of the padded prompts, R tokens of an answer, S = T + 1 positions, G answers to
a prompt.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from lmscale.core.config import Reinforcement, RunConfig
from lmscale.core.counting import drawing_flops
from lmscale.lm.data import DataUsage, Tokens
from lmscale.lm.devices.collectives import make_global_array
from lmscale.lm.devices.sharding import batch_sharding
from lmscale.lm.model.draw import draw
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.transformer import token_losses_and_reports
from lmscale.lm.objectives import Batch
from lmscale.lm.objectives.reinforcement import advantages
from lmscale.lm.train.questions import questions_of
from lmscale.lm.train.rewards import Answers, RewardFunction, check_finite, everywhere

ANSWERS_SEED = 0x616E7377
"""Tells the random numbers of answers from those of prompts, windows, initial parameters and dropout."""


class SampledAnswers:
    """Batch number t // updates: a pure function of (the parameters when it was drawn, seed, its number).

    Updates that share a batch get it from memory, so a run is saved only where the next is drawn
    (`RunConfig.steps_per_batch`), and one that resumes there draws the same answers bit for bit.
    """

    reads_params = True

    def __init__(self, config: RunConfig, tokens: Tokens, mesh: Mesh, reward: RewardFunction) -> None:
        """Raises `UserError` as `questions_of` does."""
        settings = config.objective
        assert isinstance(settings, Reinforcement)
        self._config, self._settings, self._mesh, self._reward = config, settings, mesh, reward
        self._questions, self._sharding = questions_of(config, tokens), batch_sharding(mesh)
        self._tokenizer = self._questions.tokenizer
        self._rows = config.optimizer.batch_sequences
        self.flops_per_batch = drawing_flops(config) + self._rows * reward.flops_per_row // settings.updates
        self._log_p = jax.jit(self._log_probabilities)
        self._number, self._batch = -1, None

    def __call__(self, t: int, params: Params) -> Batch:
        number, update = divmod(t, self._settings.updates)
        if number != self._number:
            assert update == 0, "a run resumes where a batch is drawn"
            with jax.set_mesh(self._mesh):
                self._batch = self._drawn(number, params)
            self._number = number
        return self._batch

    def usage(self, tokens: int) -> DataUsage:
        """What training on `tokens` tokens of prompts and answers has seen of the data."""
        return self._questions.usage(tokens)

    def notes(self) -> list[str]:
        """What is asked, and what is cut of it, in sentences."""
        return self._questions.notes()

    def _drawn(self, number: int, params: Params) -> Batch:
        group = self._settings.group
        questions = [question for question in self._questions(number) for _ in range(group)]
        prompts = [question.prompt for question in questions]
        drawn_BR = self._answers(prompts, params, number)
        tokens_BS, scored_BT = laid_out(prompts, drawn_BR, self._config.model.context)
        batch = {"tokens": self._placed(tokens_BS), "scored": self._placed(scored_BT)}
        ended = (drawn_BR == self._tokenizer.end_of_document).any(axis=1)
        texts = [self._tokenizer.decode(row[row >= 0]) for row in drawn_BR]
        rewards = self._reward(Answers(questions, texts, ended, batch["tokens"], batch["scored"]))
        named = f"the reward model, run {self._settings.reward}," if self._settings.reward else "the checker"
        check_finite(rewards, number * self._settings.updates, named)
        relative = advantages(rewards.reshape(-1, group), self._settings.advantage).reshape(-1)
        batch |= {"reward": self._placed(rewards), "advantage": self._placed(relative.astype(np.float32))}
        if self._settings.updates > 1:
            batch["drawn_log_p"] = self._log_p(params, batch["tokens"], batch["scored"])
        return batch

    def _answers(self, prompts: list[NDArray[np.int32]], params: Params, number: int) -> NDArray[np.int32]:
        prompts_BP = np.zeros((len(prompts), self._config.prompt_tokens), np.int32)
        for row, prompt in zip(prompts_BP, prompts):
            row[: len(prompt)] = prompt
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self._config.seed), ANSWERS_SEED), number)
        drawn_BR = draw(
            params,
            self._placed(prompts_BP),
            self._placed(np.array([len(prompt) for prompt in prompts], np.int32)),
            self._placed(np.arange(len(prompts), dtype=np.int32)),
            key,
            config=self._config.model,
            answer_tokens=self._settings.answer_tokens,
            end_of_document=self._tokenizer.end_of_document,
        )
        return everywhere(drawn_BR)

    def _placed(self, values: NDArray[Any]) -> jax.Array:
        return make_global_array(lambda start, stop: values[start:stop], values.shape, self._sharding)

    def _log_probabilities(self, params: Params, tokens_BS: jax.Array, scored_BT: jax.Array) -> jax.Array:
        """ln p of every answer's tokens, by the program that trains and not by the cache: so the first update's ratios
        are 1 but for rounding."""
        return -token_losses_and_reports(params, tokens_BS, self._config.model, None, scored_BT)[0]


def laid_out(
    prompts: list[NDArray[np.int32]], answers_BR: NDArray[np.int32], context: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Tokens [B, S], -1 behind the answer, and which targets [B, T] are the answer's."""
    tokens_BS = np.full((len(prompts), context + 1), -1, np.int32)
    scored_BT = np.zeros((len(prompts), context), bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers_BR, strict=True)):
        whole = np.concatenate([prompt, answer[answer >= 0]])
        tokens_BS[row, : len(whole)] = whole
        scored_BT[row, len(prompt) - 1 : len(whole) - 1] = True
    return tokens_BS, scored_BT
