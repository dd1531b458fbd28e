"""Open a trained run: its configuration, its parameters on this machine's devices, and its tokenizer."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from lmscale.core.config import IMPORTED, MeshConfig, RunConfig, check
from lmscale.core.errors import UserError
from lmscale.core.run_folder import CONFIG_FILE, no_run
from lmscale.core.run_identity import read_config
from lmscale.lm import data
from lmscale.lm.data.tokenizer import Tokenizer, imported_tokenizer
from lmscale.lm.devices.sharding import make_mesh, shardings
from lmscale.lm.model.lora import merged
from lmscale.lm.model.parameters import Params, parameter_table
from lmscale.lm.train.checkpoint import Checkpoints


class TrainedRun(NamedTuple):
    """A trained model and what it reads with."""

    config: RunConfig
    params: Params
    """The parameters that are evaluated: the averaged ones where the run has them."""
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Opened:
    """A trained run with where it came from and where it lies."""

    run: TrainedRun
    step: int
    """Updates done."""
    mesh: Mesh


def without_adapters(run: TrainedRun) -> TrainedRun:
    """The run with what its adapters add merged into the matrices; one without adapters as it is."""
    params, model = merged(run.params, run.config.model)
    return run if model is run.config.model else run._replace(config=replace(run.config, model=model), params=params)


def load(folder: str | Path, step: int | None = None) -> TrainedRun:
    """(configuration, parameters, tokenizer) of the run in `folder`, after `step` updates or at its newest checkpoint.

    The parameters lie on the run's own mesh where this machine has its devices, else on one device. Raises `UserError`
    for a folder without a run, and for a run without that checkpoint.
    """
    return open_run(Path(folder), step).run


def open_run(folder: Path, step: int | None = None) -> Opened:
    """A run, as `load` gives it; where its newest checkpoint cannot be read, the one before, and a sentence says so."""
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(no_run(folder))
    config = read_config(folder)
    mesh = make_mesh(config.mesh if config.mesh.devices <= jax.device_count() else MeshConfig())
    params, step, facts = _params(config, folder, step, mesh)
    imported = config.data.source.startswith(IMPORTED)
    tokenizer = (
        imported_tokenizer(folder, config.data.tokenizer) if imported else _tokenizer_of_data(config, folder, facts)
    )
    return Opened(TrainedRun(config, params, tokenizer), step, mesh)


def _tokenizer_of_data(config: RunConfig, folder: Path, facts: dict[str, Any]) -> Tokenizer:
    """The tokenizer of the run's data. Raises `UserError` where it is another one than the run was trained with."""
    manifest = data.prepare(config.data).manifest
    there, here = facts.get("tokenizer_fingerprint"), manifest.tokenizer_fingerprint
    check(
        not (there and here) or there == here,
        f"the run in {folder} was trained with another tokenizer than {config.data.tokenizer!r} is now (fingerprint "
        f"{there}, now {here}), so its tokens would mean other text; restore the corpus or the file of the tokenizer",
    )
    return data.load_tokenizer(manifest)


def _params(config: RunConfig, folder: Path, step: int | None, mesh: Mesh) -> tuple[Params, int, dict[str, Any]]:
    checkpoints = Checkpoints(folder, config.run_id)
    field = "params" if config.optimizer.ema_decay is None else "ema"
    table = parameter_table(config.model)
    placed = shardings({name: (row.shape, row.axes) for name, row in table.items()}, mesh)
    dtype = config.model.param_dtype
    like = {field: {name: jax.ShapeDtypeStruct(row.shape, dtype, sharding=placed[name]) for name, row in table.items()}}
    steps = checkpoints.steps() if step is None else [step]
    check(bool(steps), f"{folder} has no checkpoint; train the run with keep_checkpoint=True")
    problems: list[UserError] = []
    for one in steps:
        try:
            state, facts = checkpoints.restore_step(one, like)
        except UserError as error:
            problems.append(error)
            continue
        for problem in problems:
            print(problem)
        return state[field], one, facts
    raise problems[0]
