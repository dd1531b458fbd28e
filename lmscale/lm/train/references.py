"""Models that a run reads and does not train: a teacher, or the reference of a policy.

They are placed like parameters and are in no checkpoint.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from lmscale.core.config import IMPORTED, READ_ROLES, CheckpointName, ModelConfig, RunConfig, check, check_read
from lmscale.core.results import outcome_or_problem
from lmscale.core.run_folder import find_run
from lmscale.core.run_identity import read_config
from lmscale.lm.data.manifest import Manifest
from lmscale.lm.data.tokenizer import imported_tokenizer
from lmscale.lm.devices.sharding import shardings
from lmscale.lm.model.parameters import Params, init, parameter_table
from lmscale.lm.train.checkpoint import Checkpoints


class ReferenceModel(NamedTuple):
    """A model that is read beside the one that is trained."""

    model: ModelConfig
    params: Params
    """On the mesh of the run that reads it; the averaged ones where its own run has them."""


def reference_model(config: RunConfig, folder: Path) -> ModelConfig | None:
    """The shape of the model that the run in `folder` reads; None where it reads none. Raises `UserError` as `find_run`
    does."""
    _, name = _read(config)
    return None if name is None else read_config(find_run(name.run_id, folder)).model


def _read(config: RunConfig) -> tuple[str, CheckpointName | None]:
    """What a run reads another as, and which."""
    return next(((role, config.parents[role]) for role in READ_ROLES if role in config.parents), ("", None))


def load_reference(config: RunConfig, folder: Path, manifest: Manifest, mesh: Mesh) -> ReferenceModel | None:
    """The model that the run in `folder` reads; None where it reads none.

    Raises `UserError` for one that is missing, diverged or without that checkpoint, for one with other ids than the
    text of `manifest`, with a shorter context than the run's or without a next token.
    """
    role, name = _read(config)
    return None if name is None else load_read_model(config, role, name, folder, manifest, mesh)


def load_read_model(
    config: RunConfig, role: str, name: CheckpointName, folder: Path, manifest: Manifest, mesh: Mesh
) -> ReferenceModel:
    """The model called `name` that the run in `folder` reads in this role. Raises `UserError` as `load_reference`."""
    parent = find_run(name.run_id, folder)
    other = read_config(parent)
    check_finished(parent, name)
    check_read(config, role, name.run_id, other.model)
    params, fingerprint = saved_params(parent, name, other, mesh)
    check_tokenizer(role, name, fingerprint, manifest.tokenizer_fingerprint, manifest.source)
    return ReferenceModel(other.model, params)


def check_tokenizer(role: str, name: CheckpointName, theirs: str, own: str | None, source: str) -> None:
    """Raise `UserError` where the fingerprints of the tokenizers of a parent and of a run's own text, if known, differ.

    A tokenizer that is trained, `bpe:V`, is another for every text.
    """
    check(
        not (theirs and own) or theirs == own,
        f"the {role}, run {name.run_id}, was trained with another tokenizer than that of {source} (fingerprint "
        f"{theirs}, here {own}): an id would mean other text to each; give both one tokenizer, as a path to its "
        f"tokenizer.json",
    )


def random_reference(model: ModelConfig, mesh: Mesh) -> Params:
    """Random parameters of a model that is read, placed as those of a checkpoint would be."""
    return jax.jit(partial(init, model), out_shardings=_placed(model, mesh))(jax.random.key(0))


def check_finished(folder: Path, name: CheckpointName) -> None:
    """Raise `UserError` where a run that is to be a parent has diverged."""
    outcome, _ = outcome_or_problem(folder)
    check(
        outcome is None or outcome.state != "diverged",
        f"run {name.run_id}, which this run needs, has diverged; name one that has finished",
    )


def saved_params(folder: Path, name: CheckpointName, config: RunConfig, mesh: Mesh) -> tuple[Params, str]:
    """The parameters of a run on `mesh`, averaged where it has those, and its tokenizer's fingerprint, if known."""
    table, placed = parameter_table(config.model), _placed(config.model, mesh)
    dtype = config.model.param_dtype
    like = {row: jax.ShapeDtypeStruct(spec.shape, dtype, sharding=placed[row]) for row, spec in table.items()}
    field = "params" if config.optimizer.ema_decay is None else "ema"
    step = config.steps if name.step is None else name.step
    state, facts = Checkpoints(folder, name.run_id).restore_step(step, {field: like})
    if config.data.source.startswith(IMPORTED):
        return state[field], imported_tokenizer(folder, config.data.tokenizer).fingerprint
    return state[field], facts.get("tokenizer_fingerprint") or ""


def _placed(model: ModelConfig, mesh: Mesh) -> dict[str, NamedSharding]:
    """Where every parameter of a model lies."""
    return shardings({row: (spec.shape, spec.axes) for row, spec in parameter_table(model).items()}, mesh)
