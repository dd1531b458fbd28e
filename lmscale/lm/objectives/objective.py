"""The interface between a training step and what it minimises."""

from typing import Any, NamedTuple, Protocol

import flax.struct
import jax

from lmscale.lm.model.parameters import Params

Batch = Any
"""A tree of arrays whose first axis counts examples: micro-batches and devices cut along it, and never within one."""
Reference = Any
"""A tree of parameters that are read and never trained (a teacher, a reference policy); `()` where there is none. It is
placed like parameters and stands in no checkpoint."""


@flax.struct.dataclass
class ExpertLoad:
    """What became of a batch's tokens in the layers' experts: sums over the tokens."""

    counts_LE: jax.Array
    """Tokens that chose an expert, int32."""
    dropped_L: jax.Array
    """Choices that found no room at their expert, int32."""
    entropy_L: jax.Array
    """Nats of the distribution over experts that the router gives a token, float32."""


class Terms(NamedTuple):
    """Sums over the examples of a batch, so that those of its parts add up to those of the whole."""

    objective: jax.Array
    """What is differentiated."""
    loss: jax.Array
    """What is logged as the loss, without regularisers: nats."""
    weight: jax.Array
    """What both are divided by: the number of scored tokens, or of pairs."""
    reported: dict[str, jax.Array]
    """Further named sums, divided by `weight` too: they reach `metrics.jsonl`, the live status and the outcome."""
    load: ExpertLoad | None = None
    """How a mixture of experts shared out the tokens: what the bias of its routers follows, and what is logged of every
    layer. Where an objective gives none, the bias stays as it is."""


class Objective(Protocol):
    """What a step minimises. Pure."""

    def __call__(self, params: Params, reference: Reference, batch: Batch, key: jax.Array) -> Terms:
        """The terms of a batch; `key` is for dropout and other random numbers."""
