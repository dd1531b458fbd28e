"""Which runs can share one program: they share its compiled step, which takes as numbers what they differ in."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from lmscale.core.config.checks import check
from lmscale.core.config.run import RunConfig

MAY_DIFFER = (
    "seed", "init_from", "continue_from", "divergence_nats", "checkpoint_seconds", "keep_checkpoint", "kept_steps",
    "exam", "name", "tags",
)  # fmt: skip
"""Fields of a `RunConfig` in which runs of one program may differ."""
OPTIMIZER_MAY_DIFFER = (
    "peak_lr", "schedule", "final_lr_fraction", "warmup_fraction", "warmup_steps", "cooldown_fraction", "cooldown",
    "weight_decay",
)  # fmt: skip
"""Fields of an `OptimizerConfig` in which they may differ: what `optimizer.Hyperparameters` passes to the step as
numbers."""


@cache
def _shared_fields(config: RunConfig) -> dict[str, Any]:
    """The fields that all runs of its program must have alike."""
    fields = {name: value for name, value in config.to_json().items() if name not in MAY_DIFFER}
    optimizer = {name: value for name, value in fields["optimizer"].items() if name not in OPTIMIZER_MAY_DIFFER}
    return {**fields, "optimizer": optimizer}


def packing_conflict(first: RunConfig, second: RunConfig) -> str:
    """The dotted name of a field whose difference keeps two runs out of one program; empty where they can share one."""
    return _first_difference(_shared_fields(first), _shared_fields(second))


def pack_sizes(configs: Sequence[RunConfig], pack: int) -> list[int]:
    """For each run, how many runs the largest program holds that it may be trained in, where up to `pack` share one.

    A run that is spread over several devices is trained by itself, as `launch.pool` does it. Raises `UserError` for a
    `pack` below 1.
    """
    check(pack > 0, f"--pack {pack}: must be at least 1, which takes every run by itself")
    if pack == 1:
        return [1] * len(configs)
    firsts: list[RunConfig] = []
    numbers = []  # of the first run that each one can share a program with
    for config in configs:
        alike = (number for number, first in enumerate(firsts) if not packing_conflict(first, config))
        if (number := next(alike, None)) is None:
            number = len(firsts)
            firsts.append(config)
        numbers.append(number)
    sizes = Counter(numbers)
    return [min(pack, sizes[number]) if config.mesh.devices == 1 else 1 for config, number in zip(configs, numbers)]


def _first_difference(first: Any, second: Any) -> str:
    if not isinstance(first, dict):
        return ""
    for name, value in first.items():
        if value != second[name]:
            return ".".join(filter(None, (name, _first_difference(value, second[name]))))
    return ""
