"""Builders of what comes after pretraining: points whose runs start from others, or learn from them."""

from collections.abc import Iterable, Sequence
from typing import Any

from lmscale.core.arguments import Positive, checked
from lmscale.core.config import DISTIL, FINE_TUNE, PREFER, REINFORCE, REWARD, OptimizerConfig, check
from lmscale.study.sweep.parents import PARENT_FIELDS
from lmscale.study.sweep.points import Point, Points, grid, product

LORA_AXES = {"lora_rank": "rank", "lora_alpha": "alpha", "lora_matrices": "matrices"}
"""Coordinates of a point, with the field of `LoraConfig` that each sets."""
OF_ONE_STAGE = frozenset(
    {
        "name", "stage", "flops", "tokens", "tokens_per_param", "unique_tokens", "trunk", "trunk_tokens", "group",
        "held_out", *PARENT_FIELDS, *LORA_AXES, *OptimizerConfig.__dataclass_fields__,
    }
)  # fmt: skip
"""Fields of a point that say how long and how a stage is trained; the others say which model it is."""


@checked
def fine_tune(parents: Iterable[Point], *, tokens: Positive | Sequence[Positive], **axes: Iterable[Any]) -> Points:
    """Every parent, trained on from its parameters for each number of tokens, at every value of further `axes`.

    Add them to the parents they start from: chain(parents, fine_tune(parents, tokens=[1e5, 1e6])). The recipe gives
    their data and objective: `recipes.by_stage(pretrain=..., fine_tune=...)`.
    """
    start = [{**model_of(parent), "init_from": parent, "stage": FINE_TUNE} for parent in parents]
    check(bool(start), "fine_tune(...): there are no parents; give the points of a pretraining ladder")
    return product(start, grid(tokens=_lengths("fine_tune", tokens), **axes))


@checked
def distil(
    teachers: Iterable[Point],
    students: Sequence[Positive | Point],
    *,
    tokens: Positive | Sequence[Positive],
    **axes: Iterable[Any],
) -> Points:
    """Every student (N, or a point), taught by every teacher for each number of tokens (Busbridge 2025).

    Add them to the teachers: chain(teachers, distil(teachers, [1e5, 1e6], tokens=2e7)); the recipe of the stage
    `distil` has the objective `Distillation(...)`.
    """
    models = [
        model_of(student) if not isinstance(student, int | float) else {"params": float(student)}
        for student in students
    ]
    start = [{**model, "teacher": teacher, "stage": DISTIL} for teacher in teachers for model in models]
    check(bool(start), "distil(...): there are no teachers or no students; give points of both")
    return product(start, grid(tokens=_lengths("distil", tokens), **axes))


@checked
def prefer(parents: Iterable[Point], *, tokens: Positive | Sequence[Positive], **axes: Iterable[Any]) -> Points:
    """Every parent, trained on pairs of answers for each number of tokens, with the parent as the reference.

    Add them to the parents they start from: chain(parents, prefer(parents, tokens=[1e5, 1e6])); the recipe of the stage
    `prefer` has the objective `Preference(...)` and data of pairs. Tokens are those of both answers with their prompts.
    """
    start = [{**model_of(parent), "init_from": parent, "reference": parent, "stage": PREFER} for parent in parents]
    check(bool(start), "prefer(...): there are no parents; give the points of runs that can answer")
    return product(start, grid(tokens=_lengths("prefer", tokens), **axes))


@checked
def reward(parents: Iterable[Point], *, tokens: Positive | Sequence[Positive], **axes: Iterable[Any]) -> Points:
    """A reward model from every parent, trained on pairs of answers for each number of tokens.

    Add them to the parents they start from: chain(parents, reward(parents, tokens=[1e5, 1e6])); the recipe of the stage
    `reward` has the objective `RewardModel()` and data of pairs. Tokens are counted as in `prefer`.
    """
    start = [{**model_of(parent), "init_from": parent, "stage": REWARD} for parent in parents]
    check(bool(start), "reward(...): there are no parents; give the points of runs that can answer")
    return product(start, grid(tokens=_lengths("reward", tokens), **axes))


@checked
def reinforce(
    parents: Iterable[Point],
    *,
    tokens: Positive | Sequence[Positive],
    reward: Point | str | None = None,
    **axes: Iterable[Any],
) -> Points:
    """Every parent, trained for each number of tokens on answers that it draws itself; the parent is the reference.

    Rewards are those of a checker, or of the reward model at the point `reward`. Add them to what they need:
    chain(parents, reinforce(parents, tokens=[1e5, 1e6])); the recipe of the stage `reinforce` has the objective
    `Reinforcement(...)` and data of tasks or of prompts. Tokens are those of prompts, answers and the padding behind
    them.
    """
    earned = {} if reward is None else {"reward": reward}
    start = [
        {**model_of(parent), "init_from": parent, "reference": parent, **earned, "stage": REINFORCE}
        for parent in parents
    ]
    check(bool(start), "reinforce(...): there are no parents; give the points of runs that can answer")
    return product(start, grid(tokens=_lengths("reinforce", tokens), **axes))


def model_of(point: Point) -> dict[str, Any]:
    """What a point says about its model, and its seed."""
    return {name: value for name, value in point.items() if name not in OF_ONE_STAGE}


def _lengths(builder: str, tokens: float | Sequence[float]) -> list[float]:
    lengths = [float(tokens)] if isinstance(tokens, int | float) else [float(count) for count in tokens]
    check(bool(lengths), f"{builder}(tokens=()): give at least one number of tokens")
    return lengths
