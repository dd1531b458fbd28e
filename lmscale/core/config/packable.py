"""Which runs can be one program: they have one compiled step, and it is handed as numbers what they differ in."""

from functools import cache
from typing import Any

from lmscale.core.config.run import RunConfig

FREE = ("seed", "divergence_nats", "checkpoint_seconds", "keep_checkpoint", "kept_steps", "exam", "name", "tags")
"""Fields of a `RunConfig` in which runs of one program may differ."""
FREE_OF_OPTIMIZER = (
    "peak_lr", "schedule", "final_lr_fraction", "warmup_fraction", "warmup_steps", "cooldown_fraction", "cooldown",
    "weight_decay",
)  # fmt: skip
"""And of its `OptimizerConfig`: what `optimizer.Hyperparameters` hands to the step as numbers."""


@cache
def _bound(config: RunConfig) -> dict[str, Any]:
    """The fields in which it may not differ from the others."""
    fields = {name: value for name, value in config.to_json().items() if name not in FREE}
    optimizer = {name: value for name, value in fields["optimizer"].items() if name not in FREE_OF_OPTIMIZER}
    return {**fields, "optimizer": optimizer}


def difference(first: RunConfig, second: RunConfig) -> str:
    """The name of a field in which two runs of one program may not differ and do, or nothing."""
    return _path(_bound(first), _bound(second))


def _path(first: Any, second: Any) -> str:
    if not isinstance(first, dict):
        return ""
    for name, value in first.items():
        if value != second[name]:
            return ".".join(filter(None, (name, _path(value, second[name]))))
    return ""
