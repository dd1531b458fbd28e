"""Distillation: cross-entropy to a teacher's distribution, mixed with that of the text.

Letters: B sequences, T positions, D width, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmscale.core.config import Distillation, ModelConfig, RunConfig
from lmscale.lm.devices.sharding import constrain
from lmscale.lm.model.cross_entropy import default_chunk
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.transformer import final_residual, head, unembed
from lmscale.lm.objectives.cross_entropy import dropout_key
from lmscale.lm.objectives.experts import with_experts
from lmscale.lm.objectives.objective import Batch, Objective, Reference, Terms


class Sums(NamedTuple):
    """Sums over the scored positions of a stretch of time."""

    kl: jax.Array
    """KL(teacher || student), both at the temperature, of the teacher's largest logits: nats."""
    text: jax.Array
    """The student's cross-entropy of the text."""
    teacher: jax.Array
    """The teacher's own."""
    log_z_squared: jax.Array


def distillation(config: RunConfig, teacher: ModelConfig) -> Objective:
    """(1 - w) tau^2 KL(p_T || p_S) + w CE of the text, per scored token (Hinton 2015, arXiv 1503.02531, section 2).

    p_T and p_S are softmax(logits / tau); tau^2 keeps the gradient's size over temperatures. `reference` are the
    teacher's parameters. Batches are those of `completion` where the corpus has prompts, else tokens [B, T + 1].
    """
    settings = config.objective
    assert isinstance(settings, Distillation)

    def terms(params: Params, reference: Reference, batch: Batch, key: jax.Array) -> Terms:
        tokens_BS = batch["tokens"] if isinstance(batch, dict) else batch
        scored_BT = batch["scored"] if isinstance(batch, dict) else tokens_BS[:, 1:] >= 0
        inputs_BT, read_BT = jnp.maximum(tokens_BS[:, :-1], 0), tokens_BS[:, :-1] >= 0
        student_BTD, params, _, reports = final_residual(
            params, inputs_BT, config.model, dropout_key(config, key), read_BT=read_BT if config.model.sparse else None
        )
        teacher_BTD, reference, _, _ = final_residual(
            reference, inputs_BT, teacher, None, read_BT=read_BT if teacher.sparse else None
        )
        targets_BT = jnp.where(scored_BT, tokens_BS[:, 1:], -1)
        sums = _sums_of_chunks(
            (student_BTD, jax.lax.stop_gradient(teacher_BTD), targets_BT),
            (head(params, config.model), jax.lax.stop_gradient(head(reference, teacher))),
            config,
            teacher,
        )
        weight = settings.text_weight
        objective = (1 - weight) * settings.temperature**2 * sums.kl + weight * sums.text
        objective += config.optimizer.z_loss * sums.log_z_squared
        reported = {"teacher_kl": sums.kl, "teacher_loss_nats": sums.teacher}
        total = Terms(objective, sums.text, scored_BT.sum(), reported)
        return with_experts(total, reports, scored_BT.sum(axis=1), config.model)

    return terms


def _sums_of_chunks(
    arrays: tuple[jax.Array, jax.Array, jax.Array],
    heads: tuple[jax.Array, jax.Array],
    config: RunConfig,
    teacher: ModelConfig,
) -> Sums:
    """The sums over all positions; where all logits of both models are large, chunk after chunk, and again for the
    gradient."""
    batch, time = arrays[2].shape
    chunk = config.model.loss_chunk or default_chunk(batch, time, 2 * config.model.vocab)

    def of(arrays: tuple[jax.Array, jax.Array, jax.Array]) -> Sums:
        return _sums(*arrays, *heads, config, teacher)

    if chunk is None or chunk >= time:
        return of(arrays)
    chunks = -(-time // chunk)
    padding = chunks * chunk - time

    def split(x_BT: jax.Array, fill: int) -> jax.Array:
        padded = jnp.pad(x_BT, ((0, 0), (0, padding), *[(0, 0)] * (x_BT.ndim - 2)), constant_values=fill)
        # Chunk c takes the times c, c + chunks, ...: a share of every device's.
        return jnp.moveaxis(padded.reshape(batch, chunk, chunks, *x_BT.shape[2:]), 2, 0)

    def add(total: Sums, one: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Sums, None]:
        return jax.tree.map(jnp.add, total, jax.checkpoint(of)(one)), None

    split_arrays = split(arrays[0], 0), split(arrays[1], 0), split(arrays[2], -1)
    zero = Sums(*[jnp.zeros((), jnp.promote_types(arrays[0].dtype, jnp.float32))] * 4)
    return jax.lax.scan(add, zero, split_arrays)[0]


def _sums(
    student_BTD: jax.Array,
    teacher_BTD: jax.Array,
    targets_BT: jax.Array,
    student_head_DV: jax.Array,
    teacher_head_DV: jax.Array,
    config: RunConfig,
    teacher: ModelConfig,
) -> Sums:
    settings = config.objective
    assert isinstance(settings, Distillation)
    axes = "batch", "time", "vocab"
    student_BTV = constrain(unembed(student_BTD, student_head_DV, config.model), *axes)
    teacher_BTV = constrain(unembed(teacher_BTD, teacher_head_DV, teacher), *axes)
    scored_BT = targets_BT >= 0
    is_target_BTV = jax.lax.broadcasted_iota(targets_BT.dtype, student_BTV.shape, 2) == targets_BT[..., None]
    log_z_BT = jax.nn.logsumexp(student_BTV, axis=-1)

    def text_nats(logits_BTV: jax.Array, log_z_BT: jax.Array) -> jax.Array:
        return _over(scored_BT, log_z_BT - jnp.where(is_target_BTV, logits_BTV, 0).sum(axis=-1))

    return Sums(
        kl=_over(scored_BT, _kl(teacher_BTV, student_BTV, settings)),
        text=text_nats(student_BTV, log_z_BT),
        teacher=text_nats(teacher_BTV, jax.nn.logsumexp(teacher_BTV, axis=-1)),
        log_z_squared=_over(scored_BT, log_z_BT**2),
    )


def _over(scored_BT: jax.Array, values_BT: jax.Array) -> jax.Array:
    return jnp.where(scored_BT, values_BT, 0).sum()


def _kl(teacher_BTV: jax.Array, student_BTV: jax.Array, settings: Distillation) -> jax.Array:
    """KL(teacher || student) [B, T] at the temperature; with top-k of the teacher's k largest logits, renormalised."""
    teacher_BTV, student_BTV = teacher_BTV / settings.temperature, student_BTV / settings.temperature
    in_top_k_BTV = None
    if settings.top_k is not None and settings.top_k < teacher_BTV.shape[-1]:
        least_BT = jax.lax.top_k(teacher_BTV, settings.top_k)[0][..., -1]
        in_top_k_BTV = teacher_BTV >= least_BT[..., None]
    log_p_BTV = jax.nn.log_softmax(teacher_BTV, axis=-1, where=in_top_k_BTV)
    log_q_BTV = jax.nn.log_softmax(student_BTV, axis=-1)
    p_BTV = jnp.exp(log_p_BTV)
    return jnp.where(p_BTV > 0, p_BTV * (jnp.where(p_BTV > 0, log_p_BTV, 0) - log_q_BTV), 0).sum(axis=-1)
