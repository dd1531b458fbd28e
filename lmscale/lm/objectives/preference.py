"""Preferences without a reward model: DPO and IPO. The letters are those of `pairs`."""

import jax

from lmscale.core.config import ModelConfig, Preference, RunConfig
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.transformer import Reports, token_losses_and_reports
from lmscale.lm.objectives.objective import Batch, Reference
from lmscale.lm.objectives.pairs import PairFunction, PairValues, sequences


def preference(config: RunConfig, reference_model: ModelConfig) -> PairFunction:
    """The loss of the margin beta h of the policy's implicit rewards, beta log p(answer) / p_reference(answer).

    Rafailov 2023 (arXiv 2305.18290), eq. 7; Azar 2023 (arXiv 2310.12036), eq. 17. `reference` are the parameters of the
    reference policy.
    """
    settings = config.objective
    assert isinstance(settings, Preference)
    loss_of = dpo if settings.loss == "dpo" else ipo

    def of_pairs(params: Params, reference: Reference, batch: Batch, key: jax.Array | None) -> PairValues:
        log_p_P2, reports = answer_log_probs(params, batch, config.model, key)
        log_q_P2, _ = answer_log_probs(reference, batch, reference_model, None)
        reward_P2 = settings.beta * (log_p_P2 - jax.lax.stop_gradient(log_q_P2))
        margin = reward_P2[:, 0] - reward_P2[:, 1]
        rewards = {"chosen_reward": reward_P2[:, 0], "rejected_reward": reward_P2[:, 1]}
        return PairValues(loss_of(margin, settings), margin, rewards, reports)

    return of_pairs


def dpo(margin: jax.Array, settings: Preference) -> jax.Array:
    """-(1 - e) log sigmoid(margin) - e log sigmoid(-margin); e is the label smoothing of cDPO (Mitchell 2023)."""
    smoothing = settings.label_smoothing
    return -(1 - smoothing) * jax.nn.log_sigmoid(margin) - smoothing * jax.nn.log_sigmoid(-margin)


def ipo(margin: jax.Array, settings: Preference) -> jax.Array:
    """(h - 1 / (2 beta))^2 with h = margin / beta."""
    return (margin / settings.beta - 1 / (2 * settings.beta)) ** 2


def answer_log_probs(
    params: Params, batch: Batch, model: ModelConfig, key: jax.Array | None
) -> tuple[jax.Array, Reports]:
    """log p of each answer given its prompt, [P, 2] in nats, and what the layers report."""
    tokens_BS, scored_BT = sequences(batch)
    nats_BT, _, reports = token_losses_and_reports(params, tokens_BS, model, key, scored_BT)
    return -nats_BT.sum(axis=1).reshape(-1, 2), reports
