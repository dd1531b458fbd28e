"""How far a policy has moved from its reference on the answers of pairs.

Letters: B sequences, T positions, D width, V vocabulary.
"""

import jax
import jax.numpy as jnp

from lmscale.core.config import ModelConfig
from lmscale.lm.devices.sharding import constrain
from lmscale.lm.model.cross_entropy import default_chunk
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.transformer import final_residual, head, unembed
from lmscale.lm.objectives.objective import Batch, Reference
from lmscale.lm.objectives.pairs import sequences


def answer_kl(
    params: Params, reference: Reference, batch: Batch, model: ModelConfig, reference_model: ModelConfig
) -> jax.Array:
    """KL(policy || reference) of every next token of an answer, summed over its tokens, in nats: [P, 2].

    Exact at the beginnings that the corpus has; on answers of the policy's own it is another number. Where all logits
    of both models are large they are computed chunk after chunk of time.
    """
    tokens_BS, scored_BT = sequences(batch)
    inputs_BT, read_BT = jnp.maximum(tokens_BS[:, :-1], 0), tokens_BS[:, :-1] >= 0
    streams, heads = [], []
    for weights, shape in ((params, model), (reference, reference_model)):
        final_BTD, cast, _, _ = final_residual(
            weights, inputs_BT, shape, None, read_BT=read_BT if shape.sparse else None
        )
        streams.append(final_BTD)
        heads.append(head(cast, shape))

    def of(ours_BTD: jax.Array, theirs_BTD: jax.Array, scored_BT: jax.Array) -> jax.Array:
        axes = "batch", "time", "vocab"
        log_p_BTV, log_q_BTV = (
            jax.nn.log_softmax(constrain(unembed(final_BTD, head_DV, shape), *axes), axis=-1)
            for final_BTD, head_DV, shape in zip((ours_BTD, theirs_BTD), heads, (model, reference_model))
        )
        kl_BT = (jnp.exp(log_p_BTV) * (log_p_BTV - log_q_BTV)).sum(axis=-1)
        return jnp.where(scored_BT, kl_BT, 0).sum(axis=1)

    batch_size, time = inputs_BT.shape
    chunk = model.loss_chunk or default_chunk(batch_size, time, 2 * model.vocab)
    if chunk is None or chunk >= time:
        return of(streams[0], streams[1], scored_BT).reshape(-1, 2)
    chunks = -(-time // chunk)

    def split(x_BT: jax.Array) -> jax.Array:
        padded = jnp.pad(x_BT, ((0, 0), (0, chunks * chunk - time), *[(0, 0)] * (x_BT.ndim - 2)))
        # Chunk c takes the times c, c + chunks, ...: a share of every device's.
        return jnp.moveaxis(padded.reshape(batch_size, chunk, chunks, *x_BT.shape[2:]), 2, 0)

    arrays = split(streams[0]), split(streams[1]), split(scored_BT)
    total_B, _ = jax.lax.scan(
        lambda total_B, one: (total_B + of(*one), None), jnp.zeros(batch_size, jnp.float32), arrays
    )
    return total_B.reshape(-1, 2)
