"""A reward model that learns from pairs of answers. The letters are those of `pairs`; D width."""

import jax
import jax.numpy as jnp

from lmscale.core.config import RunConfig
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.scalar_head import rewards
from lmscale.lm.objectives.objective import Batch, Reference
from lmscale.lm.objectives.pairs import PairFunction, PairValues, sequences


def reward_model(config: RunConfig) -> PairFunction:
    """-log sigmoid(r(chosen) - r(rejected)), the pairwise loss of a reward model (Ouyang 2022, eq. 1).

    The chosen answer is preferred with probability sigmoid of the difference (Bradley and Terry 1952); `confidence` is
    the probability that the model gives the answer which it prefers, and equals the accuracy where it is calibrated.
    """

    def of_pairs(params: Params, reference: Reference, batch: Batch, key: jax.Array | None) -> PairValues:
        reward_B, reports = rewards(params, *sequences(batch), config.model, key)
        reward_P2 = reward_B.reshape(-1, 2)
        margin = reward_P2[:, 0] - reward_P2[:, 1]
        others = {"confidence": jax.nn.sigmoid(jnp.abs(margin)), "reward": reward_P2.mean(axis=1)}
        return PairValues(-jax.nn.log_sigmoid(margin), margin, others, reports)

    return of_pairs
