"""The terms that a mixture of experts adds to every objective.

L layers, B sequences, E experts.
"""

import jax

from lmscale.core.config import ModelConfig
from lmscale.lm.model.transformer import Reports
from lmscale.lm.objectives.objective import ExpertLoad, Terms


def with_experts(terms: Terms, reports: Reports, weight_B: jax.Array, model: ModelConfig) -> Terms:
    """`terms`, and the balance loss (DeepSeek-V3, 2024, eq. 17) and the router's z-loss (Zoph 2022, eq. 5 and 6) of
    every layer, with their weights.

    `reports` are those of the layers, `weight_B` what each sequence has of the terms' weight: divided by the whole, the
    losses are means over sequences that weigh as they do in the loss, in whatever parts the batch is read.
    """
    if not model.sparse:
        return terms
    balance_B, z_B = reports["balance_B"].sum(axis=0), reports["router_z_B"].sum(axis=0)
    added_B = model.router.balance_loss * balance_B + model.router.z_loss * z_B
    return terms._replace(
        objective=terms.objective + (added_B * weight_B).sum(),
        reported={
            **terms.reported,
            "balance_loss": (balance_B * weight_B).sum() / model.layers,
            "router_z_loss": (z_B * weight_B).sum() / model.layers,
        },
        load=ExpertLoad(reports["load_BE"].sum(axis=1), reports["dropped"], reports["entropy"]),
    )
