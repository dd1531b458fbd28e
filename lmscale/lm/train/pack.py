"""Several runs of one shape in one program: their states are stacked, and one step moves all of them on.

A small model leaves most of an accelerator idle, since a step of it is a row of kernels too short to fill the device;
stacked, the kernels of all runs are one. On a CPU XLA multiplies stacks of matrices more slowly than one matrix: there,
one process per core is the faster way. What a run learns is what it learns alone, to rounding: every run has its own
seed, order of data, schedule and step number, and nothing of one enters another.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.core.config import RunConfig, check
from lmscale.core.config.packable import MAY_DIFFER, OPTIMIZER_MAY_DIFFER, packing_conflict
from lmscale.lm.objectives import Objective, make_objective
from lmscale.lm.train.optimizer import make_optimizer
from lmscale.lm.train.step import Compiled, train_step

T = TypeVar("T")


def check_alike(configs: Sequence[RunConfig]) -> None:
    """Raise `UserError` unless all runs fit into one program on one device."""
    first = configs[0]
    for config in configs[1:]:
        differs = packing_conflict(first, config)
        check(
            not differs,
            f"runs {first.run_id} and {config.run_id} differ in {differs}, so they are not one program; only "
            f"{', '.join((*MAY_DIFFER[:1], *OPTIMIZER_MAY_DIFFER))} may differ, so train the second one by itself",
        )
    check(
        len(configs) == 1 or (first.mesh.devices == 1 and jax.process_count() == 1),
        f"{len(configs)} runs in one program on {first.mesh.devices} devices of {jax.process_count()} processes: each "
        f"run must fit on one device; take a mesh of 1, or train one run at a time",
    )


def packed_step(
    programs: Compiled, config: RunConfig, runs: int, objective: Objective | None = None
) -> jax.stages.Wrapped:
    """`programs.step` for `runs` runs at once: arguments and results have a leading axis, but for the reference.

    A single run has no such axis.
    """
    if runs == 1:
        return programs.step
    step = partial(train_step, config, objective or make_objective(config), make_optimizer(config))
    return jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None)), donate_argnums=0)


def stack(parts: Sequence[T]) -> T:
    """The trees of several runs as one, along a new leading axis; that of one run as it is."""
    return parts[0] if len(parts) == 1 else jax.tree.map(_stacked, *parts)


def _stacked(*leaves: Any) -> Any:
    return (np if isinstance(leaves[0], np.ndarray) else jnp).stack(leaves)


def unstack(stacked: T, index: int, runs: int) -> T:
    """A copy of the tree that `stack` got from run `index` of `runs`; of a single run the tree itself."""
    return stacked if runs == 1 else _row(stacked, index)


@jax.jit
def _row(stacked: Any, index: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], stacked)
