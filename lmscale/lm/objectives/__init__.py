"""What a training step minimises: functions of (params, reference, batch, key) that return sums over examples."""

from lmscale.core.config import Completion, Distillation, ModelConfig, NextToken, RunConfig
from lmscale.lm.objectives.cross_entropy import completion, next_token
from lmscale.lm.objectives.distillation import distillation
from lmscale.lm.objectives.objective import Batch, ExpertLoad, Objective, Reference, Terms

__all__ = ["Batch", "ExpertLoad", "Objective", "Reference", "Terms", "make_objective"]

_MAKERS = {NextToken: next_token, Completion: completion}


def make_objective(config: RunConfig, reference_model: ModelConfig | None = None) -> Objective:
    """The objective that a run's configuration names.

    `reference_model` is the shape of the teacher or reference that it reads; None takes that of the run's own model.
    """
    if isinstance(config.objective, Distillation):
        return distillation(config, reference_model or config.model)
    return _MAKERS[type(config.objective)](config)
