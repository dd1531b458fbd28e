"""Where a run without a checkpoint of its own starts: random numbers, another run's parameters, or its whole state."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from lmscale.core.config import CheckpointName, RunConfig, check, check_start
from lmscale.core.errors import UserError
from lmscale.core.run_folder import find_run
from lmscale.core.run_identity import read_config
from lmscale.lm.devices.distributed import is_main
from lmscale.lm.model.lora import merged
from lmscale.lm.model.parameters import init_trained, parameter_table
from lmscale.lm.train.checkpoint import Checkpoints
from lmscale.lm.train.checkpoint_content import Identity, OtherData
from lmscale.lm.train.references import check_finished, check_tokenizer, saved_params
from lmscale.lm.train.step import Compiled, TrainState

HEADS = {"head", "scalar_head"}
"""Rows of the parameter table that a reward model does not take from a language model."""
NOTHING_DONE: dict[str, Any] = {"seconds": 0.0, "losses": []}
"""Facts beside a state in which no step is done."""


def first_state(
    config: RunConfig, folder: Path, programs: Compiled, identity: Identity
) -> tuple[TrainState, dict[str, Any], Path]:
    """The state that the run in `folder` starts from, the facts beside it, and the folder whose metrics come before.

    A branch whose trunk has no checkpoint to continue from, since it failed or was trained before the branch was
    planned, starts with its own first step and ends the same. Raises `UserError` for parameters that are not there or
    do not fit, and `OtherData` for a trunk that was trained on other data than those of `identity`, the run's own.
    """
    if config.continue_from is not None:
        name = CheckpointName.parse(config.continue_from, "RunConfig.continue_from")
        assert name.step is not None
        try:
            trunk = find_run(name.run_id, folder)
            same_data = replace(identity, run_id=name.run_id)
            state, facts = Checkpoints(trunk, same_data).restore_step(name.step, programs.state)
            return state, facts, trunk
        except OtherData:
            raise
        except UserError as error:
            if is_main():
                print(f"starting with the first step: {error}", flush=True)
    if config.init_from is not None:
        return programs.start_from(initial_params(config, folder, programs, identity)), NOTHING_DONE, folder
    return programs.start(jax.random.key(config.seed)), NOTHING_DONE, folder


def initial_params(config: RunConfig, folder: Path, programs: Compiled, identity: Identity) -> Any:
    """The parameters that `config.init_from` names: the averaged ones where that run has them.

    Raises `UserError` for a run without that checkpoint, for a model of another shape, and for one with another
    tokenizer than that of `identity`.
    """
    assert config.init_from is not None
    name = CheckpointName.parse(config.init_from, "RunConfig.init_from")
    parent = find_run(name.run_id, folder)
    other = read_config(parent)
    check_finished(parent, name)
    check_start(config, name.run_id, other.model)
    base = replace(config.model, lora=None)
    here, there = parameter_table(base), parameter_table(replace(other.model, lora=None))
    new_head = config.model.scalar_head and not other.model.scalar_head
    for parameter in (row for row in {**here, **there} if not (new_head and row in HEADS)):
        shapes = [table[parameter].shape if parameter in table else "absent" for table in (here, there)]
        check(
            shapes[0] == shapes[1],
            f"this run cannot start from {config.init_from}: parameter {parameter} is {shapes[1]} there and "
            f"{shapes[0]} here; give both runs one model shape",
        )
    sharding = programs.state.params["embedding"].sharding
    assert isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh)
    mesh = sharding.mesh
    saved, fingerprint = saved_params(parent, name, other, mesh)
    check_tokenizer("init_from", name, fingerprint, identity.tokenizer_fingerprint, identity.data_source)
    params, _ = merged(saved, other.model)
    params = {row: value.astype(config.model.param_dtype) for row, value in params.items() if row in here}
    if new_head:
        params["scalar_head"] = jnp.zeros(here["scalar_head"].shape, config.model.param_dtype)
    if config.model.lora is None:
        return params
    return params | jax.jit(partial(init_trained, config.model))(jax.random.key(config.seed))
