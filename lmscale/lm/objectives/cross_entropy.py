"""Cross-entropy objectives: of every token, and of completions alone."""

import jax

from lmscale.core.config import RunConfig
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.transformer import Reports, token_losses_and_reports
from lmscale.lm.objectives.experts import with_experts
from lmscale.lm.objectives.objective import Batch, Objective, Reference, Terms


def next_token(config: RunConfig) -> Objective:
    """Mean cross-entropy of every token given those before it (Bengio 2003); batches are tokens [B, T + 1].

    Tokens below 0 are padding: read as 0, and not scored.
    """

    def terms(params: Params, reference: Reference, batch: Batch, key: jax.Array) -> Terms:
        losses = token_losses_and_reports(params, batch, config.model, dropout_key(config, key))
        return _sums(config, *losses, batch[:, 1:] >= 0)

    return terms


def completion(config: RunConfig) -> Objective:
    """Mean cross-entropy of the tokens that `scored` marks, given all before them: prompts are read and not scored.

    Batches are {"tokens": int32 [B, T + 1], "scored": bool [B, T]}: whether the target at each position counts
    (supervised fine-tuning, Ouyang 2022, section 3.5).
    """

    def terms(params: Params, reference: Reference, batch: Batch, key: jax.Array) -> Terms:
        tokens_BS, scored_BT = batch["tokens"], batch["scored"]
        losses = token_losses_and_reports(params, tokens_BS, config.model, dropout_key(config, key), scored_BT)
        return _sums(config, *losses, scored_BT)

    return terms


def dropout_key(config: RunConfig, key: jax.Array) -> jax.Array | None:
    """`key` where the model drops numbers out, None else."""
    return key if config.model.residual_dropout > 0 or config.model.attention_dropout > 0 else None


def _sums(config: RunConfig, nats_BT: jax.Array, log_z_BT: jax.Array, reports: Reports, scored_BT: jax.Array) -> Terms:
    """With the z-loss of PaLM (Chowdhery 2022, section 5): its weight times the squared log-partition.

    Both inputs are 0 where nothing is scored, so no position without a score has a share in the sums.
    """
    z_loss = config.optimizer.z_loss
    objective_BT = nats_BT + z_loss * log_z_BT**2 if z_loss else nats_BT
    terms = Terms(objective_BT.sum(), nats_BT.sum(), scored_BT.sum(), {})
    return with_experts(terms, reports, scored_BT.sum(axis=1), config.model)
