"""What a pair of answers has of an objective, and the objective as the sum over pairs.

Batches are {"tokens": int32 [P, 2, T + 1], "scored": bool [P, 2, T]}: the prompt with the chosen answer, and with the
rejected one; `scored` marks the answers. Letters: P pairs, B = 2 P sequences, T positions, S = T + 1.
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lmscale.core.config import RunConfig
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.transformer import Reports
from lmscale.lm.objectives.cross_entropy import dropout_key
from lmscale.lm.objectives.experts import with_experts
from lmscale.lm.objectives.objective import Batch, Objective, Reference, Terms


class PairValues(NamedTuple):
    """What every pair has of an objective, [P] each."""

    loss: jax.Array
    """What is minimised."""
    margin: jax.Array
    """By how much the chosen answer is preferred: nats of log-odds, below 0 where the rejected one is."""
    others: dict[str, jax.Array]
    """What is reported besides."""
    reports: Reports
    """What the layers of the model that is trained report, of all B sequences."""

    @property
    def reported(self) -> dict[str, jax.Array]:
        """All that is reported, by name. A pair without a preference counts as half right."""
        return {"accuracy": (jnp.sign(self.margin) + 1) / 2, "margin": self.margin, **self.others}


class PairFunction(Protocol):
    """The values of every pair of a batch. Pure."""

    def __call__(self, params: Params, reference: Reference, batch: Batch, key: jax.Array | None) -> PairValues:
        """Dropout is off without a key."""


def sum_of_pairs(config: RunConfig, of_pairs: PairFunction) -> Objective:
    """The objective whose terms are sums over pairs."""

    def terms(params: Params, reference: Reference, batch: Batch, key: jax.Array) -> Terms:
        values = of_pairs(params, reference, batch, dropout_key(config, key))
        pairs = jnp.float32(len(values.loss))
        reported = {name: value.sum() for name, value in values.reported.items()}
        total = Terms(values.loss.sum(), values.loss.sum(), pairs, reported)
        return with_experts(total, values.reports, jnp.full(2 * len(values.loss), 0.5), config.model)

    return terms


def sequences(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The tokens [B, T + 1] of the answers of all pairs with their prompts, and what of them is scored, [B, T]."""
    tokens_P2S, scored_P2T = batch["tokens"], batch["scored"]
    return tokens_P2S.reshape(-1, tokens_P2S.shape[-1]), scored_P2T.reshape(-1, scored_P2T.shape[-1])
