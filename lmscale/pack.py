"""Several runs of one shape in one program: their states are stacked, and one step moves all of them on.

A small model leaves most of an accelerator idle, since a step of it is a row of kernels too short to fill the device;
stacked, the kernels of all runs are one. On a CPU XLA multiplies stacks of matrices more slowly than one matrix: there,
one process per core is the faster way. What a run learns is what it learns alone, to rounding: every run has its own
seed, order of data, schedule and step number, and nothing of one enters another.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.config import RunConfig, check
from lmscale.optimizer import make_optimizer
from lmscale.step import Compiled, train_step

T = TypeVar("T")

FREE = ("seed", "divergence_nats", "checkpoint_seconds", "keep_checkpoint", "kept_steps", "exam", "name", "tags")
"""Fields of a `RunConfig` in which runs of one program may differ."""
FREE_OF_OPTIMIZER = (
    "peak_lr", "schedule", "final_lr_fraction", "warmup_fraction", "warmup_steps", "cooldown_fraction", "cooldown",
    "weight_decay",
)  # fmt: skip
"""And of its `OptimizerConfig`: what `optimizer.Hyperparameters` hands to the step as numbers."""


def check_alike(configs: Sequence[RunConfig]) -> None:
    """Raise `UserError` unless all runs fit into one program on one device."""
    first = configs[0]
    for config in configs[1:]:
        differs = _difference(first, config)
        check(
            not differs,
            f"runs {first.run_id} and {config.run_id} differ in {differs}, so they are not one program; only "
            f"{', '.join((*FREE[:1], *FREE_OF_OPTIMIZER))} may differ, so train the second one by itself",
        )
    check(
        len(configs) == 1 or (first.mesh.devices == 1 and jax.process_count() == 1),
        f"{len(configs)} runs in one program on {first.mesh.devices} devices of {jax.process_count()} processes: each "
        f"run must fit on one device; take a mesh of 1, or train one run at a time",
    )


def _difference(first: RunConfig, second: RunConfig) -> str:
    """The name of a field in which the two may not differ and do, or nothing."""
    settings = {name: getattr(first.optimizer, name) for name in FREE_OF_OPTIMIZER}
    alike = replace(
        second, optimizer=replace(second.optimizer, **settings), **{name: getattr(first, name) for name in FREE}
    )
    return _path(first.to_json(), alike.to_json())


def _path(first: Any, second: Any) -> str:
    if not isinstance(first, dict):
        return ""
    for name, value in first.items():
        if value != second[name]:
            return ".".join(filter(None, (name, _path(value, second[name]))))
    return ""


def packed_step(programs: Compiled, config: RunConfig, runs: int) -> jax.stages.Wrapped:
    """`programs.step` for `runs` runs at once: all arguments and results have a leading axis. One run has none."""
    if runs == 1:
        return programs.step
    return jax.jit(jax.vmap(partial(train_step, config, make_optimizer(config))), donate_argnums=0)


def stack(parts: Sequence[T]) -> T:
    """The trees of several runs as one, along a new leading axis; that of one run as it is."""
    return parts[0] if len(parts) == 1 else jax.tree.map(_stacked, *parts)


def _stacked(*leaves: Any) -> Any:
    return (np if isinstance(leaves[0], np.ndarray) else jnp).stack(leaves)


def part(whole: T, place: int, runs: int) -> T:
    """A copy of what `stack` got from the run at `place`; of one run the whole."""
    return whole if runs == 1 else _taken(whole, place)


@jax.jit
def _taken(whole: Any, place: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[place], whole)
