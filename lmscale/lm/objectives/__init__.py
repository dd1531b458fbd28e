"""What a training step minimises: functions of (params, reference, batch, key) that return sums over examples."""

from lmscale.core.config import Completion, Distillation, ModelConfig, NextToken, Preference, Reinforcement, RunConfig
from lmscale.lm.objectives.cross_entropy import completion, next_token
from lmscale.lm.objectives.distillation import distillation
from lmscale.lm.objectives.objective import Batch, ExpertLoad, Objective, Reference, Terms
from lmscale.lm.objectives.pairs import PairFunction, PairValues, sum_of_pairs
from lmscale.lm.objectives.preference import preference
from lmscale.lm.objectives.reinforcement import reinforcement
from lmscale.lm.objectives.reward_model import reward_model

__all__ = [
    "Batch",
    "ExpertLoad",
    "Objective",
    "PairFunction",
    "PairValues",
    "Reference",
    "Terms",
    "make_objective",
    "make_pair_function",
]

_MAKERS = {NextToken: next_token, Completion: completion}


def make_objective(config: RunConfig, reference_model: ModelConfig | None = None) -> Objective:
    """The objective that a run's configuration names.

    `reference_model` is the shape of the teacher or reference that it reads; None takes that of the run's own model.
    """
    if config.data.pairs:
        return sum_of_pairs(config, make_pair_function(config, reference_model))
    if isinstance(config.objective, Distillation):
        return distillation(config, reference_model or config.model)
    if isinstance(config.objective, Reinforcement):
        return reinforcement(config, reference_model or config.model)
    return _MAKERS[type(config.objective)](config)


def make_pair_function(config: RunConfig, reference_model: ModelConfig | None = None) -> PairFunction:
    """What each pair has of the objective of a run that learns from pairs of answers; see `make_objective`."""
    if isinstance(config.objective, Preference):
        return preference(config, reference_model or config.model)
    return reward_model(config)
