"""Models that a run reads and does not train: a teacher. They are placed like parameters and are in no checkpoint."""

from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from lmscale.core.config import IMPORTED, CheckpointName, ModelConfig, RunConfig, check
from lmscale.core.results import outcome_or_problem
from lmscale.core.run_folder import find_run
from lmscale.core.run_identity import read_config
from lmscale.lm.data.manifest import Manifest
from lmscale.lm.data.tokenizer import imported_tokenizer
from lmscale.lm.devices.sharding import shardings
from lmscale.lm.model.parameters import Params, parameter_table
from lmscale.lm.train.checkpoint import Checkpoints


class ReferenceModel(NamedTuple):
    """A model that is read beside the one that is trained."""

    model: ModelConfig
    params: Params
    """On the mesh of the run that reads it; the averaged ones where its own run has them."""


def reference_model(config: RunConfig, folder: Path) -> ModelConfig | None:
    """The shape of the teacher that the run in `folder` names; None where it names none. Raises `UserError` as
    `find_run` does."""
    name = config.parents.get("teacher")
    return None if name is None else read_config(find_run(name.run_id, folder)).model


def load_reference(config: RunConfig, folder: Path, manifest: Manifest, mesh: Mesh) -> ReferenceModel | None:
    """The teacher that the run in `folder` names; None where it names none.

    Raises `UserError` for one that is missing, diverged or without that checkpoint, and for one with other ids than the
    text of `manifest` or a shorter context than the run's.
    """
    if (name := config.parents.get("teacher")) is None:
        return None
    there = find_run(name.run_id, folder)
    other = read_config(there)
    check_finished(there, name)
    check(
        other.model.vocab == config.model.vocab,
        f"the teacher, run {name.run_id}, has {other.model.vocab:,} ids, and this run {config.model.vocab:,}; give "
        f"both one tokenizer",
    )
    check(
        config.model.context <= other.model.context,
        f"the teacher, run {name.run_id}, reads at most {other.model.context:,} tokens, and this run's context is "
        f"{config.model.context:,}; take a context of at most {other.model.context:,}",
    )
    params, fingerprint = saved_params(there, name, other, mesh)
    if other.data.source.startswith(IMPORTED):
        fingerprint = imported_tokenizer(there, other.data.tokenizer).fingerprint
    check(
        not fingerprint or fingerprint == manifest.tokenizer_fingerprint,
        f"the teacher, run {name.run_id}, was trained with another tokenizer than {manifest.tokenizer!r} of "
        f"{manifest.source} (fingerprint {fingerprint}, here {manifest.tokenizer_fingerprint}): an id would mean other "
        f"text to each; give both one tokenizer",
    )
    return ReferenceModel(other.model, params)


def check_finished(folder: Path, name: CheckpointName) -> None:
    """Raise `UserError` where a run that is to be a parent has diverged."""
    outcome, _ = outcome_or_problem(folder)
    check(
        outcome is None or outcome.state != "diverged",
        f"run {name.run_id}, which this run needs, has diverged; name one that has finished",
    )


def saved_params(folder: Path, name: CheckpointName, config: RunConfig, mesh: Mesh) -> tuple[Params, str]:
    """The parameters of a run on `mesh`, averaged where it has those, and its tokenizer's fingerprint, if known."""
    table = parameter_table(config.model)
    placed = shardings({row: (spec.shape, spec.axes) for row, spec in table.items()}, mesh)
    dtype = config.model.param_dtype
    like = {row: jax.ShapeDtypeStruct(spec.shape, dtype, sharding=placed[row]) for row, spec in table.items()}
    field = "params" if config.optimizer.ema_decay is None else "ema"
    step = config.steps if name.step is None else name.step
    state, facts = Checkpoints(folder, name.run_id).restore_step(step, {field: like})
    return state[field], facts.get("tokenizer_fingerprint") or ""
