"""The fields of a published config.json, read with their types checked."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from lmscale.core.config import RopeScaling, check

MODEL_FILE = "config.json"
"""What a published folder says of its model; a run's own configuration has the same name and other fields."""
T = TypeVar("T", int, float, bool, str)
MISSING: Any = object()


class Fields:
    """A config.json. Every `get` raises `UserError` for a value of another type."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def get(self, name: str, kind: type[T], default: T = MISSING) -> T:
        """The field `name`; `default` where it is missing or null, an error where there is no default."""
        value = self.values.get(name)
        if value is None:
            check(default is not MISSING, f"config.json lacks the field {name!r}")
            return default
        if kind is float and type(value) is int:
            value = float(value)
        check(
            isinstance(value, kind) and (kind is bool or not isinstance(value, bool)),
            f"config.json has {name} = {str(value)[:40]!r}: must be of type {kind.__name__}",
        )
        return cast(T, value)

    def optional(self, name: str, kind: type[T]) -> T | None:
        """The field, as `get` gives it; None where it is missing or null."""
        return None if self.values.get(name) is None else self.get(name, kind)

    def require(self, name: str, allowed: tuple[Any, ...], default: Any) -> None:
        """Raise `UserError` where the field has a value under which our model would compute something else."""
        value = self.values.get(name, default)
        listed = " or ".join(map(repr, allowed))
        check(
            value in allowed,
            f"config.json has {name} = {str(value)[:60]}, which lmscale has no option for; it reads {listed}",
        )


NOT_GATED = {
    "gelu": "gelu-erf", "gelu_new": "gelu", "gelu_fast": "gelu", "gelu_pytorch_tanh": "gelu", "relu2": "relu2"
}  # fmt: skip
"""Published name of the activation of an MLP without a gate -> our MLP."""
ACT_NAME = {
    "swiglu": "silu", "geglu": "gelu_pytorch_tanh", "gelu": "gelu_pytorch_tanh", "gelu-erf": "gelu", "relu2": "relu2"
}  # fmt: skip
"""Our MLP -> the published name of its activation."""


def activation(fields: Fields, name: str, default: str, allowed: Mapping[str, str]) -> str:
    """Our name of the activation in the field `name`."""
    fields.require(name, (*allowed, None), default)
    return allowed[fields.get(name, str, default)]


def read_rope(fields: Fields, base: float = 10_000.0, fraction: float = 1.0) -> dict[str, Any]:
    """Our options of rotary positions. Reads the fields of releases 4 and 5 of transformers."""
    nested: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        value = fields.values.get(name) or {}
        check(isinstance(value, dict), f"config.json has {name} = {str(value)[:40]}: must be a mapping or null")
        nested |= value
    rope = Fields({**fields.values, **nested})
    kind = nested.get("rope_type") or nested.get("type") or "default"
    check(
        kind in ("default", "llama3"),
        f"config.json scales rotary positions by {str(kind)[:40]!r}, which lmscale has no option for; it reads llama3",
    )
    options = {
        "positions": "rotary",
        "rope_base": rope.get("rope_theta", float, rope.get("rotary_emb_base", float, base)),
        "rope_fraction": rope.get("partial_rotary_factor", float, rope.get("rotary_pct", float, fraction)),
    }
    if kind == "llama3":
        options["rope_scaling"] = RopeScaling(
            factor=rope.get("factor", float),
            original_context=rope.get("original_max_position_embeddings", int),
            low_frequency=rope.get("low_freq_factor", float),
            high_frequency=rope.get("high_freq_factor", float),
        )
    return options


def write_rope(base: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """The fields that releases 4 and 5 of transformers both read."""
    scaled = scaling and {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_frequency,
        "high_freq_factor": scaling.high_frequency,
        "original_max_position_embeddings": scaling.original_context,
    }
    return {"rope_theta": base, "rope_scaling": scaled}
