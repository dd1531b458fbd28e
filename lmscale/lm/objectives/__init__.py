"""What a training step minimises: functions of (params, reference, batch, key) that return sums over examples."""

from lmscale.core.config import Completion, NextToken, RunConfig
from lmscale.lm.objectives.cross_entropy import completion, next_token
from lmscale.lm.objectives.objective import Batch, ExpertLoad, Objective, Reference, Terms

__all__ = ["Batch", "ExpertLoad", "Objective", "Reference", "Terms", "make_objective"]

_MAKERS = {NextToken: next_token, Completion: completion}


def make_objective(config: RunConfig) -> Objective:
    """The objective that a run's configuration names."""
    return _MAKERS[type(config.objective)](config)
