"""The loss on held-out pairs of answers, and what the objective reports of them: with the KL to the reference of a
policy, with the calibration of a reward model.

Letters: P pairs.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, Preference, RunConfig
from lmscale.lm.data import ValidationSet
from lmscale.lm.devices.collectives import make_global_array
from lmscale.lm.devices.sharding import batch_sharding, replicated
from lmscale.lm.eval.validation import Validation, padded, rows_at_once
from lmscale.lm.model.parameters import Params
from lmscale.lm.objectives import Reference, make_pair_function
from lmscale.lm.objectives.answer_kl import answer_kl

BINS = 10
"""Bins of equal width over the confidences, as in Guo 2017, section 3."""
Values = dict[str, Any]


def make_pair_validation(
    config: RunConfig,
    mesh: Mesh,
    pairs: ValidationSet,
    like: Params,
    reference: Reference = (),
    reference_model: ModelConfig | None = None,
) -> Callable[[Params], Validation]:
    """A function from parameters to the means over all of `pairs`, compiled here for parameters placed as `like`."""
    assert pairs.scored is not None, "answers alone are scored"
    arrays = {"tokens": pairs.windows, "scored": pairs.scored}
    size, sharding = rows_at_once(len(pairs.windows), 2 * config.model.context, mesh), batch_sharding(mesh)

    def placed(part: NDArray[Any]) -> jax.Array:
        return make_global_array(lambda start, stop: part[start:stop], part.shape, sharding)

    def batch_at(start: int) -> dict[str, jax.Array]:
        return {name: placed(padded(array[start : start + size], size)) for name, array in arrays.items()}

    with jax.set_mesh(mesh):
        values_of = jitted_values(config, mesh, reference_model).lower(like, reference, batch_at(0)).compile()

    def validate(params: Params) -> Validation:
        starts = range(0, len(pairs.windows), size)
        batches = [jax.tree.map(np.asarray, values_of(params, reference, batch_at(start))) for start in starts]
        values = {
            name: np.concatenate([batch[name] for batch in batches])[: len(pairs.windows)].astype(np.float64)
            for name in batches[0]
        }
        return of_pairs(values, pairs.tokens)

    return validate


def jitted_values(config: RunConfig, mesh: Mesh, reference_model: ModelConfig | None) -> jax.stages.Wrapped:
    """`pair_values` as a function of parameters, reference and batch; lower it under `jax.set_mesh(mesh)`."""
    return jax.jit(partial(pair_values, config, reference_model or config.model), out_shardings=replicated(mesh))


def pair_values(
    config: RunConfig, reference_model: ModelConfig, params: Params, reference: Reference, batch: Any
) -> Values:
    """What every pair of a batch has, [P] each, by name; the loss is `loss`."""
    values = make_pair_function(config, reference_model)(params, reference, batch, None)
    named = {"loss": values.loss, **values.reported}
    if isinstance(config.objective, Preference):
        named["kl"] = answer_kl(params, reference, batch, config.model, reference_model).mean(axis=1)
    return named


def of_pairs(values: Values, tokens: int) -> Validation:
    """The means over pairs, the unit that is drawn independently; where there are confidences, their calibration."""
    loss_P = values["loss"]
    means = {name: float(value.mean()) for name, value in values.items() if name != "loss"}
    if "confidence" in values:
        means["calibration_error"] = calibration_error(values["confidence"], values["accuracy"])
    return Validation(
        loss_nats=float(loss_P.mean()),
        stderr=float(loss_P.std(ddof=1) / math.sqrt(len(loss_P))) if len(loss_P) > 1 else None,
        bits_per_byte=None,
        tokens=tokens,
        by_position=None,
        reported={name: mean if math.isfinite(mean) else None for name, mean in means.items()},
    )


def calibration_error(confidence_P: NDArray[np.float64], correct_P: NDArray[np.float64]) -> float:
    """The expected calibration error: |accuracy - mean confidence| over bins of confidence, weighed by their pairs
    (Guo 2017, arXiv 1706.04599, eq. 3). A preference between two answers has at least half of the confidence."""
    bins_P = np.minimum((2 * (confidence_P - 0.5) * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins_P, correct_P - confidence_P, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence_P))
