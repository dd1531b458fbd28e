"""A sweep whose models have random parameters in place of checkpoints, for the verbs that use trained runs."""

from collections.abc import Iterable
from pathlib import Path

import jax.numpy as jnp

from helpers.published import random_params
from helpers.tiny_runs import run, write
from lmscale.core.config import ModelConfig
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.run_folder import CHECKPOINT_FOLDER
from lmscale.core.run_identity import read_config
from lmscale.lm.data.tokenizer import ByteTokenizer
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.use.load import Opened, TrainedRun


def opened(folder: Path, step: int | None = None) -> Opened:
    """What `load.open_run` gives of a run with a checkpoint, the parameters random."""
    config = read_config(folder)
    params = {name: jnp.asarray(value) for name, value in random_params(config.model).items()}
    return Opened(TrainedRun(config, params, ByteTokenizer()), 7, make_mesh(config.mesh))


def write_sweep(folder: Path, models: Iterable[ModelConfig]) -> Path:
    """The folder of a sweep with a run of each model, in that order, each with the folder of a checkpoint."""
    planned = [PlannedRun(run("here", 1, model=model)) for model in models]
    write_plan(folder, folder.name, planned)
    for one in planned:
        write(one.config, folder / one.config.run_id)
        (folder / one.config.run_id / CHECKPOINT_FOLDER / "7").mkdir(parents=True)
    return folder


def of_width(sweep: Path, width: int) -> Path:
    """The folder of the run with a model of that width."""
    return next(path for path in sweep.iterdir() if path.is_dir() and read_config(path).model.width == width)
