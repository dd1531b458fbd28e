"""What answers earn: what a checker says, or a reward model. The seam between them is `RewardFunction`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from lmscale.core.config import CheckpointName, ModelConfig, Reinforcement, RunConfig
from lmscale.core.counting import flops_per_token_forward
from lmscale.core.errors import UserError
from lmscale.core.run_folder import find_run
from lmscale.core.run_identity import read_config
from lmscale.lm.data.manifest import Manifest
from lmscale.lm.eval.tasks.scores import share_in_place
from lmscale.lm.model import scalar_head
from lmscale.lm.model.parameters import Params
from lmscale.lm.train.last_number import last_number
from lmscale.lm.train.questions import Question
from lmscale.lm.train.references import load_read_model

CheckerKind = Literal["exact", "graded", "number"]
"""How an answer is compared with the right one (`Reinforcement.checker`)."""


@dataclass(frozen=True)
class Answers:
    """Answers that were drawn, row by row: as text, and as the tokens that a model reads."""

    questions: Sequence[Question]
    texts: Sequence[str]
    """Each answer up to its end of document; one without an end, which was cut, is never a correct answer."""
    ended: NDArray[np.bool_]
    """Whether the answer came to its end."""
    tokens_BS: jax.Array
    """Prompt and answer, on the run's mesh, -1 behind them."""
    scored_BT: jax.Array
    """Which targets are the answer's."""


class RewardFunction(Protocol):
    """What each answer earns."""

    flops_per_row: int
    """FLOPs of the reward of one sequence."""

    def __call__(self, answers: Answers) -> NDArray[np.float32]:
        """Rewards [B], the same in every process."""


class Checker:
    """What a comparison with the right answer says."""

    flops_per_row = 0

    def __init__(self, kind: CheckerKind) -> None:
        self._compare, self._whole_alone = CHECKERS[kind], kind != "graded"

    def __call__(self, answers: Answers) -> NDArray[np.float32]:
        rows = zip(answers.questions, answers.texts, answers.ended, strict=True)
        return np.array(
            [
                self._compare(question.answer, text) if ended or not self._whole_alone else 0.0
                for question, text, ended in rows
            ],
            np.float32,
        )


def exact(right: str, given: str) -> float:
    """1 for the right answer, to the letter."""
    return float(given == right)


def same_number(right: str, given: str) -> float:
    """1 where the last number is that of the right answer."""
    return float(last_number(given) == last_number(right))


CHECKERS: dict[CheckerKind, Callable[[str, str], float]] = {
    "exact": exact,
    "graded": share_in_place,
    "number": same_number,
}
"""What (right answer, answer) earns, at most 1."""


class ModelReward:
    """The scalar of a reward model that reads prompt and answer."""

    def __init__(self, model: ModelConfig, params: Params, context: int) -> None:
        self._params = params
        self.flops_per_row = flops_per_token_forward(replace(model, context=context)) * context
        self._read = jax.jit(lambda params, tokens, scored: scalar_head.rewards(params, tokens, scored, model)[0])

    def __call__(self, answers: Answers) -> NDArray[np.float32]:
        return self.of_tokens(answers.tokens_BS, answers.scored_BT)

    def of_tokens(self, tokens_BS: Any, scored_BT: Any) -> NDArray[np.float32]:
        """Rewards [B] of prompts with their answers, which `scored_BT` marks."""
        return everywhere(self._read(self._params, tokens_BS, scored_BT))


def everywhere(values: jax.Array) -> NDArray[Any]:
    """A global array, whole in every process."""
    if jax.process_count() == 1:
        return np.asarray(values)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values, tiled=True))


def reward_model(config: RunConfig, folder: Path) -> ModelConfig | None:
    """The shape of the reward model that the run in `folder` names; None where it names none. Raises `UserError` as
    `find_run` does."""
    name = config.parents.get("reward")
    return None if name is None else read_config(find_run(name.run_id, folder)).model


def reward_of(config: RunConfig, folder: Path, manifest: Manifest, mesh: Mesh) -> RewardFunction:
    """The reward that the run in `folder` names.

    Raises `UserError` for a reward model that is missing, diverged or without that checkpoint, that is none, or that
    does not fit the run's context and the ids of the text of `manifest`.
    """
    settings = config.objective
    assert isinstance(settings, Reinforcement)
    if not settings.reward:
        return Checker(settings.checker)
    name = CheckpointName.parse(settings.reward, "Reinforcement.reward")
    judge = load_read_model(config, "reward", name, folder, manifest, mesh)
    return ModelReward(judge.model, judge.params, config.model.context)


def check_finite(rewards: NDArray[np.float32], step: int, name: str) -> None:
    """Raise `UserError` where an answer has no finite reward."""
    wrong = int((~np.isfinite(rewards)).sum())
    if wrong:
        raise UserError(
            f"step {step + 1}: {name} gave {wrong} of {len(rewards)} answers a reward that is not finite "
            f"({rewards[~np.isfinite(rewards)][0]}), from which nothing can be learned; look into it with "
            f"`lmscale eval`, or name another"
        )
