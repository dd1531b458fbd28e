"""Reinforcement: answers that the policy has drawn, weighed by their advantage over others to the same prompt.

Letters: B sequences, T positions, S = T + 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, Reinforcement, RunConfig
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.transformer import token_losses_and_reports
from lmscale.lm.objectives.experts import with_experts
from lmscale.lm.objectives.objective import Batch, Objective, Reference, Terms

LEAST_DEVIATION = 1e-4
"""Keeps rewards that are equal but for rounding from becoming large advantages."""


def reinforcement(config: RunConfig, reference_model: ModelConfig) -> Objective:
    """-min(r A, clip(r, 1 - e, 1 + e) A) + beta k3 of every token of an answer, averaged over the answers.

    Shao 2024 (arXiv 2402.03300), eq. 3 and 4: r is the probability of a token over that at which it was drawn, A the
    advantage of its answer, k3 = q/p - ln(q/p) - 1 an unbiased estimate of KL(p || q) to the reference q (Schulman
    2020). `grpo` takes the mean over an answer's tokens, `dr-grpo` their sum by the most that there can be.

    Batches are {"tokens": int32 [B, S], "scored": bool [B, T], "advantage": float32 [B], "reward": float32 [B]}, and
    "drawn_log_p": float32 [B, T] where several updates are made from one batch; without it r is 1, and its gradient
    that of ln p. `reference` are the parameters of the reference policy, or `()`, which leaves the penalty out.
    """
    settings = config.objective
    assert isinstance(settings, Reinforcement)

    def terms(params: Params, reference: Reference, batch: Batch, key: jax.Array) -> Terms:
        tokens_BS, scored_BT = batch["tokens"], batch["scored"]
        nats_BT, _, reports = token_losses_and_reports(params, tokens_BS, config.model, None, scored_BT)
        log_p_BT = -nats_BT
        drawn_BT = batch["drawn_log_p"] if "drawn_log_p" in batch else jax.lax.stop_gradient(log_p_BT)
        loss_BT, clipped_BT = clipped_loss(log_p_BT - drawn_BT, batch["advantage"][:, None], settings.clip)
        answers = jnp.int32(tokens_BS.shape[0])
        length_B = scored_BT.sum(axis=1)
        reported = {
            "reward": batch["reward"].sum(),
            "answer_length": length_B.sum().astype(jnp.float32),
            "clipped": _answer_means(clipped_BT.astype(jnp.float32), scored_BT, length_B).sum(),
        }
        if reference != ():
            theirs_BT, _, _ = token_losses_and_reports(reference, tokens_BS, reference_model, None, scored_BT)
            kl_BT = k3(-jax.lax.stop_gradient(theirs_BT) - log_p_BT)
            loss_BT = loss_BT + settings.kl_weight * kl_BT
            reported["kl_nats"] = jnp.where(scored_BT, kl_BT, 0).sum()
        over_B = length_B if settings.advantage == "grpo" else jnp.full_like(length_B, settings.answer_tokens)
        loss = _answer_means(loss_BT, scored_BT, over_B).sum()
        return with_experts(Terms(loss, loss, answers, reported), reports, jnp.ones_like(length_B), config.model)

    return terms


def clipped_loss(log_ratio_BT: jax.Array, advantage_B1: jax.Array, clip: float) -> tuple[jax.Array, jax.Array]:
    """-min(r A, clip(r) A) (Schulman 2017, arXiv 1707.06347, eq. 7), and where the clip has taken the gradient away."""
    ratio_BT = jnp.exp(log_ratio_BT)
    free_BT, held_BT = ratio_BT * advantage_B1, jnp.clip(ratio_BT, 1 - clip, 1 + clip) * advantage_B1
    return -jnp.minimum(free_BT, held_BT), held_BT < free_BT


def k3(log_ratio: jax.Array) -> jax.Array:
    """q/p - ln(q/p) - 1 >= 0 of ln(q/p): its mean over draws from p is KL(p || q)."""
    return jnp.expm1(log_ratio) - log_ratio


def advantages(rewards_PG: NDArray[Any], kind: str) -> NDArray[Any]:
    """[P, G]: how much better than its group's mean each answer is, over the group's standard deviation for `grpo`.

    The deviation is that of the group itself, with a small number beside it, so a group of equal rewards teaches
    nothing.
    """
    above_PG: NDArray[Any] = rewards_PG - rewards_PG.mean(axis=1, keepdims=True)
    if kind == "dr-grpo":
        return above_PG
    return above_PG / (rewards_PG.std(axis=1, keepdims=True) + LEAST_DEVIATION)


def _answer_means(values_BT: jax.Array, scored_BT: jax.Array, over_B: jax.Array) -> jax.Array:
    """[B]: the sums over each answer's tokens, divided by `over_B`."""
    return jnp.where(scored_BT, values_BT, 0).sum(axis=1) / jnp.maximum(over_B, 1)
